"""The thread that commits what was appended, many events at a time; see writer.py."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from typing import Callable, Deque, Dict, List, Optional

from agentstream.errors import LogError
from agentstream.events.model import Event
from agentstream.events.shared_writer import WriterThread, again
from agentstream.events.sqlite.commit import Action, Committer, Operation
from agentstream.events.sqlite.handovers import HandOvers
from agentstream.events.sqlite.statements import Run

__all__ = ["CommitLoop"]

logger = logging.getLogger("agentstream.events.sqlite")

_BATCH = 2000  # events a commit
_LINGER_S = 0.005  # how long an event may wait for others to be committed with
_SIBLINGS_S = 0.0005  # ... where appends wait for the disk, and some came together last time
_MOST_SIBLINGS = 64
_RETRY_S = 0.5
_HOUSEKEEPING_S = 1.0


class CommitLoop(WriterThread):
    """Commits events and operations in order; starts its thread when there is work.

    Args:
        committer: writes them.
        linger: wait a moment for more events to commit together.
        max_queue: events that may wait.
        busy_timeout: seconds a commit may wait for another process.
        keep_going: keep taking events while the disk takes none.
        slack: events after which there is housekeeping to do; None for now and then only.

    Attributes:
        bound: seconds within which a commit has been done, or failed.
        committing: held while the database is written.
        lock: guards all else.
        news: notified at each commit, and at each failure of one.
        pending: events that are not known to be committed, oldest first.
        runs: those that this process writes.
        hand_overs: those that it has taken, and left.
        committed: how many events have been.
        failure: why nothing can be written at present, or None.
    """

    def __init__(
        self,
        committer: Committer,
        *,
        linger: bool,
        max_queue: int,
        busy_timeout: float,
        keep_going: bool,
        slack: Optional[int],
    ) -> None:
        self.committer = committer
        self._linger = _LINGER_S if linger else 0.0
        self._max_queue = max_queue
        self._patience = busy_timeout
        # A commit may wait that long for another process, and then takes its time.
        self.bound = busy_timeout * 2 + 5.0
        self._keep_going = keep_going
        self._slack = slack
        self.on_failure: Callable[[LogError], object] = lambda _: None
        self.on_commit: Callable[[], object] = lambda: None
        self._reset()

    def _reset(self) -> None:
        self._renew()
        self.runs: Dict[str, Run] = {}
        self.hand_overs = HandOvers()
        self._operations: List[Operation] = []
        self._ordered: Deque[Operation] = deque()  # those with a place among the events
        self._batch = 0  # events in the last commit
        self._last: Optional[Action] = None  # what is done when all is written
        self._retry_at = 0.0
        self._tidy_at = 0.0  # when there is housekeeping to do
        self._untidied = 0  # events written since the last

    # --- the thread -------------------------------------------------------------------------

    def _tear_down(self) -> None:
        with self.lock:
            self._thread = None
            self._idle = False
            self._ended = self._closing
            for operation in (*self._operations, *self._ordered):
                operation.error, operation.done = LogError("the log is closed"), True
            self._operations = []
            self._ordered.clear()
            self.news.notify_all()
            self._room.notify_all()

    def _commit_next(self) -> bool:
        """Wait for work and commit it; False once the log is closed."""
        self._await_work()
        with self.lock:
            self._urgent = False
            batch = list(itertools.islice(self.pending, _BATCH))
            ordered = self._due(self.committed + len(batch))
            operations, self._operations = self._operations, []
            last_try = self._closing
            closing = last_try and len(self.pending) <= _BATCH
            if closing and self._last is not None:
                operations.append(Operation(self._last))
        self._batch = len(batch)
        tidy = self._untidied if self._is_untidy(len(batch)) else None
        try:
            with self.committing:
                more = self.committer.commit(self.runs, batch, ordered, operations, tidy)
        except Exception as error:  # noqa: BLE001 - whatever it is, the log goes on
            self._fail(error, operations)
            return not last_try  # one that was under way as the close came is none
        if tidy is not None:
            self._untidied = 0
            soon = more or batch
            self._tidy_at = time.monotonic() + _HOUSEKEEPING_S * (1 if soon else 10)
        self._succeed(batch, operations, len(ordered))
        return not closing

    def _due(self, count: int) -> List[Operation]:
        """The operations that have their place among the first `count` events."""
        return list(itertools.takewhile(lambda each: each.after <= count, self._ordered))

    def _await_work(self) -> None:
        while True:
            with self.lock:
                pause = self._pause()
                self._idle = pause != 0 and self.failure is None
            if pause == 0:
                break
            self._wakeup.wait(pause)
        if self._linger:
            if not self._urgent and not self._closing:
                self._wakeup.wait(self._linger)
        else:
            self._gather()

    def _pause(self) -> Optional[float]:
        """Seconds until there is something to do; None for as long as nobody asks."""
        now = time.monotonic()
        if self._closing or self._operations:
            return 0.0
        if self.failure is not None:
            return max(0.0, self._retry_at - now)
        if self.pending or self._ordered:
            return 0.0
        return max(0.0, self._tidy_at - now) if self._tidy_at else None

    def _gather(self) -> None:
        """Wait a moment for as many events as were committed together last time."""
        with self.lock:
            together = 1 < self._batch <= _MOST_SIBLINGS and len(self.pending) < self._batch
            if not together or self._urgent or self._closing:
                return
            self._rush = self._batch  # so many appends are waited for
        self._wakeup.wait(_SIBLINGS_S)
        self._rush = 0

    def _is_untidy(self, written: int) -> bool:
        self._untidied += written
        due = time.monotonic() >= self._tidy_at
        return due or (self._slack is not None and self._untidied >= self._slack)

    def _succeed(self, batch: List[Event], operations: List[Operation], ordered: int) -> None:
        with self.lock:
            if self.failure is not None:
                logger.warning("the log %s can be written again", self.committer.path)
                self.failure = None
            for event in batch:
                self.pending.popleft()
                run = self.runs.get(event[4])
                if run is None:
                    continue
                if run.refused is None:
                    run.committed = max(run.committed, event[1])
                if run.released and event[1] >= run.last:
                    self._let_go(run)
            self.committed += len(batch)
            self.committer.in_flight = None
            for operation in operations:
                operation.done = True
            for _ in range(ordered):
                self._ordered.popleft().done = True
            self._room.notify_all()
            self.news.notify_all()
        self.on_commit()

    def _let_go(self, run: Run) -> None:
        self._forget(run)
        if not run.ended:
            self.hand_overs.placed(run.workflow_id, self.committer.position)

    def _fail(self, error: Exception, operations: List[Operation]) -> None:
        if not isinstance(error, LogError):
            logger.error("the log's writer failed", exc_info=error)
            error = LogError(
                f"the log {self.committer.path} failed: {type(error).__name__}: {error}"
            )
        with self.lock:
            first = self.failure is None
            self.failure = error
            self._retry_at = time.monotonic() + _RETRY_S
            for operation in operations:
                operation.error, operation.done = again(error), True
            self._room.notify_all()
            self.news.notify_all()
        if first:
            logger.error("%s", error)
            self.on_failure(error)

    # --- fork -------------------------------------------------------------------------------

    def after_fork_in_child(self) -> None:
        """Begin anew: what was pending, the parent writes."""
        closed = self._closing
        self._reset()
        self._closing = self._ended = closed
