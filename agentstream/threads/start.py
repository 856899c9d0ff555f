"""Starting a thread, and waiting in one without losing a signal."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any, Callable, Iterator, Optional, TypeVar

__all__ = ["NEVER", "bounded", "get_within", "new_thread", "slices", "start_thread"]

T = TypeVar("T")
#: Later than any moment of `time.monotonic`.
NEVER = float("inf")
#: The longest wait at a stretch, some thirty years.  Python refuses one of three hundred, and on
#: some systems one of fifty days.
LONGEST_WAIT_S = min(threading.TIMEOUT_MAX, 1e9)


def bounded(timeout: float) -> float:
    """`timeout` as Python's waits take it: from 0 to `LONGEST_WAIT_S`."""
    return min(max(timeout, 0.0), LONGEST_WAIT_S)


def new_thread(name: str, target: Callable[..., object], *args: Any) -> threading.Thread:
    """A daemon thread named "agentstream-NAME", not started yet."""
    return threading.Thread(target=target, args=args, name=f"agentstream-{name}", daemon=True)


def start_thread(name: str, target: Callable[..., object], *args: Any) -> threading.Thread:
    """Start a daemon thread named "agentstream-NAME".

    Raises:
        RuntimeError: the system has no thread left, or the interpreter is exiting.
    """
    thread = new_thread(name, target, *args)
    thread.start()
    return thread


#: How long the main thread waits at a stretch.
_STRETCH_S = 0.2


def slices(timeout: Optional[float]) -> Iterator[Optional[float]]:
    """`timeout` in the pieces to wait it in: up to `LONGEST_WAIT_S`; short ones in the main thread.

    A signal that comes in the moment between Python's last look and the system
    call that blocks wakes nobody; Ctrl-C would be lost until the wait is over.
    """
    stretch = LONGEST_WAIT_S
    if threading.current_thread() is threading.main_thread():
        stretch = _STRETCH_S
    elif timeout is None or timeout <= stretch:
        yield timeout
        return
    until = NEVER if timeout is None else time.monotonic() + bounded(timeout)
    left = until - time.monotonic()
    while left > stretch:
        yield stretch
        left = until - time.monotonic()
    yield max(left, 0.0)


def get_within(source: queue.SimpleQueue[T], timeout: Optional[float]) -> T:
    """`source.get`, waiting up to `timeout` seconds, at most `LONGEST_WAIT_S`; None for no bound.

    SimpleQueue works out what is left of a timeout as it begins to wait.  Up to
    Python 3.12 that may come out below zero, for a timeout of next to nothing,
    and then it waits without end.

    Raises:
        queue.Empty: nothing came in time.
    """
    if timeout is None:
        return source.get()
    if timeout <= 0:
        return source.get_nowait()
    return source.get(timeout=max(bounded(timeout), 0.005))
