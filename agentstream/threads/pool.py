"""The worker pool."""

from __future__ import annotations

import logging
import queue
import threading
import time
from concurrent.futures import Future, InvalidStateError
from typing import Any, Callable, Dict, Optional, Tuple, TypeVar

from agentstream.cancel import CancelToken
from agentstream.threads.lifecycle import after_fork, exiting
from agentstream.threads.start import NEVER, bounded, new_thread, slices

__all__ = ["NoThread", "WorkerPool"]

logger = logging.getLogger("agentstream.threads")

T = TypeVar("T")
_Task = Tuple["Future[Any]", Callable[[], Any]]
#: Threads beyond its size that a pool starts for work that must not wait.
_MOST_EXTRA = 256


class NoThread(RuntimeError):
    """The system has no thread left for the work."""


class _Local(threading.local):
    pool: Optional[WorkerPool] = None


_local = _Local()


class WorkerPool:
    """Daemon threads that run submitted work, `max_workers` at a time, in order of submission.

    Unlike concurrent.futures' executor it never makes the interpreter wait for
    its workers.
    """

    def __init__(self, max_workers: int, name: str = "worker") -> None:
        if max_workers < 1:
            raise ValueError("max_workers must be at least 1")
        self._max_workers = max_workers
        self._name = name
        self._reset()
        after_fork(self)

    def _reset(self) -> None:
        self._lock = threading.RLock()  # guards all below, which whoever waits may read
        self._queue: queue.SimpleQueue[Optional[_Task]] = queue.SimpleQueue()
        self._workers: Dict[threading.Thread, None] = {}  # those that take from the queue
        self._extra: Dict[threading.Thread, None] = {}  # those beyond them, for one task each
        self._load = 0  # tasks queued or running; with fewer workers than that, none is idle
        self._closed = False
        self._thread_ended = CancelToken()  # the next one that does cancels it

    def _after_fork(self) -> None:
        closed = self._closed
        self._reset()
        self._closed = closed

    def submit(
        self,
        function: Callable[[], T],
        future: Optional[Future[T]] = None,
        *,
        at_once: bool = False,
        late: bool = False,
    ) -> Future[T]:
        """Queue `function`; returns its future, the given one or a new one.

        With `at_once` it does not wait for a worker to be free: if none is, a
        thread beyond `max_workers` runs it.  With `late`, that is so after the
        shutdown too: for what a task that still runs cannot do without.

        Raises:
            NoThread: there is none to be had.
            RuntimeError: the pool is shut down, or has too many threads already.
        """
        future = Future() if future is None else future
        with self._lock:
            if exiting() or (self._closed and not late):
                raise RuntimeError("the pool has been shut down: it takes no more work")
            if self._closed:
                self._run_beside(future, function)
                return future
            if len(self._workers) < min(self._load + 1, self._max_workers):
                self._grow(needed=not self._workers and not at_once)
            if at_once and len(self._workers) <= self._load:
                self._run_beside(future, function)
            else:
                self._load += 1
                self._queue.put((future, function))
        return future

    def _grow(self, *, needed: bool) -> None:
        number = len(self._workers)
        thread = new_thread(f"{self._name}-{number}", self._work, self._queue)
        if not _start(thread, self._workers):
            if needed:
                raise _no_thread() from None
            logger.warning("no more threads: %d workers share the work", number)

    def _run_beside(self, future: Future[Any], function: Callable[[], Any]) -> None:
        if len(self._extra) >= _MOST_EXTRA:
            raise RuntimeError(f"{_MOST_EXTRA} threads are at work beyond the pool's own: no more")
        thread = new_thread(f"{self._name}-beside", self._work_once, future, function)
        if not _start(thread, self._extra):
            raise _no_thread() from None

    def _work(self, tasks: queue.SimpleQueue[Optional[_Task]]) -> None:
        _local.pool = self
        while True:
            task = tasks.get()
            if task is None:
                break
            _perform(*task, self._free)
            del task  # an idle worker keeps nothing alive
        tasks.put(None)  # for the next worker
        self._leave(self._workers)

    def _work_once(self, future: Future[Any], function: Callable[[], Any]) -> None:
        _local.pool = self
        _perform(future, function, lambda: None)
        self._leave(self._extra)

    def _free(self) -> None:
        with self._lock:
            self._load -= 1

    def _leave(self, threads: Dict[threading.Thread, None]) -> None:
        with self._lock:
            threads.pop(threading.current_thread(), None)
            ended, self._thread_ended = self._thread_ended, CancelToken()
        ended.cancel()

    def shutdown(
        self, *, join: Optional[float] = None, hurry: Optional[CancelToken] = None
    ) -> bool:
        """Refuse new work, let what was submitted finish, and wait up to `join` seconds.

        Returns True if every worker has ended.  None waits without a bound;
        `hurry`, once cancelled, ends the wait.  Called by a worker, it does not
        wait for that one.
        """
        with self._lock:
            if not self._closed:
                self._queue.put(None)
                self._closed = True
        hurry = CancelToken() if hurry is None else hurry
        until = NEVER if join is None else time.monotonic() + bounded(join)
        while True:
            ended = self._thread_ended  # before the look: the next one to end cancels this one
            if self._has_ended():
                return True
            left = until - time.monotonic()
            if left <= 0 or hurry.cancelled:
                return False
            _wait_for_either(ended, hurry, next(slices(None if left == NEVER else left)))

    def _has_ended(self) -> bool:
        # By `is_alive` too: an interrupt may come between a thread's entry and its start.
        mine = 1 if _local.pool is self else 0
        return sum(t.is_alive() for t in [*self._workers, *self._extra]) <= mine


def _wait_for_either(one: CancelToken, other: CancelToken, seconds: Optional[float]) -> None:
    either = CancelToken()
    keys = [(token, token.add_callback(either.cancel)) for token in (one, other)]
    try:
        either.wait(seconds)
    finally:
        for token, key in keys:
            token.remove_callback(key)


def _start(thread: threading.Thread, threads: Dict[threading.Thread, None]) -> bool:
    """Start a thread with an entry in `threads`; False if the system has none left."""
    threads[thread] = None
    try:
        thread.start()
    except RuntimeError:
        del threads[thread]
        return False
    return True


def _no_thread() -> RuntimeError:
    if not threading.main_thread().is_alive():  # Python starts none any more
        return RuntimeError("the interpreter is exiting: it takes no more work")
    return NoThread("no thread could be started")


def _perform(
    future: Future[Any], function: Callable[[], Any], before_telling: Callable[[], object]
) -> None:
    """Run a task; free the worker (`before_telling`) before resolving the future."""
    if not future.set_running_or_notify_cancel():
        before_telling()
        return
    try:
        result = function()
    except BaseException as error:  # noqa: BLE001 - it belongs to the one who waits
        before_telling()
        _tell(future.set_exception, error)
    else:
        before_telling()
        _tell(future.set_result, result)
    finally:
        del future, function  # no cycle through the error's traceback


def _tell(tell: Callable[[Any], object], outcome: Any) -> None:
    try:
        tell(outcome)
    except InvalidStateError:
        pass  # it was given up, and answered for, before it came to its end
