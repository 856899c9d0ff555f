"""The deadline clock: one thread that rings every alarm of the process."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from typing import Callable, List, Optional, Tuple

from agentstream.threads.lifecycle import first_in_child
from agentstream.threads.start import NEVER, start_thread

__all__ = ["Alarm", "arm"]

logger = logging.getLogger("agentstream.threads")


class Alarm:
    """Rings in the clock's thread once `due`, a monotonic time, has passed.

    The owner moves `due` by plain assignment, as often as it likes: that is
    what makes a deadline cheap enough to be moved at every read.  Only a due
    time earlier than `entry`, the time at which the clock will look next, needs
    `arm`.  An alarm lives until `stop`.
    """

    __slots__ = ("due", "entry", "grain", "ring", "stopped")

    def __init__(self, ring: Callable[[float], object], grain: float) -> None:
        self.due = NEVER
        self.entry = NEVER
        #: How often the clock looks at an alarm that is not due at all; no
        #: longer than the shortest time it is ever armed for.
        self.grain = grain
        self.ring: Optional[Callable[[float], object]] = ring
        self.stopped = False

    def stop(self) -> None:
        """Never ring again, and let go of what would have rung."""
        self.stopped = True
        self.ring = None


class _Clock:
    """One thread for all deadlines; it starts with the first alarm."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        # As in the pool: entered as the lock, waited for as the condition.
        self._lock = threading.RLock()
        self._condition = threading.Condition(self._lock)
        self._heap: List[Tuple[float, int, Alarm]] = []
        self._order = itertools.count()
        self._thread: Optional[threading.Thread] = None

    def _after_fork(self) -> None:
        self._reset()

    def push(self, alarm: Alarm, when: float) -> None:
        with self._lock:
            alarm.entry = when
            heapq.heappush(self._heap, (when, next(self._order), alarm))
            if self._thread is None or not self._thread.is_alive():
                self._thread = start_thread("clock", self._run)
            elif self._heap[0][2] is alarm:
                self._condition.notify()

    def _run(self) -> None:
        condition = self._condition
        while condition is self._condition:
            alarm = self._next_due(condition)
            ring = alarm.ring
            if ring is not None:
                try:
                    ring(time.monotonic())
                except Exception:
                    logger.exception("an alarm raised")
            del alarm, ring

    def _next_due(self, condition: threading.Condition) -> Alarm:
        with condition:
            while True:
                if not self._heap:
                    condition.wait()
                    continue
                when, _, alarm = self._heap[0]
                now = time.monotonic()
                if when > now and not alarm.stopped:
                    del alarm  # waiting must not keep it, and what it rings, alive
                    condition.wait(when - now)
                    continue
                heapq.heappop(self._heap)
                if alarm.stopped:
                    continue
                # `entry` before `due`: the owner writes `due` and then reads `entry`,
                # so one of the two always sees the other's news.
                alarm.entry = NEVER
                due = alarm.due
                if due <= now:
                    return alarm
                again = min(due, now + alarm.grain) if due == NEVER else due
                alarm.entry = again
                heapq.heappush(self._heap, (again, next(self._order), alarm))


_clock = _Clock()
first_in_child(_clock._after_fork)


def arm(alarm: Alarm, due: float) -> None:
    """Set an alarm; `due` is on `time.monotonic`'s scale.

    Raises:
        RuntimeError: the clock's thread cannot be started.
    """
    alarm.due = due
    if due < alarm.entry:
        _clock.push(alarm, due)
