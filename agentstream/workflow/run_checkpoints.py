"""RunCheckpoints: what is kept of a run, so that another process can go on with it.

Records are kept under the run's id, one for each step that is done, each answer of an
agent and each call of a tool; those of the runs within it too.  A key is the place of
what it is about, a "|", and the kind of record: "1.facts|done".  The events tell a run,
for people; the checkpoint is what it goes on from.

A value that cannot be kept makes the run one that cannot be resumed: it goes on, and fails
if its process dies.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import threading
import time
from typing import Any, Container, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from agentstream.agent.approval import Approval
from agentstream.agent.checkpoints import AgentCheckpoint
from agentstream.errors import ConfigError, LogError
from agentstream.events.checkpoints import CheckpointStore, Entry
from agentstream.results import PendingCall, PendingSignal, StepResult, Usage
from agentstream.workflow.checkpoints import Checkpoints, Codec
from agentstream.workflow.codec import NotKept, decode, encode

__all__ = ["RunCheckpoints", "pack", "unpack"]

logger = logging.getLogger("agentstream.workflow")

#: What the bytes of a record begin with: as they are, or encoded by the user's codec.
_PLAIN, _CODED = b"j", b"c"
#: Seconds by which the time that is kept may lag behind.
_TIMED_S = 1.0


def pack(value: Any, codec: Optional[Codec]) -> bytes:
    """A value as it is kept.

    Raises:
        NotKept: it cannot be.
    """
    return _coded(encode(value, "kept"), codec)


def _coded(data: bytes, codec: Optional[Codec]) -> bytes:
    return _PLAIN + data if codec is None else _CODED + codec.encode(data)


def unpack(data: bytes, codec: Optional[Codec]) -> Any:
    """The value that `pack` was given.

    Raises:
        ConfigError: it is encoded, and there is no codec, or one that cannot decode it.
        LogError: it is none, or of a class that is not there any more.
    """
    if data[:1] == _CODED:
        if codec is None:
            raise ConfigError(
                "the checkpoints are encoded: Runtime(checkpoints=Checkpoints(codec=...))"
            )
        try:
            plain = codec.decode(data[1:])
        except Exception as error:
            problem = type(error).__name__
            raise ConfigError(f"the codec cannot decode the checkpoints: {problem}") from error
        return decode(plain)
    return decode(data[1:])


class RunCheckpoints:
    """What is kept of one run, and of those within it.  Any number of threads may use one.

    Args:
        store: where it is kept.
        workflow_id: the run's id.
        settings: how.
        grace: seconds that what is under way may take to end once the process leaves the run.
        entry: what an earlier process has left; None for a run that begins.

    Attributes:
        asked: what the run waited for that is taken again; set by who takes it.
        leaving: the process leaves the run, for another one to go on.
        values: what the run's steps share; set by whoever runs it.
    """

    def __init__(
        self,
        store: CheckpointStore,
        workflow_id: str,
        settings: Checkpoints,
        grace: float,
        *,
        entry: Optional[Entry] = None,
    ) -> None:
        self.workflow_id = workflow_id
        self.leaving = False
        self.grace = grace
        self.entry = entry
        self.asked: Sequence[Union[PendingCall, PendingSignal]] = ()
        self.values: Dict[str, Any] = {}
        self._store = store
        self._settings = settings
        self._kept: Dict[str, bytes] = {} if entry is None else dict(entry.records)
        self._context: Optional[bytes] = None  # as it was kept last, not encoded
        self._lock = threading.Lock()  # of what follows
        self._written = 0  # what was put
        self._settled = 0  # ... and is known to be kept
        self._refused = False
        self._used: Dict[str, str] = {}  # the values from outside that steps use now
        self._base = max(0.0, self._elapsed_before())
        self._started = time.monotonic()
        self._timed = self._base  # what was kept last as `elapsed`

    def _elapsed_before(self) -> float:
        found = self.get("elapsed")
        return float(found) if isinstance(found, (int, float)) else 0.0

    @property
    def elapsed(self) -> float:
        """Seconds that processes have worked on the run."""
        return self._base + time.monotonic() - self._started

    # --- records ----------------------------------------------------------------------------

    def get(self, key: str) -> Any:
        """The value that an earlier process kept under a key; None for none.

        Raises:
            ConfigError, LogError: as `unpack`.
        """
        data = self._kept.get(key)
        return None if data is None else unpack(data, self._settings.codec)

    def keys(self, ending: str) -> List[str]:
        """The keys that an earlier process kept and that end so."""
        return [key for key in self._kept if key.endswith(ending)]

    def put(
        self,
        records: Mapping[str, Any],
        *,
        wait: bool = False,
        discard: Sequence[str] = (),
    ) -> bool:
        """Keep values, those that are None no longer; with `wait`, until they are kept.

        What the steps share is kept with them, where it has changed.

        Args:
            discard: first, what is kept of these places.

        Returns:
            False if one of the values cannot be kept: the run cannot be resumed any more.

        Raises:
            LogError: they could not be, or another process has the run now.
        """
        if self._refused:
            return True
        gone = [place + sign for place in discard for sign in "|./"]
        try:
            packed = {key: self._packed(key, value) for key, value in records.items()}
            elapsed = self.elapsed
            if elapsed - self._timed > _TIMED_S or wait or discard:
                self._timed = elapsed
                packed["elapsed"] = pack(round(elapsed, 3), None)
            with self._lock:  # an older state of what is shared must not come behind a newer one
                context = self._add_context(packed)
                self._store.write(self.workflow_id, packed, discard=gone, wait=False)
                self._context = context
                self._written += 1
        except NotKept as error:
            self._refuse(str(error))
            return False
        if wait:
            self.settle()
        return True

    def _packed(self, key: str, value: Any) -> Optional[bytes]:
        try:
            return None if value is None else pack(value, self._settings.codec)
        except NotKept as error:
            place = key.partition("|")[0]
            raise NotKept(f"{f'step {place}' if '|' in key else place}: {error}") from None

    def _add_context(self, packed: Dict[str, Optional[bytes]]) -> Optional[bytes]:
        """Add what the steps share, if it has changed; returns it as it is kept then."""
        values = dict(self.values)
        if not values and self._context is None:
            return None
        try:
            data = encode(values, "context")
        except RuntimeError:  # somebody changes it this moment, and puts it afterwards
            return self._context
        if data != self._context:
            packed["context"] = _coded(data, self._settings.codec)
        return data

    def settle(self) -> None:
        """Wait until all that was put is kept.

        Raises:
            LogError: it could not be, or another process has the run now.
        """
        with self._lock:
            written = self._written
        if written > self._settled and not self._refused:
            self._store.write(self.workflow_id, {}, wait=True)
            self._note_settled(written)

    def _note_settled(self, written: int) -> None:
        with self._lock:
            self._settled = max(self._settled, written)

    def _refuse(self, why: str) -> None:
        """The run cannot be resumed from here on."""
        self._refused = True
        logger.warning("run %s cannot be resumed any more: %s", self.workflow_id, why)
        try:
            self._store.refuse(self.workflow_id, why)
        except LogError:
            logger.exception("run %s could not be marked so", self.workflow_id)

    # --- what is in them --------------------------------------------------------------------

    def begin(self, input: Any, workflow: str, shape: Any, *, conversation: bool, key: str) -> None:
        """Keep what a run begins with.

        Args:
            key: what the idempotency keys of the run's calls are made of.
        """
        self._store.begin(
            self.workflow_id, recover=self._settings.recover, keep=self._settings.keep
        )
        said = {"workflow": workflow, "shape": shape, "conversation": conversation, "key": key}
        self.put({"run": said})
        self.put({"input": [input]})

    def begin_inner(self, workflow_id: str, place: str) -> None:
        """Keep the id of a run within this one that begins."""
        if not self._refused:
            self._store.begin(workflow_id, root=self.workflow_id)
            self.put({f"{place}|inner": workflow_id})

    def number_of(self, place: str, agent: str, input: Any, taken: Container[int]) -> int:
        """The number of an agent that a function or tool runs, of those that it runs, from 1.

        One that an earlier process ran with that input has the number that it had, in
        whichever order they come now; another one has the next, and what was kept there is
        of no use.

        Args:
            place: of the function or tool.
            agent: the agent's name.
            input: what it is asked.
            taken: numbers that others have by now.
        """
        try:
            asked = encode([agent, input])
        except NotKept:
            asked = b""
        digest = hashlib.sha256(asked).hexdigest()
        free = (n for n in itertools.count(1) if n not in taken)
        number = first = next(free)
        while True:
            known = self.get(f"{place}-{number}|for")
            if known == digest:
                return number
            if known is None:
                break
            number = next(free)
        if self.get(f"{place}-{first}|for") is not None:
            self.forget(f"{place}-{first}")
        self.put({f"{place}-{first}|for": digest})
        return first

    def forget(self, place: str, instead: Optional[Mapping[str, Any]] = None) -> None:
        """Let go of what was kept at a place and within it; keep `instead`."""
        for key in list(self._kept):
            if key.startswith((f"{place}|", f"{place}.", f"{place}/")):
                del self._kept[key]
        self.put(instead or {}, discard=(place,))

    def inner(self, place: str) -> Optional[Tuple[str, int]]:
        """The id of the run that an earlier process left at a place, and its last offset."""
        name = self.get(f"{place}|inner")
        if name is None or self.entry is None or name not in self.entry.inner:
            return None
        return name, self.entry.inner[name]

    def done(self, place: str) -> Optional[Tuple[StepResult, Tuple[str, ...]]]:
        """What a step came to that is not run again, and its warnings with their steps' names."""
        found = self.get(f"{place}|done")
        if found is None:
            return None
        return found["result"]._replace(output=found["output"]), tuple(found["warnings"])

    def keep_done(
        self,
        place: str,
        result: StepResult,
        warnings: Sequence[str],
        *,
        used: Optional[str] = None,
    ) -> bool:
        """Keep what a step came to, in place of all that was kept within it.

        Args:
            used: the key of a record that it has used up.

        Returns:
            False if it cannot be kept.
        """
        done = {
            "output": result.output,
            "result": result._replace(output=None),
            "warnings": list(warnings),
        }
        records: Dict[str, Any] = {f"{place}|done": done}
        records[f"at:{place}"] = None
        if used is not None:
            records[used] = None
            self._kept.pop(used, None)
        kept = self.put(records, discard=(place,))
        if used is not None:
            self._used.pop(used, None)
        return kept

    def begun(self, place: str) -> float:
        """Note that a step begins; returns the seconds that earlier processes worked on it."""
        key = f"at:{place}"
        at = self.get(key)
        if at is None:
            self.put({key: round(self.elapsed, 3)})
            return 0.0
        return max(0.0, self._base - float(at))

    def attempt(self, place: str) -> Tuple[int, Usage]:
        """Which try at a step is under way, and what the others have used."""
        found = self.get(f"{place}|again")
        return (1, Usage()) if found is None else (found["attempt"], found["usage"])

    def keep_attempt(self, place: str, attempt: int, usage: Usage) -> None:
        """Keep that a step is tried again, in place of what the last try had kept."""
        self.forget(place, {f"{place}|again": {"attempt": attempt, "usage": usage}})

    def agent(self, place: str) -> AgentCheckpoint:
        """The checkpoint of the agent that runs at a place."""
        return AgentCheckpoint(self, place)

    # --- answers of people ------------------------------------------------------------------

    def decision(self, id: str) -> Optional[Approval]:
        """What has been answered to a pending call; None for nothing yet."""
        found = self.get(f"answer:{id}")
        return None if found is None else approval_of(found)

    def signal(self, name: str, place: str) -> Optional[Mapping[str, Any]]:
        """A value that was sent, {value, by, at}, for one place; None for none so far.

        Of a run under way the store is asked: it may have come in this process's time.
        """
        key = f"signal:{name}"
        with self._lock:
            found: Optional[Mapping[str, Any]] = self.get(key)
            if found is None:
                data = self._store.read(self.workflow_id).get(key)
                found = None if data is None else unpack(data, self._settings.codec)
            if found is None or self._used.setdefault(key, place) != place:
                return None
        return found

    def keep_pending(self, pending: Sequence[Mapping[str, Any]]) -> None:
        """Keep what the run waits for, as its last event has it, which may be gone by then.

        Raises:
            LogError: it could not be.
        """
        self._store.write(self.workflow_id, {"pending": pack(list(pending), None)}, wait=False)


def approval_of(answer: Mapping[str, Any]) -> Approval:
    """The Approval that an answer in a store stands for."""
    if answer["answer"] == "yes":
        return Approval.yes()
    if answer["answer"] == "change":
        return Approval.change(answer["arguments"])
    return Approval.no(answer.get("reason") or "")
