"""StreamLock: a lock that a signal handler can meet held by its own thread.

A handler runs between two lines of its thread.  Where that thread is inside the
lock, the handler may not wait for anybody who needs it, nor change what the
thread has half read: it leaves such things to be done (`defer`), and the thread
does them as it lets go.  That thread and no other: one that took them might come
after the stream's end.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Callable, Deque, Dict, Set

from agentstream.errors import LogError

__all__ = ["StreamLock"]

logger = logging.getLogger("agentstream.events")


class _After:
    """Does what was left to be done, as its block is left."""

    __slots__ = ("_lock",)

    def __init__(self, lock: StreamLock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        if self._lock.later or self._lock.deferred:
            self._lock.catch_up()


class StreamLock:
    """A re-entrant lock with things to be done once it is free.

    In the main thread it is taken as `with lock.after, lock.lock`: what a handler raises
    in a method of Python's, as those of this class are, may come between its lines, and then
    the lock would be held for ever.  Other threads run no handlers, and may say `with lock`.

    Attributes:
        lock: the lock itself, for whoever is in a hurry and calls `catch_up` afterwards.
        after: a context manager that calls `catch_up` as it is left.
        later: what any thread may do, in order.  Anybody may add to it: a `__del__`, too,
            which may run inside any line and so must take no lock.
        deferred: what one thread is to do, by its number.
    """

    __slots__ = ("_catching_up", "_condition", "after", "deferred", "later", "lock")

    def __init__(self) -> None:
        self.after = _After(self)
        self.later: Deque[Callable[[], object]] = deque()
        self.deferred: Dict[int, Deque[Callable[[], object]]] = {}
        self.renew()

    def renew(self) -> None:
        """Begin anew, in a forked child: what other threads had to do, the parent's do."""
        mine = self.deferred.get(threading.get_ident())
        self.deferred = {} if mine is None else {threading.get_ident(): mine}
        self._catching_up: Set[int] = set()  # threads
        self.lock = threading.RLock()
        self._condition = threading.Condition(self.lock)

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()
        if self.later or self.deferred:
            self.catch_up()

    def defer(self, act: Callable[[], object]) -> None:
        """Have this thread, which is inside the lock, do `act` once it is free."""
        self.deferred.setdefault(threading.get_ident(), deque()).append(act)

    def is_mine(self) -> bool:
        """True if this thread holds it."""
        try:
            self._condition.notify(0)  # refused to all others
        except RuntimeError:
            return False
        return True

    def catch_up(self) -> None:
        """Do what was left to be done, unless this thread still holds the lock.

        What is done may itself call this: then whoever has begun goes on with the rest.
        """
        me = threading.get_ident()
        if me in self._catching_up:
            return
        try:
            self._catching_up.add(me)
            mine = self.deferred.get(me)
            while (mine or self.later) and not self.is_mine():
                self._do_next(mine or self.later)
                mine = self.deferred.get(me)
            if mine is not None and not mine and not self.is_mine():
                self.deferred.pop(me, None)  # outside the lock nothing is deferred
        finally:
            self._catching_up.discard(me)

    @staticmethod
    def _do_next(acts: Deque[Callable[[], object]]) -> None:
        try:
            act = acts.popleft()
        except IndexError:  # another thread did it
            return
        try:
            act()
        except LogError:
            logger.exception("what a signal handler appended could not be kept")
