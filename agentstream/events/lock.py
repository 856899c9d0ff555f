"""StreamLock: a lock that a signal handler can meet held by its own thread.

A handler runs between two lines of its thread.  Where that thread is inside the
lock, the handler may not wait for anybody who needs it, nor change what the
thread has half read: it leaves such things to be done (`later`), and the thread
does them as it lets go.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Callable, Deque

from agentstream.errors import LogError

__all__ = ["StreamLock"]

logger = logging.getLogger("agentstream.events")


class StreamLock:
    """A re-entrant lock with things to be done once it is free.

    Attributes:
        lock: the lock itself, for whoever is in a hurry and calls `catch_up` afterwards.
        later: what to do, in order.  Anybody may add to it: a `__del__`, too, which may
            run inside any line and so must take no lock.
    """

    __slots__ = ("_condition", "later", "lock")

    def __init__(self) -> None:
        self.later: Deque[Callable[[], object]] = deque()
        self.renew()

    def renew(self) -> None:
        """Begin anew, in a forked child."""
        self.lock = threading.RLock()
        self._condition = threading.Condition(self.lock)

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()
        if self.later:
            self.catch_up()

    def is_mine(self) -> bool:
        """True if this thread holds it."""
        try:
            self._condition.notify(0)  # refused to all others
        except RuntimeError:
            return False
        return True

    def catch_up(self) -> None:
        """Do what was left to be done, unless this thread still holds the lock."""
        while self.later and not self.is_mine():
            try:
                act = self.later.popleft()
            except IndexError:  # another thread did it
                return
            try:
                act()
            except LogError:
                logger.exception("what a signal handler appended could not be kept")
