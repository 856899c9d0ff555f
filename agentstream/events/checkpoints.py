"""CheckpointStore: the interface of whatever keeps what runs need to go on.

A checkpoint is made of records, a key and bytes each, whose meaning is the workflow's.
They are kept beside the log, in order with its events, and never in events.  All
records of a run, and of the runs within it (inner runs), are kept under the id of
the outermost one, the root.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set

from agentstream import checks
from agentstream.errors import ConfigError, LogError
from agentstream.events.entry import check_id
from agentstream.events.run_state import RunState

__all__ = ["CheckpointStore", "Entry", "QueuedRun", "check_records", "doubled"]

_MOST_DOUBLED = 6
_MOST_BYTES = 999_000_000  # SQLite takes no row above 10^9


class Entry(NamedTuple):
    """A run that was taken again, to go on.

    Attributes:
        last: the offset of its newest event; 0 where nobody has begun it.
        fence: counts how often it was taken: 1 for who began it.  What an earlier
            holder still appends is refused.
        deaths: how many of its processes died.
        reason: what it was: "interrupted", "suspended", or "queued" (`CheckpointStore.queue`).
        records: its checkpoint, answers included.
        inner: the runs within it that have not ended, and were taken with it: the
            offset of the newest event of each, by its id.
    """

    last: int
    fence: int
    deaths: int
    reason: str
    records: Dict[str, bytes]
    inner: Dict[str, int]


class QueuedRun(NamedTuple):
    """A run that is to be queued, as `CheckpointStore.queue` has its fields."""

    workflow_id: str
    name: str
    records: Dict[str, bytes]
    recover: int
    keep: Optional[float]
    due: float
    input: Optional[str]


class CheckpointStore(ABC):
    """Keeps checkpoints.  All methods may be called from any thread.

    A run that has begun to keep a checkpoint can be resumed: it becomes "interrupted" when
    its process dies, not "failed", and `EventType.WORKFLOW_SUSPENDED` releases it, for
    whoever resumes it, with the status that the event's data names.  With its terminal
    event its records go, and inner runs that have not ended become "closed".  Stopped
    (`EventStore.request_stop`) while nobody runs it, it ends as cancelled, and with it the
    runs within it.
    """

    @abstractmethod
    def begin(
        self,
        workflow_id: str,
        *,
        root: Optional[str] = None,
        recover: int = 3,
        keep: Optional[float] = None,
    ) -> None:
        """Make a run that this process has claimed one that can be resumed.

        Args:
            workflow_id: the run's.
            root: the outermost run's id; None for that one itself.
            recover: how many deaths of its processes it outlives; with the next it fails.
                An inner run has its root's.
            keep: seconds that its records are kept after its end; None: they go at once.

        Raises:
            LogError: the run, or its root, is not this process's.
        """

    @abstractmethod
    def write(
        self,
        workflow_id: str,
        records: Mapping[str, Optional[bytes]],
        *,
        discard: Sequence[str] = (),
        wait: bool = True,
    ) -> None:
        """Write records of a root that this process runs, in order behind the events before.

        All of it is kept, or nothing.  Of a run that was refused nothing is kept.

        Args:
            workflow_id: the root's.
            records: what to write; None deletes the record.
            discard: beginnings of keys: records that have one are deleted first.
            wait: return when it is committed.  Otherwise what goes wrong shows at
                the next write that waits: when that is committed, those before it are.

        Raises:
            ConfigError: a key is no text of 1 to 256 characters, or a value no bytes.
            LogError: it is not committed, or not this process's to write.
        """

    @abstractmethod
    def refuse(self, workflow_id: str, why: str) -> None:
        """Have a run of this process not be resumed: its records go.

        Should its process die it fails, and the error says why.

        Raises:
            LogError: as `write`.
        """

    @abstractmethod
    def resume(self, workflow_id: str) -> Entry:
        """Take a run that nobody has, with the runs within it; its fence grows by one.

        Its process's death, found here or before, counts in `Entry.deaths`.

        Raises:
            Busy: a living process has it; nothing has changed.
            LogError: there is no such run, it has ended, or why it cannot be resumed.
        """

    @abstractmethod
    def read(self, workflow_id: str) -> Dict[str, bytes]:
        """All records of a run, or of the root that it is within; {} for none."""

    def keys(self, workflow_id: str, starts: Sequence[str]) -> Set[str]:
        """The keys of a run's records, as `read` has them, that begin with one of `starts`."""
        return {key for key in self.read(workflow_id) if key.startswith(tuple(starts))}

    @abstractmethod
    def answer(self, workflow_id: str, key: str, value: bytes) -> bool:
        """Add a record from whatever process, once; False if there is one of that key.

        Raises:
            LogError: the run has ended, keeps no checkpoints, or it could not be written.
        """

    @abstractmethod
    def waiting(self) -> List[RunState]:
        """The roots that are interrupted or suspended and can be resumed, oldest first."""

    # For runs that are queued for whoever takes them (agentstream.jobs).

    def queue(
        self,
        workflow_id: str,
        name: str,
        records: Mapping[str, bytes],
        *,
        recover: int = 3,
        keep: Optional[float] = None,
        due: float = 0.0,
        input: Optional[str] = None,
    ) -> None:
        """Make a run that nobody has yet, a root: whoever takes it (`resume`) begins it.

        It is "queued" and keeps a checkpoint, so that it is found, stopped and taken as one
        that is interrupted is.  Returns when it is committed.

        Args:
            workflow_id: the run's.
            name: its workflow's.
            records: its checkpoint.
            recover, keep: as in `begin`.
            due: seconds until it is due (`take_due`) for the first time.
            input: what it is given, as text, for `RunState.input` (`EventStore.note_input`).

        Raises:
            ConfigError: an argument cannot be used, or the store queues no runs.
            LogError: there is such a run already, or it is not known to be committed.
        """
        check_id("workflow_id", workflow_id)
        check_id("name", name)
        check_records(records)
        checks.whole("recover", recover)
        keep = checks.seconds("keep", keep, optional=True)
        kept = {key: bytes(value) for key, value in records.items()}
        self._queue(QueuedRun(workflow_id, name, kept, recover, keep, due, input))

    def _queue(self, run: QueuedRun) -> None:
        """Do what `queue` says, of which all is known to be right."""
        raise _queues_none(self)

    def take_due(self, names: Sequence[str], *, pause: float = 60.0, limit: int = 100) -> List[str]:
        """The queued runs that are due, those longest due first: each is told to one caller.

        A run that was queued is due as `queue` says; once it has been taken, again when it has
        been left: interrupted by whatever, suspended, and answered since.  The caller takes it,
        or has it taken.  If nobody does, it is due again `pause` seconds later, then twice as
        many seconds later, and so on, up to 64 times as many.

        Args:
            names: of the workflows that count.
            pause: seconds.
            limit: of how many runs to tell.

        Raises:
            ConfigError: the store queues no runs.
            LogError: the log cannot be asked.
        """
        raise _queues_none(self)

    def bring_forward(self, workflow_id: str, due: float = 0.0) -> bool:
        """Have a queued run that nobody has due in `due` seconds, unless it is so earlier.

        Returns False for a run that somebody has, or that was not queued.

        Raises:
            ConfigError: the store queues no runs.
            LogError: the log cannot be written.
        """
        raise _queues_none(self)


def _queues_none(store: CheckpointStore) -> ConfigError:
    kind = type(store).__name__
    return ConfigError(
        f"{kind} queues no runs: those of SqliteStore, RedisStore and MemoryStore do"
    )


def doubled(pause: float, calls: int) -> float:
    """Seconds until a run is due again that has been told of `calls` times."""
    return pause * 2.0 ** min(max(calls - 1, 0), _MOST_DOUBLED)


def check_records(records: Mapping[str, Any], discard: Sequence[str] = ()) -> None:
    """See that records can be kept: keys as ids are, values of at most 999,000,000 bytes.

    Raises:
        ConfigError: a key or a value is none.
        LogError: a value is too large.
    """
    for key, value in records.items():
        check_id("key", key)
        if value is not None and not isinstance(value, (bytes, bytearray, memoryview)):
            raise ConfigError(f"the record {key!r} must be bytes, not {type(value).__name__}")
        if value is not None and len(value) > _MOST_BYTES:
            raise LogError(f"the record {key!r} has more than {_MOST_BYTES:,} bytes")
    for start in discard:
        checks.text("discard", start, empty=True)
