"""Starting a thread, and waiting in one without losing a signal."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any, Callable, Iterator, Optional, TypeVar

__all__ = ["NEVER", "get_within", "slices", "start_thread"]

T = TypeVar("T")
#: Later than any moment of `time.monotonic`.
NEVER = float("inf")


def start_thread(name: str, target: Callable[..., object], *args: Any) -> threading.Thread:
    """Start a daemon thread named "agentstream-NAME".

    Raises:
        RuntimeError: the system has no thread left, or the interpreter is exiting.
    """
    thread = threading.Thread(target=target, args=args, name=f"agentstream-{name}", daemon=True)
    thread.start()
    return thread


#: How long the main thread waits at a stretch.
_STRETCH_S = 0.2


def slices(timeout: Optional[float]) -> Iterator[Optional[float]]:
    """`timeout` as it is to be waited: in the main thread, in pieces.

    A signal that comes in the moment between Python's last look and the system
    call that blocks wakes nobody; Ctrl-C would be lost until the wait is over.
    """
    if threading.current_thread() is not threading.main_thread():
        yield timeout
        return
    until = NEVER if timeout is None else time.monotonic() + timeout
    left = until - time.monotonic()
    while left > _STRETCH_S:
        yield _STRETCH_S
        left = until - time.monotonic()
    yield max(left, 0.0)


def get_within(source: queue.SimpleQueue[T], timeout: Optional[float]) -> T:
    """`source.get`, waiting up to `timeout` seconds; None for no bound.

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
    return source.get(timeout=max(timeout, 0.005))
