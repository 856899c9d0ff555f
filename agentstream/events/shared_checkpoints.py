"""SharedCheckpoints: what checkpoint stores of logs that processes share have in common."""

from __future__ import annotations

import contextlib
import threading
from abc import abstractmethod
from typing import Any, Dict, Iterator, Mapping, Optional, Sequence, Set

from agentstream import checks
from agentstream.errors import Busy, LogError
from agentstream.events.checkpoints import CheckpointStore, Entry, check_records
from agentstream.events.entry import check_id, check_reason

__all__ = ["SharedCheckpoints", "busy"]


class SharedCheckpoints(CheckpointStore):
    """Checks what is asked for, and by whom; each kind of log does it within its commits."""

    _writer: Any  # the log's WriterThread

    def reset(self) -> None:
        """Begin anew, in a forked child."""
        self._lock = threading.RLock()
        self._taking: Set[str] = set()  # the runs that a thread is about to take

    # --- the run's own process --------------------------------------------------------------

    def begin(
        self,
        workflow_id: str,
        *,
        root: Optional[str] = None,
        recover: int = 3,
        keep: Optional[float] = None,
    ) -> None:
        """See `CheckpointStore.begin`; it is committed with what follows."""
        check_id("workflow_id", workflow_id)
        checks.whole("recover", recover)
        keep = checks.seconds("keep", keep, optional=True)
        run = self._run(workflow_id)
        self._begin(run, None if root is None else self._run(root), recover, keep)

    def write(
        self,
        workflow_id: str,
        records: Mapping[str, Optional[bytes]],
        *,
        discard: Sequence[str] = (),
        wait: bool = True,
    ) -> None:
        """See `CheckpointStore.write`.

        A store that goes on in memory while its disk takes nothing (`on_error="memory"`)
        does so with records as well, and waits no longer.
        """
        check_records(records, discard)
        kept = {key: None if value is None else bytes(value) for key, value in records.items()}
        self._write(self._run(workflow_id), kept, discard, wait)

    def refuse(self, workflow_id: str, why: str) -> None:
        """See `CheckpointStore.refuse`; waits for a commit."""
        check_reason(why)
        self._refuse(self._run(workflow_id), why)

    def _run(self, workflow_id: str) -> Any:
        """A run that this process writes.

        Raises:
            LogError: it is none, or its checkpoint is not whole.
        """
        self._check_writable()
        run = self._writer.runs.get(workflow_id)
        if run is None or run.released:
            raise LogError(f"workflow {workflow_id!r} is not under way here")
        if run.refused is not None:
            raise LogError(run.refused)
        run.check_whole()
        return run

    # --- taking a run -----------------------------------------------------------------------

    def resume(self, workflow_id: str) -> Entry:
        """See `CheckpointStore.resume`; waits for a commit."""
        check_id("workflow_id", workflow_id)
        self._check_writable()
        with self._alone(workflow_id):
            if workflow_id in self._writer.runs:
                self._writer.flush()  # it may have been left, and that not committed
            return self._take_over(workflow_id)

    @contextlib.contextmanager
    def _alone(self, workflow_id: str) -> Iterator[None]:
        """Take a run in one thread of this process at a time.

        Raises:
            Busy: another one does.
        """
        with self._lock:
            if workflow_id in self._taking:
                raise busy(workflow_id, "here")
            self._taking.add(workflow_id)
        try:
            yield
        finally:
            with self._lock:
                self._taking.discard(workflow_id)

    # --- what each kind of log does ---------------------------------------------------------

    def _check_writable(self) -> None:
        """Raise LogError for a log that is only read."""

    @abstractmethod
    def _begin(self, run: Any, outer: Optional[Any], recover: int, keep: Optional[float]) -> None:
        """Have a run be one that can be resumed; with `outer`, as a part of that one."""

    @abstractmethod
    def _write(
        self, run: Any, records: Dict[str, Optional[bytes]], discard: Sequence[str], wait: bool
    ) -> None:
        """Have records written."""

    @abstractmethod
    def _refuse(self, run: Any, why: str) -> None:
        """Have nobody resume a run."""

    @abstractmethod
    def _take_over(self, workflow_id: str) -> Entry:
        """Make a run that nobody has this process's."""


def busy(workflow_id: str, where: str) -> Busy:
    """The error of whoever would take a run that is under way."""
    return Busy(f"workflow {workflow_id!r} is under way {where}")
