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
from concurrent.futures import Future, InvalidStateError
from typing import Any, Callable, Iterator, List, Optional, Protocol, Tuple, TypeVar

from agentstream.cancel import CancelToken

__all__ = ["Alarm", "NoThread", "WorkerPool", "abandonable", "after_fork", "arm", "at_exit",
           "exiting", "get_within", "slices", "start_thread"]  # fmt: skip

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


def _in_fork_order() -> List[Any]:
    """Those first whose locks are taken first; in the child, the others come to life first."""
    return sorted(_forkables, key=lambda thing: getattr(thing, "_fork_order", 0))


def _before_fork() -> None:
    _registry_lock.acquire()
    for thing in _in_fork_order():
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
    for thing in reversed(_in_fork_order()):
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
        except (KeyboardInterrupt, SystemExit):
            logger.warning("interrupted while a %s was being closed", type(thing).__name__)


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


# --- the worker pool -----------------------------------------------------------------------

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
        # Guards all below.  Entered as the plain lock it is: an interrupt that comes
        # while Condition's own __exit__ runs would leave it locked.
        self._lock = threading.RLock()
        self._ended = threading.Condition(self._lock)  # a thread has
        self._queue: queue.SimpleQueue[Optional[_Task]] = queue.SimpleQueue()
        self._workers = 0  # threads that take from the queue
        self._extra = 0  # threads beyond them, for one task each
        self._load = 0  # tasks queued or running; with fewer workers than that, none is idle
        self._closed = False

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
            if _exiting or (self._closed and not late):
                raise RuntimeError("the pool has been shut down: it takes no more work")
            if self._closed:
                self._run_beside(future, function)
                return future
            if self._workers < min(self._load + 1, self._max_workers):
                self._grow(needed=not self._workers and not at_once)
            if at_once and self._workers <= self._load:
                self._run_beside(future, function)
            else:
                self._load += 1
                self._queue.put((future, function))
        return future

    def _grow(self, *, needed: bool) -> None:
        number = self._workers
        self._workers += 1
        try:
            start_thread(f"{self._name}-{number}", self._work, self._queue)
        except RuntimeError:
            self._workers -= 1
            if needed:
                raise _no_thread() from None
            logger.warning("no more threads: %d workers share the work", number)

    def _run_beside(self, future: Future[Any], function: Callable[[], Any]) -> None:
        if self._extra >= _MOST_EXTRA:
            raise RuntimeError(f"{_MOST_EXTRA} threads are at work beyond the pool's own: no more")
        self._extra += 1
        try:
            start_thread(f"{self._name}-beside", self._work_once, future, function)
        except RuntimeError:
            self._extra -= 1
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
        with self._lock:
            self._workers -= 1
            self._ended.notify_all()

    def _work_once(self, future: Future[Any], function: Callable[[], Any]) -> None:
        _local.pool = self
        _perform(future, function, lambda: None)
        with self._lock:
            self._extra -= 1
            self._ended.notify_all()

    def _free(self) -> None:
        with self._lock:
            self._load -= 1

    def shutdown(self, *, join: Optional[float] = None) -> bool:
        """Refuse new work, let what was submitted finish, and wait up to `join` seconds.

        Returns True if every worker has ended.  None waits without a bound.
        Called by a worker, it does not wait for that one.
        """
        mine = 1 if _local.pool is self else 0
        with self._lock:
            if not self._closed:
                self._queue.put(None)
                self._closed = True
            # Not Thread.join: a Ctrl-C in it makes Python (up to 3.12) take the
            # thread for ended, and who waits again would not wait at all.
            for seconds in slices(join):
                if self._ended.wait_for(lambda: self._workers + self._extra <= mine, seconds):
                    return True
        return False


def _no_thread() -> RuntimeError:
    if not threading.main_thread().is_alive():  # Python starts none any more
        return RuntimeError("the interpreter is exiting: it takes no more work")
    return NoThread("no thread could be started")


def _perform(
    future: Future[Any], function: Callable[[], Any], before_telling: Callable[[], object]
) -> None:
    """Run a task; `before_telling`, so that who waits for it finds the worker free."""
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
