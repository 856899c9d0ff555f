"""FairSemaphore: the places of a client's pool, and the wait for one, which a cancel can end."""

from __future__ import annotations

import threading
from collections import deque
from typing import Deque

from agentstream.cancel import CancelToken

__all__ = ["FairSemaphore"]


class _Turn:
    """One caller's wait for a place."""

    __slots__ = ("gate", "granted")

    def __init__(self) -> None:
        self.gate = threading.Lock()
        self.gate.acquire()
        self.granted = False


class FairSemaphore:
    """`size` places, given in order of arrival."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._lock = threading.Lock()
        self._waiting: Deque[_Turn] = deque()

    @property
    def free(self) -> int:
        """How many places are not taken."""
        return self._free

    @property
    def waiting(self) -> int:
        """How many callers wait for a place."""
        return len(self._waiting)

    def acquire(self, stop: CancelToken) -> bool:
        """Take a place.  False if `stop` was cancelled before there was one."""
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return True
            turn = _Turn()
            self._waiting.append(turn)
        key = stop.add_callback(lambda: self._give_up(turn))
        try:
            turn.gate.acquire()
        except BaseException:  # Ctrl-C in the wait
            self._give_up(turn)
            with self._lock:
                granted = turn.granted
            if granted:
                self.release()
            raise
        finally:
            stop.remove_callback(key)
        return turn.granted

    def _give_up(self, turn: _Turn) -> None:
        # A signal handler may be the caller, so no lock: taking the turn out of
        # the line decides whether this or `release` has it.
        try:
            self._waiting.remove(turn)
        except ValueError:
            return
        turn.gate.release()

    def release(self) -> None:
        """Give the place to the next in line."""
        with self._lock:
            try:
                turn = self._waiting.popleft()
            except IndexError:
                self._free += 1
                return
            turn.granted = True
        turn.gate.release()
