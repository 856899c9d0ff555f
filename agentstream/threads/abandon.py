"""Helpers that may be left behind, for calls that nothing can wake."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Callable, TypeVar

from agentstream.cancel import CancelToken
from agentstream.threads.start import start_thread

__all__ = ["abandonable"]

T = TypeVar("T")


def abandonable(name: str, function: Callable[[], T], stop: CancelToken) -> T:
    """Run `function` in a thread of its own; return or raise what it does.

    For calls that nothing can wake, such as getaddrinfo.

    Raises:
        concurrent.futures.TimeoutError: `stop` was cancelled first; the thread
            is left to end by itself.
        RuntimeError: there is no thread to be had.
    """
    future: Future[T] = Future()
    woken = threading.Lock()
    woken.acquire()

    def wake(*_: object) -> None:
        try:
            woken.release()
        except RuntimeError:
            pass  # woken already

    future.add_done_callback(wake)
    key = stop.add_callback(wake)
    try:
        start_thread(name, _fulfil, future, function)
        woken.acquire()
    finally:
        stop.remove_callback(key)
    try:
        return future.result(timeout=0)
    finally:
        del future  # no cycle through an error's traceback


def _fulfil(future: Future[T], function: Callable[[], T]) -> None:
    try:
        future.set_result(function())
    except BaseException as error:  # noqa: BLE001 - it belongs to the one who waits
        future.set_exception(error)
    finally:
        del future, function  # no cycle through the error's traceback
