"""The writer: one thread that commits what was appended, many events at a time.

Appending puts an event into a bounded queue and waits for no disk.  Events stay
in that queue until they are committed, so that readers find them meanwhile.

A signal handler may call everything here, whatever it interrupts: the lock is
re-entrant, who waits lets go of it wholly, and the thread is woken without one.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Callable, Optional

from agentstream.errors import LogError
from agentstream.events.model import RELEASING, TERMINAL, Event
from agentstream.events.shared_writer import again
from agentstream.events.sqlite.commit import Action, Operation
from agentstream.events.sqlite.commit_loop import CommitLoop
from agentstream.events.sqlite.statements import Run

__all__ = ["Writer"]

logger = logging.getLogger("agentstream.events.sqlite")

_LOOK_S = 0.05


class Writer(CommitLoop):
    """Takes events and operations from any thread; its loop commits them in order."""

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
            if event[3] in RELEASING:
                run.released, run.ended = True, event[3] in TERMINAL
                if not run.ended:
                    self.hand_overs.left(run.workflow_id, run.since + 1, offset)
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
            run.last, run.ended, run.released = event[1] - 1, False, False
            raise LogError("the log is closed")

    def _check(self, run: Run, event: Event) -> None:
        if self._closing:
            raise LogError("the log is closed")
        if run.refused is not None:
            raise LogError(run.refused)
        # A run that failed because of the log may still say so, should the log recover.
        if self.failure is not None and not self._keep_going and event[3] not in TERMINAL:
            raise again(self.failure)

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
                run.released, run.ended = newest[3] in RELEASING, newest[3] in TERMINAL
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
