"""What the main thread has another thread do, so that a signal finds it holding no lock.

A signal handler runs in the main thread, between any two of its instructions.
If it interrupts code that holds a lock, whatever needs that lock waits for the
handler to return: a handler that waits for such work would wait for ever.  So
the work is done by a thread of its own; the main thread waits for it only where
it holds nothing of the library's, and otherwise leaves it to go on by itself.
"""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
from types import FrameType
from typing import Callable, Generic, List, Optional, TypeVar

from agentstream.cancel import CancelToken
from agentstream.threads.start import get_within, slices, start_thread

__all__ = ["aside", "interrupted"]

logger = logging.getLogger("agentstream.threads")

T = TypeVar("T")

#: The rooms whose code may hold a lock that other threads need; the edges hold none of these.
_ROOMS = {"agent", "cancel", "events", "llm", "runtime", "threads", "tools", "workflow"}
#: ... and the modules of Python's of which that is so, but for the time in which they wait.
_LOCKING = {"concurrent", "logging"}
#: Where the library's own waits rest: whoever calls these holds no lock.
_RESTING = {CancelToken.wait.__code__, get_within.__code__}
#: Seconds in which a new thread has begun, unless this one holds a lock of `threading`'s.
_BEGIN_S = 5.0


def aside(name: str, function: Callable[[], T], otherwise: T) -> T:
    """Run `function`, for the main thread in a thread of its own; return or raise what it does.

    In a signal handler that has interrupted the library it does not wait:
    it returns `otherwise`, and `function` goes on once the handler has returned.
    """
    if threading.current_thread() is not threading.main_thread():
        return function()
    within = interrupted()
    call = _Call(function)
    try:
        start_thread(name, contextvars.copy_context().run, call.work)
    except RuntimeError:  # there is none to be had, or the interpreter exits
        return otherwise if within else function()
    if within or not call.begun.wait(_BEGIN_S):
        return otherwise
    return call.result()


class _Call(Generic[T]):
    """A call in another thread; neither side takes a lock of the other's."""

    def __init__(self, function: Callable[[], T]) -> None:
        self.begun = CancelToken()
        self._ended = CancelToken()
        self._function = function
        self._values: List[T] = []
        self._error: Optional[BaseException] = None

    def work(self) -> None:
        self.begun.cancel()
        try:
            self._values.append(self._function())
        except BaseException as error:
            self._error = error
            logger.debug("work for the main thread failed", exc_info=True)
        finally:
            self._ended.cancel()

    def result(self) -> T:
        """Wait for the end; return or raise what came of it."""
        for seconds in slices(None):
            if self._ended.wait(seconds):
                break
        if self._error is None:
            return self._values[0]
        try:
            raise self._error
        finally:
            del self  # no cycle through the error's traceback


def interrupted() -> bool:
    """True if the caller runs in a signal handler that has interrupted the library, or logging.

    Where the library only waits it holds no lock: that does not count.
    """
    frame: Optional[FrameType] = sys._getframe(1)
    while frame is not None and _room(frame) in _ROOMS:
        frame = frame.f_back  # the call that asks
    waits = False
    while frame is not None:
        if frame.f_code in _RESTING:
            return False
        room = _room(frame)
        if room in _ROOMS or (room in _LOCKING and not waits):
            return True
        waits = room == "threading" and frame.f_code.co_name == "wait"
        frame = frame.f_back
    return False


def _room(frame: FrameType) -> str:
    """The room that a frame's code belongs to; of a module that is not ours, its first name."""
    top, _, rest = str(frame.f_globals.get("__name__", "")).partition(".")
    return rest.partition(".")[0] if top == "agentstream" else "" if top in _ROOMS else top
