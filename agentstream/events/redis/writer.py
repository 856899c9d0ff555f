"""The writer: one thread that commits what was appended, many events at a time.

See WriterThread for appending, and for what signal handlers may call.  While the server is
away events wait in the queue, and are sent when it is back.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from typing import Callable, Dict, List, Optional

from agentstream import threads
from agentstream.errors import LogError
from agentstream.events.model import Event
from agentstream.events.redis.commit import Committer
from agentstream.events.redis.run import Item, Operation, Run
from agentstream.events.shared_writer import LOOK_S, WriterThread, again

__all__ = ["Writer"]

logger = logging.getLogger("agentstream.events.redis")

_BATCH = 1000
_FIRST_RETRY_S, _LAST_RETRY_S = 0.02, 0.5


class Writer(WriterThread):
    """Takes events and operations from any thread, and commits them in order.

    Args:
        committer: sends them.
        linger: seconds that an event may wait for others to be committed with.
        max_queue: what may wait to be committed.
        timeout: seconds that whoever has to wait for a commit waits.

    Attributes:
        lock: guards all else.
        news: notified at each commit, and at each failure of one.
        pending: what is not known to be committed, oldest first.
        runs: those that this process writes.
        committed: how many items have been.
        failure: why nothing can be written at present, or None.
        on_commit: called by the thread after each commit.
    """

    runs: Dict[str, Run]

    def __init__(
        self, committer: Committer, *, linger: float, max_queue: int, timeout: float
    ) -> None:
        self.committer = committer
        self._linger = linger
        self._max_queue = max_queue
        self.timeout = self._patience = timeout
        self.on_commit: Callable[[], object] = lambda: None
        self._reset()

    def _reset(self) -> None:
        self._renew()
        self.runs = self.committer.runs
        self._close_by = threads.NEVER  # until when the rest may be tried again
        self._retry_s = _FIRST_RETRY_S

    # --- from any thread, and from signal handlers ------------------------------------------

    def put(self, operation: Operation, *, wait: bool) -> None:
        """Have something done behind the events appended so far, before those that follow.

        Raises:
            LogError: it could not be, or, with `wait`, not in time.
        """
        with self.lock:
            self._check(operation.run, terminal=False)
            if len(self.pending) >= self._max_queue:
                raise self._full()
            self.pending.append(operation)
            self._rouse()
        if wait:
            self._wait(lambda: operation.done)
            if operation.error is not None:
                raise operation.error

    def _gives_up(self, failure: LogError) -> bool:
        return not failure.retryable

    def _rouse(self) -> None:
        if self._idle:
            self._idle = False
            self._wakeup.set()
        elif self._thread is None and not self._starting:
            self._start()

    def events(self) -> List[Event]:
        """The events that wait to be committed."""
        with self.lock:
            return [item for item in list(self.pending) if not isinstance(item, Operation)]

    def settle(self, run: Run, offset: int) -> None:
        """Wait until an event is committed.

        Raises:
            LogError: it is not known to be.
        """
        self._wait(lambda: run.committed >= offset or run.refused is not None)
        if run.committed < offset:
            raise LogError(run.refused or "the event was not committed")

    def flush(self, seconds: Optional[float] = None) -> None:
        """Wait until all that was appended is committed, `seconds` or as long as others do.

        Raises:
            LogError: it is not known to be.
        """
        with self.lock:
            target = self.committed + len(self.pending)
        self._wait(lambda: self.committed >= target, seconds)

    def _wait(self, done: Callable[[], bool], seconds: Optional[float] = None) -> None:
        with self.lock:
            if done():
                return
            self._hurry()
            end = time.monotonic() + (self.timeout if seconds is None else seconds)
            while not done():
                left = end - time.monotonic()
                if left <= 0 or self._ended or self._is_hopeless():
                    break
                # A look now and then: a signal handler that waits as well, between a look
                # and the wait, takes the news in its turn.
                self.news.wait(min(left, LOOK_S))
            if done():
                return
            if self.failure is not None:
                raise again(self.failure)
            raise LogError(
                f"{self.committer.server.name} has not answered yet",
                retryable=True,
                outcome="unknown",
            )

    def _is_hopeless(self) -> bool:
        return self.failure is not None and self._gives_up(self.failure)

    # --- the thread -------------------------------------------------------------------------

    def _tear_down(self) -> None:
        self.committer.link.close()
        with self.lock:
            self._thread = None
            self._idle = False
            self._ended = self._closing
            self.news.notify_all()
            self._room.notify_all()

    def _commit_next(self) -> bool:
        """Wait for work and commit it; False once the log is closed."""
        self._await_work()
        with self.lock:
            self._urgent = False
            items = list(itertools.islice(self.pending, _BATCH))
            closing = self._closing
        if not items:
            return not closing
        try:
            with self.committing:
                count = self.committer.commit(items)
        except Exception as error:  # noqa: BLE001 - whatever it is, the log goes on
            self._fail(error)
            return time.monotonic() < self._close_by and not (closing and self._is_hopeless())
        self._succeed(items[:count])
        return True

    def _await_work(self) -> None:
        while True:
            with self.lock:
                pause = self._pause()
                self._idle = pause is None
            if pause == 0:
                break
            self._wakeup.wait(pause)
            if self.failure is not None:
                break
        if self._linger and not self._urgent and not self._closing:
            self._wakeup.wait(self._linger)

    def _pause(self) -> Optional[float]:
        """Seconds until there is something to do; None for as long as nobody asks."""
        if self.failure is not None:
            return self._retry_s
        if self._closing:
            return 0.0
        return 0.0 if self.pending else None

    def _succeed(self, items: List[Item]) -> None:
        with self.lock:
            if self.failure is not None:
                logger.warning("%s can be written again", self.committer.server.name)
                self.failure, self._retry_s = None, _FIRST_RETRY_S
            for item in items:
                self.pending.popleft()
                if isinstance(item, Operation):
                    item.done = True
                    continue
                run = self.runs.get(item[4])
                if run is not None and run.released and item[1] >= run.last:
                    self._forget(run)
            self.committed += len(items)
            self._room.notify_all()
            self.news.notify_all()
        try:
            self.on_commit()
        except Exception:
            logger.exception("after a commit")

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, LogError):
            logger.error("the log's writer failed", exc_info=error)
            kind = type(error).__name__
            error = LogError(f"{self.committer.server.name}: {kind}", retryable=True)
            self.committer.link.close()
        with self.lock:
            first = self.failure is None
            self.failure = error
            self._retry_s = _FIRST_RETRY_S if first else min(self._retry_s * 2, _LAST_RETRY_S)
            self._room.notify_all()
            self.news.notify_all()
        if first:
            logger.error("%s", error)

    # --- the end, and fork ------------------------------------------------------------------

    def close(self) -> None:
        """Commit what is pending, end the thread.  Idempotent."""
        with self.lock:
            if not self._closing:
                self._close_by = time.monotonic() + self.timeout
                self._closing = True
            thread = self._thread
            if thread is None and (self.pending or self._starting):
                self._start()
            elif thread is None:
                self._ended = True
            self._wakeup.set()
            if thread is not threading.current_thread():
                end = time.monotonic() + self.timeout + 1.0
                while not self._ended and time.monotonic() < end:
                    self.news.wait(LOOK_S)
            if self.pending:
                count, name = len(self.pending), self.committer.server.name
                logger.error("%d events of %s were not written", count, name)
        if thread is not None and self._ended and thread is not threading.current_thread():
            thread.join(1.0)

    def after_fork_in_child(self, owner: str) -> None:
        """Begin anew: what was pending, the parent writes."""
        closed = self._closing
        self.committer.begin_anew(owner)
        self._reset()
        self._closing = self._ended = closed
