"""The deadline clock: one thread that rings every alarm of the process."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections import deque
from typing import Callable, Deque, Iterator, List, Optional, Tuple

from agentstream.threads.lifecycle import first_in_child
from agentstream.threads.start import NEVER, start_thread
from agentstream.threads.wakeup import Wakeup

__all__ = ["Alarm", "arm", "look_again"]

logger = logging.getLogger("agentstream.threads")

#: Alarms that are not worth looking through for stopped ones.
_FEW = 1000


class Alarm:
    """Rings in the clock's thread once `due`, a monotonic time, has passed.

    The owner moves `due` by plain assignment, as often as it likes: that is
    what makes a deadline cheap enough to be moved at every read.  Only a due
    time earlier than `entry`, the time at which the clock will look next, needs
    `arm`.  An alarm lives until `stop`.
    """

    __slots__ = ("__weakref__", "due", "entry", "grain", "ring", "stopped")

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


class _Inbox:
    """What was armed and the clock has not taken in yet; nothing here takes a lock.

    Waking a thread costs more than a call's deadline should: an alarm that is due no
    earlier than the clock wakes anyway waits for that.
    """

    def __init__(self) -> None:
        self._armed: Deque[Tuple[float, Alarm]] = deque()
        self._wakeup = Wakeup()
        #: When the clock wakes by itself.
        self._until = NEVER

    def put(self, when: float, alarm: Alarm) -> None:
        """Hand over an alarm that is to be looked at by `when`."""
        self._armed.append((when, alarm))
        # After that, as `wait` looks for alarms after it has said until when it waits:
        # one of the two sees the other's news.
        if self._until > when or len(self._armed) > _FEW:
            self._wakeup.set()

    def take(self) -> Iterator[Tuple[float, Alarm]]:
        """What has been handed over."""
        while self._armed:
            try:
                yield self._armed.popleft()
            except IndexError:  # the other clock of an interrupted start has it
                return

    def wait(self, until: float) -> None:
        """Wait until then, or until there is something that cannot wait."""
        self._until = until
        if not self._armed:
            self._wakeup.wait(None if until == NEVER else until - time.monotonic())


class _Clock:
    """One thread for all deadlines; it starts with the first alarm.

    What is armed goes into its inbox, which takes no lock: a signal handler may arm
    an alarm wherever it interrupts the main thread, here as well.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._inbox = _Inbox()
        self._starting = threading.Lock()
        self._thread: Optional[threading.Thread] = None

    def _after_fork(self) -> None:
        self._reset()

    def push(self, alarm: Alarm, when: float) -> None:
        alarm.entry = when  # first: the clock may come to it and write NEVER
        self._inbox.put(when, alarm)
        thread = self._thread
        if thread is None or not thread.is_alive():
            self._start()

    def _start(self) -> None:
        # Whoever finds it taken leaves the start to the one who has it: another thread, or
        # the code which this, in a signal handler, has interrupted.
        if not self._starting.acquire(blocking=False):
            return
        try:
            thread = self._thread
            if thread is None or not thread.is_alive():
                self._thread = start_thread("clock", _run, self._inbox)
        finally:
            self._starting.release()


def _run(inbox: _Inbox) -> None:
    # The agenda is this thread's: an interrupted start may leave two, which share the inbox.
    agenda = _Agenda(inbox)
    while True:
        alarm = agenda.next_due()
        ring = alarm.ring
        if ring is not None:
            try:
                ring(time.monotonic())
            except Exception:
                logger.exception("an alarm raised")
        del alarm, ring


class _Agenda:
    """The alarms that are armed, in a heap by the time to look at them."""

    def __init__(self, inbox: _Inbox) -> None:
        self._inbox = inbox
        self._heap: List[Tuple[float, int, Alarm]] = []
        self._order = itertools.count()
        self._most = _FEW

    def next_due(self) -> Alarm:
        """Wait for the next alarm that is due, taking in those that are armed meanwhile."""
        heap, inbox = self._heap, self._inbox
        while True:
            for news in inbox.take():
                self._push(*news)
                del news  # waiting must not keep an alarm, and what it rings, alive
            if not heap:
                inbox.wait(NEVER)
                continue
            when, _, alarm = heap[0]
            now = time.monotonic()
            if when > now and not alarm.stopped:
                del alarm
                inbox.wait(when)
                continue
            heapq.heappop(heap)
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
            self._push(again, alarm)

    def _push(self, when: float, alarm: Alarm) -> None:
        heapq.heappush(self._heap, (when, next(self._order), alarm))
        if len(self._heap) > self._most:
            # Those that were stopped long before their time would stay until then.
            self._heap[:] = [entry for entry in self._heap if not entry[2].stopped]
            heapq.heapify(self._heap)
            self._most = max(_FEW, 2 * len(self._heap))


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


def look_again(alarm: Alarm, when: float) -> None:
    """Have the clock look at an alarm at `when`; it rings if it is due then.

    For those who are not the alarm's owner: `due` stays as it is.
    """
    _clock.push(alarm, when)
