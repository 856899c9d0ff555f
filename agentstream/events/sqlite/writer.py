"""The writer: one thread that commits what was appended, many events at a time.

Appending puts an event into a bounded queue and waits for no disk.  Events stay
in that queue until they are committed, so that readers find them meanwhile.
"""

from __future__ import annotations

import itertools
import logging
import sqlite3
import threading
import time
from collections import deque
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple, TypeVar

from agentstream import threads
from agentstream.errors import LogError
from agentstream.events.model import TERMINAL, Event
from agentstream.events.sqlite import statements
from agentstream.events.sqlite.files import LogFile
from agentstream.events.sqlite.statements import Run

__all__ = ["Writer"]

logger = logging.getLogger("agentstream.events.sqlite")

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], Any]

_BATCH = 2000  # events a commit
_LINGER_S = 0.005  # how long an event may wait for others to be committed with
_SIBLINGS_S = 0.0005  # ... where appends wait for the disk, and some came together last time
_MOST_SIBLINGS = 64
_RETRY_S = 0.5
_HOUSEKEEPING_S = 1.0


class Writer:
    """Commits events and operations in order; starts its thread when there is work."""

    def __init__(
        self,
        file: LogFile,
        *,
        linger: bool,
        max_queue: int,
        busy_timeout: float,
        keep_going: bool,
        housekeeping: Operation,
    ) -> None:
        self._file = file
        self._linger = _LINGER_S if linger else 0.0
        self._max_queue = max_queue
        self._patience = busy_timeout
        self._keep_going = keep_going
        self._housekeeping = housekeeping
        self.on_failure: Callable[[LogError], object] = lambda _: None
        self.connection: Optional[sqlite3.Connection] = None
        self._reset()

    def _reset(self) -> None:
        self.committing = threading.RLock()  # held while the database is written
        self.lock = threading.RLock()  # guards what follows
        self._work = threading.Condition(self.lock)
        self._room = threading.Condition(self.lock)
        #: Notified at each commit.
        self.news = threading.Condition(self.lock)
        self.pending: Deque[Event] = deque()
        self.runs: Dict[str, Run] = {}  # those that this process writes
        self._operations: List[Tuple[Operation, Future[Any]]] = []
        self._thread: Optional[threading.Thread] = None
        self._idle = False
        self._urgent = False
        self._siblings = 0  # so many appends are waited for
        self._closing = False
        self._last: Optional[Operation] = None  # what is done when all is written
        self._committed = 0
        self.position = 0  # of the newest event committed here
        self.failure: Optional[LogError] = None
        self._retry_at = 0.0
        self._tidy_at = 0.0

    # --- from any thread --------------------------------------------------------------------

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
                self._work.notify()
            elif self._siblings:
                if len(self.pending) >= self._siblings:
                    self._work.notify()
            elif self._thread is None:
                self._start()

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
            self._urgent = True
            self._work.notify()
            self._room.wait(left)
            self._check(run, event)

    def last_of(self, run: Run) -> int:
        """The offset appended last, though an interruption left it unsaid."""
        with self.lock:
            newest = self.pending[-1] if self.pending else None
            if newest is not None and newest[4] == run.workflow_id and newest[1] > run.last:
                run.last = newest[1]
                run.ended = newest[3] in TERMINAL
            return run.last

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
        with self.lock:
            target = self._committed + len(self.pending)
        self._wait(lambda: self._committed >= target)

    def urge(self, seconds: float) -> None:
        """Give what was appended so long to be committed."""
        with self.lock:
            target = self._committed + len(self.pending)
            if self._committed < target and self.failure is None:
                self._urgent = True
                self._work.notify()
                self.news.wait_for(
                    lambda: self._committed >= target or self.failure is not None, seconds
                )

    def _wait(self, done: Callable[[], bool], *, urgent: bool = True) -> None:
        with self.lock:
            if done():
                return
            if urgent and not self._urgent:
                self._urgent = True
                self._work.notify()
            # A commit may wait that long for another process, and then takes its time.
            end = time.monotonic() + self._patience * 2 + 5.0
            while not done():
                left = end - time.monotonic()
                if self.failure is not None:
                    raise _again(self.failure)
                if left <= 0:
                    raise LogError(f"the disk has not answered for {self._patience * 2 + 5:g} s")
                self.news.wait(left)

    def do(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Have `operation` run within the next commit; returns what it returns.

        Raises:
            LogError: it said so, or there was no commit.
        """
        future = self.do_soon(operation)
        try:
            return future.result(self._patience * 2 + 5.0)  # type: ignore[no-any-return]
        except FutureTimeout:
            raise LogError("the disk has not answered") from None

    def do_soon(self, operation: Operation) -> Future[Any]:
        """As `do`, without waiting."""
        future: Future[Any] = Future()
        with self.lock:
            if self._closing:
                raise LogError("the log is closed")
            self._operations.append((operation, future))
            self._urgent = True
            if self._thread is None:
                self._start()
            self._idle = False
            self._work.notify()
        return future

    def close(self, last: Operation) -> None:
        """Commit what is pending, run `last`, end the thread.  Idempotent."""
        with self.lock:
            if self._closing:
                return
            self._last = last
            self._closing = True
            self._work.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(self._patience * 2 + 5.0)
        with self.lock:
            if self.pending:
                logger.error(
                    "%d events of the log %s were not written", len(self.pending), self._file.path
                )
            self.news.notify_all()
            self._room.notify_all()

    def _start(self) -> None:
        try:
            self._thread = threads.start_thread("log", self._main)
        except RuntimeError:
            raise LogError("no thread could be started for the log") from None

    # --- the thread -------------------------------------------------------------------------

    def _main(self) -> None:
        batch: List[Event] = []
        while True:
            with self.lock:
                self._sleep()
                if not self._urgent and not self._closing:
                    self._gather(len(batch))
                self._urgent = False
                batch = list(itertools.islice(self.pending, _BATCH))
                operations, self._operations = self._operations, []
                closing = self._closing and len(self.pending) <= _BATCH
                if closing and self._last is not None:
                    operations.append((self._last, Future()))
            try:
                with self.committing:
                    answers, position = self._commit(batch, operations)
            except Exception as error:  # noqa: BLE001 - whatever it is, the log goes on
                self._fail(error, operations)
                if self._closing:
                    break
            else:
                self._succeed(batch, position, answers)
                if closing:
                    break

    def _gather(self, last: int) -> None:
        """Wait a moment for events to be committed with those there are."""
        if self._linger:
            self._work.wait(self._linger)
        elif 1 < last <= _MOST_SIBLINGS and len(self.pending) < last:
            self._siblings = last
            self._work.wait(_SIBLINGS_S)
            self._siblings = 0

    def _sleep(self) -> None:
        while not self._closing:
            now = time.monotonic()
            if self.failure is not None:
                if now >= self._retry_at or self._operations:
                    return
                self._work.wait(self._retry_at - now)
            elif self.pending or self._operations or (self._tidy_at and now >= self._tidy_at):
                return
            else:
                self._idle = True
                self._work.wait(None if not self._tidy_at else self._tidy_at - now)
        self._idle = False

    def _commit(
        self, batch: List[Event], operations: List[Tuple[Operation, Future[Any]]]
    ) -> Tuple[List[Tuple[Future[Any], Any]], int]:
        self._file.check()
        if self.connection is None:
            self.connection = self._file.connect()
        connection = self.connection
        answers: List[Tuple[Future[Any], Any]] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            position = statements.write_events(connection, self.runs, batch)
            for operation, future in operations:
                try:
                    answers.append((future, operation(connection)))
                except LogError as error:
                    answers.append((future, error))
            self._tidy(connection, busy=bool(batch))
            self._file.check()  # what is written into a file that has gone is not kept
            connection.execute("COMMIT")
        except BaseException as error:
            self._roll_back()
            if isinstance(error, sqlite3.Error):
                raise self._file.explain(error) from error
            raise
        self._file.mark(position)
        return answers, position

    def _roll_back(self) -> None:
        try:
            if self.connection is not None and self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        except sqlite3.Error:
            logger.debug("rolling back failed", exc_info=True)

    def _tidy(self, connection: sqlite3.Connection, *, busy: bool) -> None:
        now = time.monotonic()
        if now >= self._tidy_at:
            more = self._housekeeping(connection)
            self._tidy_at = now + _HOUSEKEEPING_S * (1 if more or busy else 10)

    def _succeed(
        self, batch: List[Event], position: int, answers: List[Tuple[Future[Any], Any]]
    ) -> None:
        with self.lock:
            if self.failure is not None:
                logger.warning("the log %s can be written again", self._file.path)
                self.failure = None
            for event in batch:
                self.pending.popleft()
                run = self.runs.get(event[4])
                if run is not None and run.refused is None:
                    run.committed = max(run.committed, event[1])
                    if run.ended and run.committed >= run.last:
                        del self.runs[event[4]]
            self._committed += len(batch)
            self.position = position
            self._room.notify_all()
            self.news.notify_all()
        for future, answer in answers:
            if isinstance(answer, LogError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _fail(self, error: Exception, operations: List[Tuple[Operation, Future[Any]]]) -> None:
        if not isinstance(error, LogError):
            logger.error("the log's writer failed", exc_info=error)
            error = LogError(f"the log {self._file.path} failed: {type(error).__name__}: {error}")
        with self.lock:
            first = self.failure is None
            self.failure = error
            self._retry_at = time.monotonic() + _RETRY_S
            self._room.notify_all()
            self.news.notify_all()
        if first:
            logger.error("%s", error)
            self.on_failure(error)
        for _, future in operations:
            future.set_exception(_again(error))

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
        self._closing = closed


def _again(failure: LogError) -> LogError:
    """The failure for one more caller: one exception is not raised in two threads."""
    error = LogError(str(failure), retryable=failure.retryable)
    error.__cause__ = failure
    return error
