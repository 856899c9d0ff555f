"""Line: threads that wait, first come, first served.

Only the head of the line asks; the others sleep until they are it.  So there is no thread
of ours, nothing is kept of who has left, and what the head asks needs no lock.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Callable, Deque, Optional, TypeVar, Union

from agentstream.cancel import CancelToken
from agentstream.threads import slices, uptime
from agentstream.threads.wakeup import Wakeup

__all__ = ["Line"]

T = TypeVar("T")


class _Turn:
    """One thread's wait."""

    __slots__ = ("wakeup",)

    def __init__(self) -> None:
        self.wakeup = Wakeup()


class Line:
    """A line of threads."""

    def __init__(self) -> None:
        self._turns: Deque[_Turn] = deque()

    def __len__(self) -> int:
        return len(self._turns)

    def wait(self, ask: Callable[[], Union[T, float]], stop: CancelToken) -> Optional[T]:
        """Stand in line, and ask when it is one's turn; None if `stop` was cancelled before.

        Args:
            ask: gives what one waits for, or when to ask again, on the clock of `uptime`.
            stop: ends the wait from any thread.
        """
        turn = _Turn()
        # What a canceller runs takes no lock: it may be a signal handler.
        key = stop.add_callback(turn.wakeup.set)
        try:
            self._turns.append(turn)
            while not stop.cancelled:
                again: Optional[float] = None
                if self._turns[0] is turn:
                    answer = ask()
                    if not isinstance(answer, float):
                        return answer
                    again = max(answer - uptime(), 0.0)
                for piece in slices(again):
                    if turn.wakeup.wait(piece):
                        break
            return None
        finally:
            with contextlib.suppress(ValueError):
                self._turns.remove(turn)
            self.wake()
            stop.remove_callback(key)

    def wake(self) -> None:
        """Have the head ask now."""
        with contextlib.suppress(IndexError):
            self._turns[0].wakeup.set()
