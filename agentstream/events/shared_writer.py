"""WriterThread: the thread in which a shared log is written; begun when there is work.

A signal handler may call all that is not the thread's own, whatever it interrupts: the lock is
re-entrant, who waits lets go of it wholly, and the thread is woken without one.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Optional

from agentstream import threads
from agentstream.errors import LogError
from agentstream.threads.wakeup import Wakeup

__all__ = ["WriterThread", "again"]


class WriterThread(ABC):
    """The state of the thread, and how it is begun, hurried and held still for a fork.

    Attributes:
        committing: held while the log is written.
        lock: guards all else.
        news: notified at each commit, and at each failure of one.
        committed: how much has been.
        failure: why nothing can be written at present, or None.
    """

    def _renew(self) -> None:
        """Begin anew: nothing is pending, and there is no thread."""
        self.committing = threading.RLock()
        self.lock = threading.RLock()
        self.news = threading.Condition(self.lock)
        self._room = threading.Condition(self.lock)
        self._wakeup = Wakeup()
        self._thread: Optional[threading.Thread] = None
        self._starting = False
        self._idle = False
        self._urgent = False
        self._closing = False
        self._ended = False
        self.committed = 0
        self.failure: Optional[LogError] = None

    def _hurry(self) -> None:
        """Have what waits committed at once."""
        if self._thread is None and not self._ended:
            self._start()
        self._urgent = True
        self._wakeup.set()

    def _start(self) -> None:
        # A second one is no harm: it ends when it finds the first.
        self._starting = True
        try:
            threads.start_thread("log", self._main)
        except RuntimeError:
            self._starting = False
            raise LogError("no thread could be started for the log") from None

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

    @abstractmethod
    def _commit_next(self) -> bool:
        """Wait for work and commit it; False once the log is closed."""

    @abstractmethod
    def _tear_down(self) -> None:
        """The thread ends."""

    def before_fork(self) -> None:
        """Hold the log still: no commit is under way, and nobody appends."""
        self.committing.acquire()
        self.lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Let it go again."""
        self.lock.release()
        self.committing.release()


def again(failure: LogError) -> LogError:
    """The failure for one more caller: one exception is not raised in two threads."""
    error = LogError(str(failure), retryable=failure.retryable, outcome=failure.outcome)
    error.__cause__ = failure
    return error
