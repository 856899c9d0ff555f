"""Every thread and pool the library starts, and what fork and exit do to them.

The deadline clock, the worker pool, helpers that may be left behind.  All
threads are daemons named "agentstream-...": none can keep a process alive, and
what must be finished at exit is finished here, within a bound.
"""

from __future__ import annotations

import atexit
import heapq
import itertools
import logging
import os
import queue
import threading
import time
import weakref
from concurrent.futures import Future
from typing import Any, Callable, List, Optional, Protocol, Tuple, TypeVar

from agentstream.cancel import CancelToken

__all__ = ["Alarm", "WorkerPool", "abandonable", "after_fork", "arm", "at_exit", "exiting",
           "start_thread"]  # fmt: skip

logger = logging.getLogger("agentstream.threads")

T = TypeVar("T")
NEVER = float("inf")


def start_thread(name: str, target: Callable[..., object], *args: Any) -> threading.Thread:
    """Start a daemon thread named "agentstream-NAME".

    Raises:
        RuntimeError: the system has no thread left, or the interpreter is exiting.
    """
    thread = threading.Thread(
        target=target, args=args, name=f"agentstream-{name}", daemon=True
    )
    thread.start()
    return thread


# --- fork and exit -------------------------------------------------------------------------


class _Forkable(Protocol):
    def _after_fork(self) -> None: ...


_forkables: weakref.WeakSet[Any] = weakref.WeakSet()
_exits: weakref.WeakSet[Any] = weakref.WeakSet()
_registry_lock = threading.Lock()
_registered = False
_exiting = False


class _Exitable(Protocol):
    def _at_exit(self) -> None: ...


def after_fork(thing: _Forkable) -> None:
    """Have `thing._after_fork()` called in every forked child, for as long as it lives."""
    _register()
    with _registry_lock:
        _forkables.add(thing)


def at_exit(thing: _Exitable) -> None:
    """Have `thing._at_exit()` called when the interpreter exits, if it still lives."""
    _register()
    with _registry_lock:
        _exits.add(thing)


def exiting() -> bool:
    """True once the interpreter has begun to exit."""
    return _exiting


def _register() -> None:
    global _registered  # noqa: PLW0603 - once a process, and not at import
    with _registry_lock:
        if _registered:
            return
        _registered = True
    atexit.register(_run_exits)
    if hasattr(os, "register_at_fork"):
        # The lock is held across the fork, so that the child copies a registry at rest.
        os.register_at_fork(
            before=_before_fork,
            after_in_parent=_after_fork_in_parent,
            after_in_child=_after_fork_in_child,
        )


# What is shared is held still across a fork, so that the child copies it at rest.
_held: List[Any] = []


def _before_fork() -> None:
    _registry_lock.acquire()
    for thing in list(_forkables):
        if hasattr(thing, "_before_fork"):
            thing._before_fork()
            _held.append(thing)


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop()._after_fork_in_parent()
    _registry_lock.release()


def _after_fork_in_child() -> None:
    _held.clear()
    _registry_lock.release()
    _clock._after_fork()
    for thing in list(_forkables):
        try:
            thing._after_fork()
        except Exception:
            logger.exception("%r did not survive the fork", type(thing).__name__)


def _run_exits() -> None:
    global _exiting  # noqa: PLW0603
    _exiting = True
    for thing in sorted(_exits, key=lambda thing: getattr(thing, "_exit_order", 0)):
        try:
            thing._at_exit()
        except Exception:
            logger.exception("%r could not be closed at exit", type(thing).__name__)


# --- the deadline clock --------------------------------------------------------------------


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
        self._condition = threading.Condition()
        self._heap: List[Tuple[float, int, Alarm]] = []
        self._order = itertools.count()
        self._thread: Optional[threading.Thread] = None

    def _after_fork(self) -> None:
        self._reset()

    def push(self, alarm: Alarm, when: float) -> None:
        with self._condition:
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


def arm(alarm: Alarm, due: float) -> None:
    """Set an alarm; `due` is on `time.monotonic`'s scale.

    Raises:
        RuntimeError: the clock's thread cannot be started.
    """
    alarm.due = due
    if due < alarm.entry:
        _clock.push(alarm, due)


# --- helpers that may be left behind -------------------------------------------------------


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
    return future.result(timeout=0)


def _fulfil(future: Future[T], function: Callable[[], T]) -> None:
    try:
        future.set_result(function())
    except BaseException as error:  # noqa: BLE001 - it belongs to the one who waits
        future.set_exception(error)


# --- the worker pool -----------------------------------------------------------------------


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
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[
            Optional[Tuple[Future[Any], Callable[[], Any]]]
        ] = queue.SimpleQueue()
        self._threads: List[threading.Thread] = []
        self._load = 0  # tasks queued or running; with fewer threads than that, none is idle
        self._closed = False

    def _after_fork(self) -> None:
        closed = self._closed
        self._reset()
        self._closed = closed

    @staticmethod
    def current() -> Optional[WorkerPool]:
        """The pool whose worker is running this code; None outside of any."""
        return _local.pool

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Queue `function`; its future tells how it went.

        Raises:
            RuntimeError: the pool is shut down, or no first thread can be started.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._closed or _exiting:
                raise RuntimeError("cannot submit: the pool has been shut down")
            if len(self._threads) < min(self._load + 1, self._max_workers):
                self._grow()
            self._load += 1
            self._queue.put((future, function))
        return future

    def _grow(self) -> None:
        number = len(self._threads)
        try:
            self._threads.append(start_thread(f"{self._name}-{number}", self._work, self._queue))
        except RuntimeError:
            if not self._threads:
                raise
            logger.warning("no more threads: %d workers share the work", number)

    def _work(
        self, tasks: queue.SimpleQueue[Optional[Tuple[Future[Any], Callable[[], Any]]]]
    ) -> None:
        _local.pool = self
        while True:
            task = tasks.get()
            if task is None:
                tasks.put(None)  # for the next worker
                return
            future, function = task
            if future.set_running_or_notify_cancel():
                _fulfil(future, function)
            del task, future, function  # an idle worker keeps nothing alive
            with self._lock:
                self._load -= 1

    def shutdown(self, *, join: Optional[float] = None) -> bool:
        """Refuse new work, let what was submitted finish, and wait up to `join` seconds.

        Returns True if every worker has ended.  None waits without a bound.
        """
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
            threads = list(self._threads)
        until = NEVER if join is None else time.monotonic() + join
        for thread in threads:
            if thread is threading.current_thread():
                continue
            left = until - time.monotonic()
            thread.join(None if until == NEVER else max(left, 0.0))
        me = threading.current_thread()
        return not any(thread.is_alive() for thread in threads if thread is not me)


def run_here(function: Callable[[], T]) -> Future[T]:
    """Run `function` in this thread; its future tells how it went."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()
    _fulfil(future, function)
    return future
