"""The writer: one thread that commits what was appended, many events at a time.

Appending puts an event into a bounded queue and waits for no disk.  Events stay
in that queue until they are committed, so that readers find them meanwhile.

A signal handler may call everything here, whatever it interrupts: the lock is
re-entrant, who waits lets go of it wholly, and the thread is woken without one.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional

from agentstream import threads
from agentstream.errors import LogError
from agentstream.events.model import TERMINAL, Event
from agentstream.events.sqlite.commit import Action, Committer, Operation
from agentstream.events.sqlite.statements import Run
from agentstream.threads.wakeup import Wakeup

__all__ = ["Writer"]

logger = logging.getLogger("agentstream.events.sqlite")

_BATCH = 2000  # events a commit
_LINGER_S = 0.005  # how long an event may wait for others to be committed with
_SIBLINGS_S = 0.0005  # ... where appends wait for the disk, and some came together last time
_MOST_SIBLINGS = 64
_LOOK_S = 0.05
_RETRY_S = 0.5
_HOUSEKEEPING_S = 1.0


class Writer:
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
        self.committing = threading.RLock()
        self.lock = threading.RLock()
        self.news = threading.Condition(self.lock)
        self._room = threading.Condition(self.lock)
        self._wakeup = Wakeup()
        self.pending: Deque[Event] = deque()
        self.runs: Dict[str, Run] = {}
        self._operations: List[Operation] = []
        self._thread: Optional[threading.Thread] = None
        self._starting = False
        self._idle = False
        self._urgent = False
        self._batch = 0  # events in the last commit
        self._siblings = 0  # so many appends are waited for
        self._closing = False
        self._ended = False
        self._last: Optional[Action] = None  # what is done when all is written
        self.committed = 0
        self.failure: Optional[LogError] = None
        self._retry_at = 0.0
        self._tidy_at = 0.0  # when there is housekeeping to do
        self._untidied = 0  # events written since the last

    # --- from any thread, and from signal handlers ------------------------------------------

    def append(self, run: Run, event: Event) -> None:
        """Queue an event; one that is there already is not queued again.

        Raises:
            LogError: the log takes none.
        """
        with self.lock:
            offset = event[1]
            if offset <= run.last:
                return
            if offset != run.last + 1:
                raise LogError(f"event {offset} of {run.workflow_id!r} came after {run.last}")
            if self._closing or run.refused is not None or self.failure is not None:
                self._check(run, event)
            if len(self.pending) >= self._max_queue:
                self._wait_for_room(run, event)
            self.pending.append(event)
            run.last = offset
            if event[3] in TERMINAL:
                run.ended = True
            if self._idle:
                self._idle = False
                self._wakeup.set()
            elif self._siblings:
                if len(self.pending) >= self._siblings:
                    self._wakeup.set()
            elif self._thread is None:
                self._begin_with(run, event)

    def _begin_with(self, run: Run, event: Event) -> None:
        if not self._ended:
            if not self._starting:
                self._start()
            return
        # A signal handler closed the log between the check and here.
        if run.committed < event[1]:  # ... and nobody will write it
            self.pending.remove(event)
            run.last, run.ended = event[1] - 1, False
            raise LogError("the log is closed")

    def _check(self, run: Run, event: Event) -> None:
        if self._closing:
            raise LogError("the log is closed")
        if run.refused is not None:
            raise LogError(run.refused)
        # A run that failed because of the log may still say so, should the log recover.
        if self.failure is not None and not self._keep_going and event[3] not in TERMINAL:
            raise _again(self.failure)

    def _wait_for_room(self, run: Run, event: Event) -> None:
        most = self._max_queue * 10
        end = time.monotonic() + self._patience
        while len(self.pending) >= self._max_queue:
            if self.failure is not None and len(self.pending) < most:
                return  # kept in memory until the disk is back
            left = end - time.monotonic()
            if left <= 0 or self.failure is not None:
                raise LogError(
                    f"{len(self.pending)} events wait for the disk: no more are taken",
                    retryable=True,
                )
            self._hurry()
            self._room.wait(min(left, _LOOK_S))
            self._check(run, event)

    def last_of(self, run: Run) -> int:
        """The offset appended last, though an interruption left it unsaid."""
        with self.lock:
            newest = self.pending[-1] if self.pending else None
            if newest is not None and newest[4] == run.workflow_id and newest[1] > run.last:
                run.last = newest[1]
                run.ended = newest[3] in TERMINAL
            return run.last

    def appended(self) -> int:
        """How many events have been appended, committed or not."""
        with self.lock:
            return self.committed + len(self.pending)

    def count_beyond(self, last: int, appended: int, committed: int) -> Optional[int]:
        """How many of the first `appended` events are not among those up to position `last`.

        None if that cannot be told: since `committed` was read, and `last` after it,
        more have been committed.
        """
        with self.lock:
            if self.committed != committed:
                return None
            in_flight = self.committer.in_flight
            if in_flight is not None and last >= in_flight[0]:
                committed += in_flight[1]
            return max(0, appended - committed)

    def settle(self, run: Run, offset: int) -> None:
        """Wait until an event is committed.

        Raises:
            LogError: it could not be, so far.
        """
        self._wait(lambda: run.committed >= offset or run.refused is not None, urgent=False)
        if run.committed < offset:
            raise LogError(run.refused or "the event was not committed")

    def flush(self) -> None:
        """Wait until all that was appended is committed.

        Raises:
            LogError: it could not be, so far.
        """
        target = self.appended()
        self._wait(lambda: self.committed >= target)

    def urge(self, seconds: float) -> None:
        """Give what was appended up to `seconds` to be committed."""
        with self.lock:
            target = self.appended()
            if self.committed < target and self.failure is None and not self._ended:
                self._hurry()
                self._wait_until(
                    lambda: self.committed >= target or self.failure is not None, seconds
                )

    def _hurry(self) -> None:
        """Have what waits committed at once."""
        if self._thread is None and not self._ended:
            self._start()
        self._urgent = True
        self._wakeup.set()

    def _wait(self, done: Callable[[], bool], *, urgent: bool = True) -> None:
        with self.lock:
            if done():
                return
            if urgent:
                self._hurry()
            self._wait_until(lambda: done() or self.failure is not None or self._ended, self.bound)
            if done():
                return
            if self.failure is not None:
                raise _again(self.failure)
            raise LogError(f"the disk has not answered for {self.bound:g} s")

    def _wait_until(self, done: Callable[[], bool], seconds: float) -> bool:
        """Wait for what a commit brings, up to `seconds`; True if it came.

        A look now and then: a signal handler that waits as well, between a look and
        the wait, takes the news in its turn.
        """
        end = time.monotonic() + seconds
        while not done():
            left = end - time.monotonic()
            if left <= 0:
                return False
            self.news.wait(min(left, _LOOK_S))
        return True

    def do(self, action: Action) -> Any:
        """Have `action` run within the next commit; returns what it returns.

        Raises:
            LogError: it said so, or there was no commit.
        """
        operation = self.do_soon(action)
        with self.lock:
            if not self._wait_until(lambda: operation.done, self.bound):
                raise LogError("the disk has not answered")
        if operation.error is not None:
            raise operation.error
        return operation.result

    def do_soon(self, action: Action) -> Operation:
        """As `do`, without waiting."""
        operation = Operation(action)
        with self.lock:
            if self._closing:
                raise LogError("the log is closed")
            self._operations.append(operation)
            self._hurry()
            if self._ended and not operation.done:  # by a signal handler, since the check
                raise LogError("the log is closed")
        return operation

    def close(self, last: Action) -> None:
        """Commit what is pending, run `last`, end the thread.  Idempotent."""
        with self.lock:
            if not self._closing:
                self._last = last
                self._closing = True
            if self._thread is not None:
                self._wakeup.set()
            elif self.pending or self._operations or self._starting:
                self._start()
            else:
                self._ended = True
            thread = self._thread
            if thread is not threading.current_thread():
                self._wait_until(lambda: self._ended, self.bound)
            if self.pending:
                logger.error(
                    "%d events of the log %s were not written",
                    len(self.pending),
                    self.committer.path,
                )
        if thread is not None and self._ended and thread is not threading.current_thread():
            thread.join(1.0)

    def _start(self) -> None:
        # A second one is no harm: it ends when it finds the first.
        self._starting = True
        try:
            threads.start_thread("log", self._main)
        except RuntimeError:
            self._starting = False
            raise LogError("no thread could be started for the log") from None

    # --- the thread -------------------------------------------------------------------------

    def _main(self) -> None:
        if not self._set_up():
            return
        try:
            while self._commit_next():
                pass
        finally:
            self._tear_down()

    def _set_up(self) -> bool:
        with self.lock:
            if self._thread is not None or self._ended:
                return False
            self._thread, self._starting = threading.current_thread(), False
            return True

    def _tear_down(self) -> None:
        with self.lock:
            self._thread = None
            self._idle = False
            self._ended = self._closing
            for operation in self._operations:
                operation.error, operation.done = LogError("the log is closed"), True
            self._operations = []
            self.news.notify_all()
            self._room.notify_all()

    def _commit_next(self) -> bool:
        """Wait for work and commit it; False once the log is closed."""
        self._await_work()
        with self.lock:
            self._urgent = False
            batch = list(itertools.islice(self.pending, _BATCH))
            operations, self._operations = self._operations, []
            last_try = self._closing
            closing = last_try and len(self.pending) <= _BATCH
            if closing and self._last is not None:
                operations.append(Operation(self._last))
        self._batch = len(batch)
        tidy = self._untidied if self._is_untidy(len(batch)) else None
        try:
            with self.committing:
                more = self.committer.commit(self.runs, batch, operations, tidy)
        except Exception as error:  # noqa: BLE001 - whatever it is, the log goes on
            self._fail(error, operations)
            return not last_try  # one that was under way as the close came is none
        if tidy is not None:
            self._untidied = 0
            soon = more or batch
            self._tidy_at = time.monotonic() + _HOUSEKEEPING_S * (1 if soon else 10)
        self._succeed(batch, operations)
        return not closing

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
        if self.pending:
            return 0.0
        return max(0.0, self._tidy_at - now) if self._tidy_at else None

    def _gather(self) -> None:
        """Wait a moment for as many events as were committed together last time."""
        with self.lock:
            together = 1 < self._batch <= _MOST_SIBLINGS and len(self.pending) < self._batch
            if not together or self._urgent or self._closing:
                return
            self._siblings = self._batch
        self._wakeup.wait(_SIBLINGS_S)
        self._siblings = 0

    def _is_untidy(self, written: int) -> bool:
        self._untidied += written
        due = time.monotonic() >= self._tidy_at
        return due or (self._slack is not None and self._untidied >= self._slack)

    def _succeed(self, batch: List[Event], operations: List[Operation]) -> None:
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
                if run.ended and event[1] >= run.last:
                    del self.runs[event[4]]
            self.committed += len(batch)
            self.committer.in_flight = None
            for operation in operations:
                operation.done = True
            self._room.notify_all()
            self.news.notify_all()
        self.on_commit()

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
                operation.error, operation.done = _again(error), True
            self._room.notify_all()
            self.news.notify_all()
        if first:
            logger.error("%s", error)
            self.on_failure(error)

    # --- fork -------------------------------------------------------------------------------

    def before_fork(self) -> None:
        self.committing.acquire()
        self.lock.acquire()

    def after_fork_in_parent(self) -> None:
        self.lock.release()
        self.committing.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: what was pending, the parent writes."""
        closed = self._closing
        self._reset()
        self._closing = self._ended = closed


def _again(failure: LogError) -> LogError:
    """The failure for one more caller: one exception is not raised in two threads."""
    error = LogError(str(failure), retryable=failure.retryable)
    error.__cause__ = failure
    return error
