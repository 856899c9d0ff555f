"""The writer: one thread that commits what was appended, many events at a time.

See WriterThread for appending, and for what signal handlers may call.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Callable, Optional

from agentstream.errors import LogError
from agentstream.events.shared_writer import LOOK_S, again
from agentstream.events.sqlite.commit import Action, Operation
from agentstream.events.sqlite.commit_loop import CommitLoop
from agentstream.events.sqlite.statements import Run

__all__ = ["Writer"]

logger = logging.getLogger("agentstream.events.sqlite")


class Writer(CommitLoop):
    """Takes events and operations from any thread; its loop commits them in order."""

    # --- from any thread, and from signal handlers ------------------------------------------

    def _gives_up(self, failure: LogError) -> bool:
        return not self._keep_going

    def _has_more_room(self) -> bool:
        """What is kept in memory until the disk is back may be more."""
        return self.failure is not None and len(self.pending) < self._max_queue * 10

    def _note_release(self, run: Run) -> None:
        if not run.ended:
            self.hand_overs.left(run.workflow_id, run.since + 1, run.last)

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
        with self.lock:
            target = self.appended()
            last = self._ordered[-1] if self._ordered else None
        self._wait(lambda: self.committed >= target and (last is None or last.done))

    def urge(self, seconds: float) -> None:
        """Give what was appended up to `seconds` to be committed."""
        with self.lock:
            target = self.appended()
            if self.committed < target and self.failure is None and not self._ended:
                self._hurry()
                self._wait_until(
                    lambda: self.committed >= target or self.failure is not None, seconds
                )

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
                raise again(self.failure)
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
            self.news.wait(min(left, LOOK_S))
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

    def put(self, action: Action, *, wait: bool) -> None:
        """Have `action` done behind the events appended so far, before those that follow.

        It is done with the next commit that succeeds, if one fails.

        Args:
            wait: until it has been.

        Raises:
            LogError: it said so, or it has not been done, so far.
        """
        with self.lock:
            if self._closing:
                raise LogError("the log is closed")
            if self.failure is not None and not self._keep_going:
                raise again(self.failure)
            if len(self._ordered) >= self._max_queue:
                raise LogError("too much waits for the disk: no more is taken", retryable=True)
            operation = Operation(action, self.appended())
            self._ordered.append(operation)
            if self._idle:
                self._idle = False
                self._wakeup.set()
            elif self._thread is None and not self._starting:
                self._start()
        if not wait:
            return
        try:
            self._wait(lambda: operation.done)
        except LogError:
            if not self._keep_going or self.failure is None:
                raise
        if operation.error is not None:
            raise operation.error

    def close(self, last: Action) -> None:
        """Commit what is pending, run `last`, end the thread.  Idempotent."""
        with self.lock:
            if not self._closing:
                self._last = last
                self._closing = True
            if self._thread is not None:
                self._wakeup.set()
            elif self.pending or self._operations or self._ordered or self._starting:
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
