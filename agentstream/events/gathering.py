"""Gathering: a callback's thread is woken less often where events come by the thousand a second."""

from __future__ import annotations

import threading
import time

__all__ = ["Gathering"]


class Gathering:
    """Lets a callback's thread wait a little where events come by the thousand a second.

    To be woken for every one of them costs more than all else that is done with
    it, and in its turn wakes whoever else waits for the interpreter: with 256
    streams at once, a fifth of the CPU time and most of the delay.  So, once
    events have come at that pace for a while, it lets two milliseconds' worth
    of them gather.  An event that comes alone is never kept waiting.
    """

    _SECONDS = 0.002
    _PACE = 0.001  # seconds an event: what comes more slowly is waited for
    _AFTER = 16  # times in a row that the queue ran dry at that pace

    def __init__(self) -> None:
        self._since = 0.0
        self._quick = 0
        self._gate = threading.Lock()
        self._gate.acquire()

    def ran_dry(self, count: int) -> None:
        """The queue is empty, `count` events after the last time: rest, if that is worth while."""
        now = time.monotonic()
        self._quick = self._quick + 1 if now - self._since < self._PACE * count else 0
        self._since = now
        if self._quick > self._AFTER:
            self._gate.acquire(timeout=self._SECONDS)
