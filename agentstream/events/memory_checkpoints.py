"""MemoryCheckpoints: what the runs of one process need to go on, in its memory."""

from __future__ import annotations

import time
from typing import Any, Container, Dict, List, Mapping, Optional, Protocol, Sequence

from agentstream import checks
from agentstream.errors import Busy, LogError
from agentstream.events.checkpoints import (
    CheckpointStore,
    Entry,
    QueuedRun,
    check_records,
    doubled,
)
from agentstream.events.entry import check_id
from agentstream.events.resting import RESTING
from agentstream.events.run_state import RunState

__all__ = ["MemoryCheckpoints", "Runs"]


class Runs(Protocol):
    """What is asked of the store of the runs; all but the lock while it is held."""

    _lock: Any

    def _status_of(self, workflow_id: str) -> Optional[str]:
        """A run's status; None if it is not known."""

    def _last_of(self, workflow_id: str) -> int:
        """The offset of a run's newest event; 0 for none."""

    def _go_on(self, workflow_id: str) -> None:
        """A run that rested is under way again."""

    def _rest(self, workflow_id: str, status: str) -> None:
        """Nobody runs it any more."""

    def _queue(self, workflow_id: str, name: str, input: Optional[str]) -> None:
        """Make a run that nobody has yet; raises LogError if there is one."""

    @property
    def _rests(self) -> Container[str]:
        """The runs that nobody has."""

    def _close_run(self, workflow_id: str) -> None:
        """A run has no end, and nothing more will come of it."""

    def run(self, workflow_id: str) -> Optional[RunState]:
        """See `EventStore.run`."""


class _Checkpoint:
    """What is kept of a root."""

    __slots__ = (
        *("calls", "due", "fence", "gone_at", "inner", "keep", "name", "records", "refused"),
    )

    def __init__(self, keep: Optional[float]) -> None:
        self.keep = keep
        self.fence = 1
        self.records: Dict[str, bytes] = {}
        self.inner: Dict[str, None] = {}
        self.refused: Optional[str] = None
        self.gone_at: Optional[float] = None  # once the run has ended
        self.name: Optional[str] = None  # its workflow's, of one that was queued
        self.due: Optional[float] = None  # when somebody is to take it; None: somebody has
        self.calls = 0  # how often somebody was told so, since it has been so

    def call(self, due: float) -> None:
        """Somebody is to take it, from then on."""
        self.due, self.calls = due, 0


class MemoryCheckpoints(CheckpointStore):
    """Checkpoints of runs that this process suspends, and goes on with."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._kept: Dict[str, _Checkpoint] = {}  # by root
        self._roots: Dict[str, str] = {}  # of inner runs
        self._over: Dict[str, None] = {}  # roots that have ended, whose records are kept

    def __repr__(self) -> str:
        return f"<MemoryCheckpoints of {len(self._kept)} runs>"

    # --- the run's own process --------------------------------------------------------------

    def begin(
        self,
        workflow_id: str,
        *,
        root: Optional[str] = None,
        recover: int = 3,
        keep: Optional[float] = None,
    ) -> None:
        """See `CheckpointStore.begin`; `recover` is of no account, as no other process looks."""
        check_id("workflow_id", workflow_id)
        checks.whole("recover", recover)
        keep = checks.seconds("keep", keep, optional=True)
        with self._runs._lock:
            self._forget()
            self._check_active(workflow_id)
            if root is None:
                self._kept.setdefault(workflow_id, _Checkpoint(keep))
                return
            self._of(root).inner[workflow_id] = None
            self._roots[workflow_id] = root

    def write(
        self,
        workflow_id: str,
        records: Mapping[str, Optional[bytes]],
        *,
        discard: Sequence[str] = (),
        wait: bool = True,
    ) -> None:
        """See `CheckpointStore.write`."""
        check_records(records, discard)
        with self._runs._lock:
            self._check_active(workflow_id)
            checkpoint = self._of(workflow_id)
            if checkpoint.refused is not None:
                return
            kept = checkpoint.records
            if discard:
                for key in [key for key in kept if key.startswith(tuple(discard))]:
                    del kept[key]
            for key, value in records.items():
                if value is None:
                    kept.pop(key, None)
                else:
                    kept[key] = bytes(value)

    def refuse(self, workflow_id: str, why: str) -> None:
        """See `CheckpointStore.refuse`."""
        with self._runs._lock:
            self._check_active(workflow_id)
            checkpoint = self._of(workflow_id)
            checkpoint.refused = why
            checkpoint.records.clear()

    def _check_active(self, workflow_id: str) -> None:
        status = self._runs._status_of(workflow_id)
        if workflow_id in self._runs._rests or status not in ("queued", "running"):
            raise LogError(f"workflow {workflow_id!r} is not under way here")

    def _of(self, workflow_id: str) -> _Checkpoint:
        checkpoint = self._kept.get(workflow_id)
        if checkpoint is None or checkpoint.gone_at is not None:
            raise _keeps_none(workflow_id)
        return checkpoint

    # --- anybody ----------------------------------------------------------------------------

    def resume(self, workflow_id: str) -> Entry:
        """See `CheckpointStore.resume`."""
        runs = self._runs
        with runs._lock:
            self._forget()
            status = runs._status_of(workflow_id)
            root = self._roots.get(workflow_id)
            if status is None:
                raise LogError(f"there is no run {workflow_id!r}")
            if root is not None:
                raise LogError(f"workflow {workflow_id!r} is within {root!r}: resume that one")
            if workflow_id not in runs._rests and status in ("queued", "running"):
                raise Busy(f"workflow {workflow_id!r} is under way")
            if workflow_id not in runs._rests:
                raise LogError(f"workflow {workflow_id!r} has ended: {status}")
            checkpoint = self._of(workflow_id)
            if checkpoint.refused is not None:
                raise LogError(f"workflow {workflow_id!r} cannot be resumed: {checkpoint.refused}")
            checkpoint.fence += 1
            checkpoint.due = None
            inner = {
                name: runs._last_of(name)
                for name in checkpoint.inner
                if runs._status_of(name) in ("queued", "running", *RESTING)
            }
            for name in (workflow_id, *inner):
                runs._go_on(name)
            records = dict(checkpoint.records)
            last = runs._last_of(workflow_id)
            return Entry(last, checkpoint.fence, 0, status, records, inner)

    def read(self, workflow_id: str) -> Dict[str, bytes]:
        """See `CheckpointStore.read`."""
        with self._runs._lock:
            self._forget()
            checkpoint = self._kept.get(self.root_of(workflow_id))
            return {} if checkpoint is None else dict(checkpoint.records)

    def answer(self, workflow_id: str, key: str, value: bytes) -> bool:
        """See `CheckpointStore.answer`."""
        check_records({key: value})
        with self._runs._lock:
            checkpoint = self._of(self.root_of(workflow_id))
            if checkpoint.refused is not None:
                raise LogError(f"workflow {workflow_id!r} cannot go on: {checkpoint.refused}")
            if key in checkpoint.records:
                return False
            checkpoint.records[key] = bytes(value)
            if checkpoint.due is not None:
                checkpoint.call(time.monotonic())
            return True

    def _queue(self, run: QueuedRun) -> None:
        checkpoint = _Checkpoint(run.keep)  # `recover` is of no account here, too
        checkpoint.records = dict(run.records)
        checkpoint.fence, checkpoint.name = 0, run.name
        checkpoint.call(time.monotonic() + run.due)
        checkpoint.calls = int(run.due > 0)
        with self._runs._lock:
            self._runs._queue(run.workflow_id, run.name, run.input)
            self._kept[run.workflow_id] = checkpoint

    def take_due(self, names: Sequence[str], *, pause: float = 60.0, limit: int = 100) -> List[str]:
        """See `CheckpointStore.take_due`."""
        now = time.monotonic()
        with self._runs._lock:
            found = [
                (checkpoint.due, name, checkpoint)
                for name, checkpoint in self._kept.items()
                if checkpoint.due is not None and checkpoint.due <= now and checkpoint.name in names
            ]
            found.sort(key=lambda one: one[0])
            for _, _, checkpoint in found[:limit]:
                checkpoint.calls += 1
                checkpoint.due = now + doubled(pause, checkpoint.calls)
            return [name for _, name, _ in found[:limit]]

    def bring_forward(self, workflow_id: str, due: float = 0.0) -> bool:
        """See `CheckpointStore.bring_forward`."""
        with self._runs._lock:
            checkpoint = self._kept.get(workflow_id)
            if checkpoint is None or checkpoint.due is None:
                return False
            checkpoint.due = min(checkpoint.due, time.monotonic() + due)
            return True

    def waiting(self) -> List[RunState]:
        """See `CheckpointStore.waiting`."""
        with self._runs._lock:
            roots = [
                name
                for name, checkpoint in self._kept.items()
                if checkpoint.refused is None and self._runs._status_of(name) in RESTING
            ]
            states = [self._runs.run(name) for name in roots]
        found = [state for state in states if state is not None]
        return sorted(found, key=lambda state: state.started_at or 0.0)

    # --- the store: with its lock -----------------------------------------------------------

    def root_of(self, workflow_id: str) -> str:
        """The root that a run is within, or its own id."""
        return self._roots.get(workflow_id, workflow_id)

    def inner_of(self, workflow_id: str) -> List[str]:
        """The runs within a root that have not ended."""
        checkpoint = self._kept.get(workflow_id)
        names = () if checkpoint is None else checkpoint.inner
        active = ("queued", "running", *RESTING)
        return [name for name in names if self._runs._status_of(name) in active]

    def rest(self, workflow_id: str, status: str) -> None:
        """A root has been left: so are the runs within it."""
        for name in self.inner_of(workflow_id):
            if self._runs._status_of(name) not in RESTING:
                self._runs._rest(name, status)
        checkpoint = self._kept.get(workflow_id)
        if checkpoint is not None and checkpoint.name is not None:
            checkpoint.call(time.monotonic())

    def end(self, workflow_id: str) -> None:
        """A run has ended: its records go, now or after their time."""
        root = self._roots.pop(workflow_id, None)
        if root is not None:
            outer = self._kept.get(root)
            if outer is not None:
                outer.inner.pop(workflow_id, None)
            return
        checkpoint = self._kept.get(workflow_id)
        if checkpoint is None:
            return
        for name in self.inner_of(workflow_id):
            self._runs._close_run(name)
        for name in checkpoint.inner:
            self._roots.pop(name, None)
        checkpoint.inner.clear()
        checkpoint.due = None
        if checkpoint.keep is None:
            del self._kept[workflow_id]
        else:
            checkpoint.gone_at = time.monotonic() + checkpoint.keep
            self._over[workflow_id] = None

    def _forget(self) -> None:
        """Let go of the records whose time is over."""
        now = time.monotonic()
        for name in list(self._over):
            if (self._kept[name].gone_at or 0.0) <= now:
                del self._kept[name], self._over[name]


def _keeps_none(workflow_id: str) -> LogError:
    return LogError(f"workflow {workflow_id!r} keeps no checkpoint, or has ended")
