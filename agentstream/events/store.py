"""EventStore: the interface of whatever keeps events.

A store gives positions, keeps what it can, and says what it has let go.  It
knows no subscribers; events/stream.py does.
"""

from __future__ import annotations

import enum
import importlib
from abc import ABC, abstractmethod
from typing import AbstractSet, Any, Callable, List, Mapping, NamedTuple, Optional, Tuple

from agentstream.errors import ConfigError, LogError
from agentstream.events.checkpoints import CheckpointStore
from agentstream.events.model import TERMINAL, Event, EventType
from agentstream.events.run_state import RunState, first_line

__all__ = [
    "Bounds",
    "EventStore",
    "PublishOwn",
    "RunState",
    "StopAnswer",
    "StopCallback",
    "end_of",
    "first_line",
    "has_log",
]

#: Called with a workflow id and a reason; True if that run is being stopped.
StopCallback = Callable[[str, str], bool]
#: Called with a workflow id, its parent's, the offset before the event, its type, its data.
PublishOwn = Callable[[str, Optional[str], int, EventType, Mapping[str, Any]], None]


class Bounds(NamedTuple):
    """The first and the last that can be read: offsets of a workflow, or positions of the log.

    `first` is `last + 1` where nothing is left; both are 0 where nothing ever was.
    """

    first: int
    last: int


class StopAnswer(str, enum.Enum):
    """What came of a request to stop a run; false if nothing did.

    Attributes:
        NOBODY: there is no such run, or it has ended.
        ASKED: its process was asked, and ends it.
        ENDED: nobody had it, as it was queued, suspended or interrupted: it has ended.
    """

    NOBODY = ""
    ASKED = "asked"
    ENDED = "ended"


def end_of(store: EventStore, state: RunState) -> Optional[Event]:
    """A run's terminal event; None while there is none, or if it is gone."""
    if state.status not in ("completed", "failed", "cancelled"):
        return None
    after = max(0, state.last_offset - 1)
    found = store.read(workflow_id=state.workflow_id, after=after, limit=1)
    return found[0] if found and found[0].type in TERMINAL else None


class EventStore(ABC):
    """Keeps events.  All methods may be called from any thread.

    A store of your own needs the seven abstract ones: `append`, `read`,
    `bounds`, `has_ended`, `runs`, `run` and `wait`; inherit
    `agentstream.testing.StoreConformance` to test it.  The others have
    defaults that suit a store in one process's memory: override `settle` and
    `flush` if events are kept later than they are taken, and `claim`,
    `read_others`, `request_stop` and `watch_stops` if processes share the log
    (`agentstream.testing.SharedStoreConformance`).
    With `checkpoints`, runs in it can go on after their process
    (`agentstream.testing.CheckpointConformance`).
    """

    #: True if other processes may append to the log as well.
    shared = False
    #: What runs need to go on, kept beside their events; None: it keeps no such thing.
    checkpoints: Optional[CheckpointStore] = None

    @abstractmethod
    def append(self, fields: Tuple[Any, ...]) -> Event:
        """Keep an event, given as the tuple of its fields (an `Event` is one).

        Returns it, with its position if the store gives that at once.  One that
        is there already, by workflow and offset, is not kept twice.

        Called under a stream's lock: it must not wait for a disk.  Where it
        raises, `bounds` must tell whether the event was kept.
        """

    @abstractmethod
    def read(
        self, *, workflow_id: Optional[str] = None, after: int = 0, limit: int = 500
    ) -> List[Event]:
        """The next events, at most `limit`, all that was appended before included.

        Those of one workflow with an offset above `after`, or those of all with
        a position above it.  What is gone is left out: compare with `bounds`.
        """

    @abstractmethod
    def bounds(self, workflow_id: Optional[str] = None) -> Bounds:
        """The first and last offset of a workflow, or position of the log, that can be read.

        Events that were appended and are not committed count.
        """

    @abstractmethod
    def has_ended(self, workflow_id: str) -> bool:
        """True if the workflow's terminal event is known."""

    @abstractmethod
    def runs(self, *, limit: int = 100) -> List[RunState]:
        """The runs that are known, the newest first."""

    @abstractmethod
    def run(self, workflow_id: str) -> Optional[RunState]:
        """One run, with its output and its error (`RunState.with_end`), or None if unknown."""

    @abstractmethod
    def wait(self, after: int, timeout: float) -> bool:
        """Wait until there are events with a position above `after`; False if none came in time.

        `timeout` is in seconds.  Returns early when the store is closed.
        """

    # For stores that keep events later than they take them.

    def settle(self, event: Event) -> None:  # noqa: B027
        """Wait until an appended event is kept as durably as the store promises.

        Raises:
            LogError: it could not be.
        """

    def flush(self) -> None:  # noqa: B027
        """Wait until all that was appended is kept.

        Raises:
            LogError: it could not be.
        """

    # For stores that tell what a run was given.

    def note_input(self, workflow_id: str, text: str) -> None:  # noqa: B027
        """Keep what a claimed run is given, for `RunState.input`; comes before its first event.

        It goes when the last of the run's events goes.
        """

    # For stores that append events of their own, and are in one process's memory.

    def publish_through(self, publish: PublishOwn) -> None:  # noqa: B027
        """Append events of the store's own by `publish`, so that a stream's subscribers have
        them; a bound method, which is not kept alive."""

    # For runs that can be resumed.

    def need_checkpoints(self) -> CheckpointStore:
        """`checkpoints`.

        Raises:
            ConfigError: this store keeps none.
        """
        if self.checkpoints is None:
            kind = type(self).__name__
            raise ConfigError(
                f"{kind} keeps no checkpoints: SqliteStore, RedisStore and MemoryStore do"
            )
        return self.checkpoints

    # For stores that several processes share.

    def claim(self, workflow_id: str, parent_workflow_id: Optional[str] = None) -> None:
        """Become the one writer of a new workflow's events; `append` follows.

        Raises:
            LogError: it has events already, or another writer.
        """
        if self.bounds(workflow_id).last or self.has_ended(workflow_id):
            raise has_log(workflow_id)

    def read_others(
        self, after: int, limit: int, *, only: Optional[AbstractSet[str]] = None
    ) -> Tuple[List[Event], int]:
        """Events that other processes appended after a position, at most `limit`.

        Returns them, and the position up to which that goes.  `only` has the ids of the
        runs that are asked for, None for all: events of others may be left out.

        Raises:
            OffsetGone: some of them are gone; `first` and `last` of the positions left.
        """
        return [], after

    def read_new(self, after: int, limit: int) -> List[Event]:
        """Events of all processes after a position, as far as `wait` has told of any.

        For whoever follows the log: `read`, where a store cannot do it for less.
        """
        return self.read(after=after, limit=limit)

    def request_stop(self, workflow_id: str, reason: str) -> StopAnswer:
        """Ask the process that runs a workflow to stop it; false if none does.

        A run that is queued, suspended or interrupted nobody runs: it ends here, as cancelled.
        """
        return StopAnswer.NOBODY

    def watch_stops(self, callback: StopCallback) -> None:  # noqa: B027
        """Call `callback` with the requests of others; a bound method, which is not kept alive."""

    def close(self) -> None:  # noqa: B027 - memory needs none
        """Write what is pending and let go of files.  Idempotent."""

    # What a fork needs: the log at rest while it is copied.  All streams come first: who
    # appends holds a stream's lock when it takes the store's.

    _fork_order = 1

    def _before_fork(self) -> None:  # noqa: B027
        """Hold the log still."""

    def _after_fork_in_parent(self) -> None:  # noqa: B027
        """Let it go again."""

    def _after_fork(self) -> None:  # noqa: B027
        """In the child: the same, with fresh locks."""


def has_log(workflow_id: str) -> LogError:
    """The error of who would begin a run whose log is there already."""
    return LogError(f"workflow {workflow_id!r} has a log already: choose another id, or resume it")


def __getattr__(name: str) -> Any:
    if name == "MemoryStore":  # it stood here
        return importlib.import_module("agentstream.events.memory").MemoryStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
