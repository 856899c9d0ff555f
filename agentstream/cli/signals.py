"""Signals and the deadline: each ends a command by `Interrupted`, in the main thread.

A server is ended by `stops`: for it, to be stopped is how it ends.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
import warnings
from typing import Any, Callable, Dict, Iterator, List, Optional

from agentstream import threads
from agentstream.cli.exits import LATE, Interrupted
from agentstream.cli.output import say

__all__ = ["Interruptions", "next_stop", "on_ctrl_c", "stops"]

#: Seconds from the deadline, or a signal, to the end of a process that does not end.
_MOST_S = 8.0
#: What wakes the main thread when the deadline has passed, wherever it waits.
_WAKE = getattr(signal, "SIGALRM", signal.SIGINT)
_SIGNALS = {
    "SIGINT": (130, "stopped by Ctrl-C"),
    "SIGTERM": (143, "stopped by SIGTERM"),
    "SIGHUP": (129, "stopped by SIGHUP"),
}


class Interruptions:
    """What ends a command early: it raises `Interrupted` in the main thread.

    Only there: called by another thread of a program, it does nothing, and
    leaves that program its signals.
    """

    def __init__(self, leaving: bool) -> None:
        self._leaving = leaving
        self._ended = False
        self._is_main = threading.current_thread() is threading.main_thread()
        self._before: Dict[int, Any] = {}
        self._alarms: List[threads.Alarm] = []

    def __enter__(self) -> Interruptions:
        for name, (code, why) in _SIGNALS.items():
            number = getattr(signal, name, None)
            # What is ignored stays so: nohup, and a shell's background jobs.
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._on(number, code, why)
        return self

    def expect(self, deadline: Optional[float]) -> None:
        """Interrupt after so many seconds; None for never."""
        if deadline is not None and self._is_main:
            why = f"the deadline of {deadline:g} s has passed"
            self._on(_WAKE, LATE, why)
            self._arm(self._wake, deadline)
            self._arm(lambda _: _leave(LATE, why), deadline + _MOST_S)

    def _on(self, number: int, code: int, why: str) -> None:
        if self._is_main:
            before = signal.signal(number, lambda *_: self._interrupt(code, why))
            self._before.setdefault(number, before)

    def _interrupt(self, code: int, why: str) -> None:
        if self._ended and code == LATE:
            return  # one that ends already
        if self._ended and self._leaving:
            # It may cut a socket's close short, which the process's end then does.
            warnings.simplefilter("ignore", ResourceWarning)
        self._ended = True
        with contextlib.suppress(RuntimeError):  # no thread to be had
            self._arm(lambda _: _leave(code, why), _MOST_S)
        raise Interrupted(code, why)

    def _wake(self, now: float) -> None:
        """Interrupt the main thread, again and again: it may be just about to wait."""
        if self._ended:
            return
        _signal_main_thread()
        self._arm(self._wake, 0.25)

    def _arm(self, ring: Callable[[float], object], seconds: float) -> None:
        alarm = threads.Alarm(ring, grain=seconds)
        self._alarms.append(alarm)
        threads.arm(alarm, time.monotonic() + seconds)

    def __exit__(self, *_: object) -> None:
        for alarm in self._alarms:
            alarm.stop()
        for number, handler in self._before.items():
            # A second Ctrl-C must not change how a process ends that is about to.
            signal.signal(number, signal.SIG_IGN if self._ended and self._leaving else handler)


@contextlib.contextmanager
def on_ctrl_c(act: Callable[[], object]) -> Iterator[None]:
    """Let Ctrl-C call `act`, in the main thread, in place of ending the command."""
    before = signal.getsignal(signal.SIGINT)
    if (
        before in (signal.SIG_IGN, None)
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: act())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def stops() -> Iterator[queue.SimpleQueue[int]]:
    """A queue that SIGINT and SIGTERM go to, each once: the second is meant at once."""
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()  # a handler may put there at any time

    def stop(number: int, _: object) -> None:
        signals.put(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    yield signals


def next_stop(signals: queue.SimpleQueue[int], timeout: Optional[float] = None) -> int:
    """Wait for a signal; returns its number.

    Raises:
        queue.Empty: none came within `timeout` seconds.
    """
    for seconds in threads.slices(timeout):
        with contextlib.suppress(queue.Empty):
            return threads.get_within(signals, seconds)
    raise queue.Empty


def _signal_main_thread() -> None:
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, _WAKE)
    else:  # Windows, where it is seen between two pieces of a wait
        signal.raise_signal(_WAKE)


def _leave(code: int, why: str) -> None:
    """For a process that does not end although it was told to."""
    say(f"{why}, and the run does not stop: it is left")
    os._exit(code)
