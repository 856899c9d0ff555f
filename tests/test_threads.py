"""The worker pool, the deadline clock, threads that may be left behind, and exit's register."""

from __future__ import annotations

import gc
import logging
import queue
import threading
import time
import weakref
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Iterator, List

import pytest

from agentstream import threads
from agentstream.cancel import CancelToken
from tests.kit.support import Task, wait_until


@pytest.fixture
def pool() -> Iterator[threads.WorkerPool]:
    pool = threads.WorkerPool(3, "test")
    yield pool
    assert pool.shutdown(join=5)


def no_thread(*_: Any, **__: Any) -> None:
    raise RuntimeError("can't start new thread")


class Held:
    """Work that goes on until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.go.wait(10)
        return threading.current_thread().name


# --- the worker pool ------------------------------------------------------------------------


def test_threads_are_daemons_with_our_name() -> None:
    seen: List[threading.Thread] = []
    thread = threads.start_thread("test", lambda: seen.append(threading.current_thread()))
    thread.join(5)
    assert seen == [thread]
    assert thread.daemon
    assert thread.name == "agentstream-test"


def test_a_pool_starts_no_thread_before_it_has_work() -> None:
    before = threading.active_count()
    pool = threads.WorkerPool(4)
    assert threading.active_count() == before
    assert pool.shutdown(join=1)


def test_a_pool_grows_only_as_needed(pool: threads.WorkerPool) -> None:
    names = {pool.submit(lambda: threading.current_thread().name).result(5) for _ in range(50)}
    assert names == {"agentstream-test-0"}


def test_a_queued_task_never_waits_while_there_is_capacity(pool: threads.WorkerPool) -> None:
    for _ in range(30):  # whichever workers are idle, three at a time always run at once
        held = [Held() for _ in range(3)]
        futures = [pool.submit(work) for work in held]
        assert all(work.begun.wait(5) for work in held)
        fourth = Held()
        last = pool.submit(fourth)
        assert not fourth.begun.is_set()
        held[1].go.set()
        assert fourth.begun.wait(5)
        for work in (*held, fourth):
            work.go.set()
        assert len({future.result(5) for future in futures}) == 3
        last.result(5)


def test_tasks_run_in_the_order_of_their_submission() -> None:
    pool = threads.WorkerPool(1)
    first, order = Held(), []  # type: ignore[var-annotated]
    pool.submit(first)
    futures = [pool.submit(lambda n=n: order.append(n)) for n in range(100)]
    first.go.set()
    futures[-1].result(5)
    assert order == list(range(100))
    assert pool.shutdown(join=5)


def test_what_work_raises_belongs_to_its_future_and_the_worker_lives(
    pool: threads.WorkerPool,
) -> None:
    def exits() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        pool.submit(exits).result(5)
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 // 0).result(5)
    assert pool.submit(lambda: 7).result(5) == 7
    assert len(pool._workers) == 1


def test_a_cancelled_future_is_not_run_and_costs_no_place(pool: threads.WorkerPool) -> None:
    held = [Held() for _ in range(3)]
    for work in held:
        pool.submit(work)
    ran: List[int] = []
    future = pool.submit(lambda: ran.append(1))
    assert future.cancel()
    for work in held:
        work.go.set()
    wait_until(lambda: pool._load == 0)
    assert ran == []


def test_a_shut_pool_refuses_work_and_finishes_what_it_has() -> None:
    pool = threads.WorkerPool(1)
    work = Held()
    running, queued = pool.submit(work), pool.submit(lambda: "queued")
    assert work.begun.wait(5)
    began = time.monotonic()
    assert not pool.shutdown(join=0.05)
    assert time.monotonic() - began < 2
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(lambda: None)
    work.go.set()
    assert pool.shutdown(join=5)
    assert queued.result(0) == "queued"
    assert running.result(0)
    assert pool.shutdown()


def test_a_worker_may_shut_its_own_pool() -> None:
    pool = threads.WorkerPool(2)
    assert pool.submit(lambda: pool.shutdown(join=5)).result(5) is True
    assert pool.shutdown(join=5)


def test_work_at_once_runs_beside_a_full_pool_and_in_it_when_there_is_room() -> None:
    pool = threads.WorkerPool(1, "test")
    work = Held()
    pool.submit(work)
    assert work.begun.wait(5)
    name = pool.submit(lambda: threading.current_thread().name, at_once=True)
    assert name.result(5) == "agentstream-test-beside"
    work.go.set()
    wait_until(lambda: pool._load == 0)
    name = pool.submit(lambda: threading.current_thread().name, at_once=True)
    assert name.result(5) == "agentstream-test-0"
    assert pool.shutdown(join=5)


def test_work_at_once_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.pool, "_MOST_EXTRA", 2)
    pool = threads.WorkerPool(1)
    held = [Held() for _ in range(3)]
    for work in held:
        pool.submit(work, at_once=True)
    with pytest.raises(RuntimeError, match="beyond the pool"):
        pool.submit(lambda: None, at_once=True)
    for work in held:
        work.go.set()
    assert pool.shutdown(join=5)


def test_r08_no_first_thread_is_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = threads.WorkerPool(2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        for at_once in (False, True):
            with pytest.raises(threads.NoThread):
                pool.submit(lambda: None, at_once=at_once)
    assert pool.submit(lambda: "again").result(5) == "again"
    assert pool.shutdown(join=5)


def test_r08_fewer_threads_share_the_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pool = threads.WorkerPool(3)
    work = Held()
    first = pool.submit(work)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        second = pool.submit(lambda: "done by the first")
    assert "no more threads" in caplog.text
    assert not second.done()
    work.go.set()
    assert second.result(5) == "done by the first"
    assert first.result(5)
    assert pool.shutdown(join=5)


def test_an_idle_worker_keeps_nothing_of_what_it_ran(pool: threads.WorkerPool) -> None:
    class Load:
        def __call__(self) -> Any:
            return self

        def fail(self) -> None:
            raise ValueError(self)

    gc.disable()
    try:
        for call in ("__call__", "fail"):
            load = Load()
            gone = weakref.ref(load)
            future = pool.submit(getattr(load, call))
            future.exception(5)
            del load, future
            wait_until(lambda gone=gone: gone() is None)
    finally:
        gc.enable()


def test_r01_an_interrupted_wait_can_be_waited_again(monkeypatch: pytest.MonkeyPatch) -> None:
    # Thread.join, interrupted, would take the worker for dead from then on.
    pool = threads.WorkerPool(1)
    work = Held()
    pool.submit(work)
    assert work.begun.wait(5)

    def interrupt(*_: Any) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(CancelToken, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pool.shutdown()
    monkeypatch.undo()
    assert not pool.shutdown(join=0.02)
    work.go.set()
    assert pool.shutdown(join=5)


def test_r01_the_main_thread_waits_in_pieces_and_others_at_a_stretch() -> None:
    # A signal between the last look and the system call that blocks wakes nobody.
    assert next(threads.slices(None)) == threads.start._STRETCH_S
    assert next(threads.slices(10)) == threads.start._STRETCH_S
    assert list(threads.slices(0)) == [0]
    (only,) = threads.slices(0.1)
    assert only is not None
    assert 0.05 < only <= 0.1
    began = time.monotonic()
    for seconds in threads.slices(0.5):
        threading.Event().wait(seconds)
    assert 0.5 <= time.monotonic() - began < 2
    assert Task(lambda: list(threads.slices(None))).result() == [None]
    assert Task(lambda: list(threads.slices(7.5))).result() == [7.5]


@pytest.mark.parametrize("seconds", [9.3e9, 1e12, 1e300, threads.NEVER])
def test_b18_a_wait_of_centuries_is_a_wait(seconds: float) -> None:
    box: queue.SimpleQueue[int] = queue.SimpleQueue()
    waiting = Task(lambda: threads.get_within(box, seconds))
    pieces = Task(lambda: next(threads.slices(seconds))).result()
    assert pieces is not None
    assert 1e6 < pieces <= threading.TIMEOUT_MAX
    box.put(7)
    assert waiting.result() == 7
    token = CancelToken()
    asleep = Task(lambda: token.wait(seconds))
    token.cancel()
    assert asleep.result() is True


# --- the deadline clock ---------------------------------------------------------------------


def test_b16_the_clock_forgets_alarms_that_were_stopped_long_before_their_time() -> None:
    old = []
    for _ in range(5000):
        alarm = threads.Alarm(lambda _: None, grain=3600.0)
        threads.arm(alarm, time.monotonic() + 3600)
        alarm.stop()
        old.append(weakref.ref(alarm))
    del alarm
    wait_until(lambda: sum(gone() is not None for gone in old) <= 2000)


@pytest.mark.parametrize("seconds", [9.3e9, 1e12, 1e300, threads.NEVER])
def test_b18_an_alarm_in_centuries_does_not_end_the_clock(seconds: float) -> None:
    late, soon = Bell(grain=seconds), Bell()
    try:
        for due in (seconds, time.monotonic() + 0.01, time.monotonic() + seconds):
            threads.arm(late.alarm, due)
        threads.arm(soon.alarm, time.monotonic() + 0.03)
        assert soon.event.wait(5)
    finally:
        late.alarm.stop()


class Bell:
    def __init__(self, grain: float = 3600.0) -> None:
        self.rang: List[float] = []
        self.event = threading.Event()
        self.alarm = threads.Alarm(self.ring, grain)

    def ring(self, now: float) -> None:
        self.rang.append(now)
        self.event.set()


def test_an_alarm_rings_once_after_its_time_and_not_before() -> None:
    bell = Bell()
    due = time.monotonic() + 0.05
    threads.arm(bell.alarm, due)
    assert bell.event.wait(5)
    assert due <= bell.rang[0] < due + 1
    later = Bell()
    threads.arm(later.alarm, time.monotonic() + 0.02)
    assert later.event.wait(5)
    assert len(bell.rang) == 1


def test_an_alarm_is_moved_by_plain_assignment() -> None:
    bell = Bell()
    threads.arm(bell.alarm, time.monotonic() + 0.03)
    due = bell.alarm.due = time.monotonic() + 0.15
    assert bell.event.wait(5)
    assert due <= bell.rang[0] < due + 1


def test_an_alarm_that_is_never_due_is_looked_at_again_after_its_grain() -> None:
    bell = Bell(grain=0.02)
    threads.arm(bell.alarm, time.monotonic() + 0.02)
    bell.alarm.due = threads.NEVER
    assert not bell.event.wait(0.08)
    bell.alarm.due = time.monotonic()  # by assignment alone: it is found within the grain
    assert bell.event.wait(5)


def test_an_earlier_alarm_is_not_kept_waiting_by_a_later_one() -> None:
    late, soon = Bell(), Bell()
    threads.arm(late.alarm, time.monotonic() + 60)
    threads.arm(soon.alarm, time.monotonic() + 0.02)
    assert soon.event.wait(2)
    assert not late.rang
    threads.arm(late.alarm, time.monotonic() + 0.02)  # nor by itself
    assert late.event.wait(2)


def test_a_stopped_alarm_never_rings_and_lets_go_at_once() -> None:
    gc.disable()
    try:
        bell = Bell()
        gone = weakref.ref(bell)
        threads.arm(bell.alarm, time.monotonic() + 0.02)
        alarm = weakref.ref(bell.alarm)
        bell.alarm.stop()
        del bell
        assert gone() is None
    finally:
        gc.enable()
    after = Bell()
    threads.arm(after.alarm, time.monotonic() + 0.05)
    assert after.event.wait(5)
    wait_until(lambda: alarm() is None)


def test_a_ringing_that_raises_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    def ring(now: float) -> None:
        raise ValueError("broken bell")

    broken = threads.Alarm(ring, 1.0)
    bell = Bell()
    now = time.monotonic()
    threads.arm(broken, now + 0.01)
    threads.arm(bell.alarm, now + 0.03)
    assert bell.event.wait(5)
    assert "an alarm raised" in caplog.text
    assert "broken bell" in caplog.text


def test_thousands_of_alarms_ring_in_time_in_one_thread() -> None:
    start = time.monotonic() + 1.0  # by then half of them must have been stopped
    bells = [Bell() for _ in range(4000)]
    for number, bell in enumerate(bells):
        threads.arm(bell.alarm, start + (number * 7919 % 4000) / 40_000)  # within 0.1 s
    for bell in bells[::2]:
        bell.alarm.stop()
    clocks = [t for t in threading.enumerate() if t.name == "agentstream-clock"]
    assert len(clocks) == 1
    for bell in bells[1::2]:
        assert bell.event.wait(5)
    assert all(0 <= bell.rang[0] - bell.alarm.due < 1 for bell in bells[1::2])
    assert not any(bell.rang for bell in bells[::2])


def test_moving_an_alarm_from_many_threads_loses_no_ring() -> None:
    def race() -> float:
        bell = Bell(grain=0.05)
        threads.arm(bell.alarm, time.monotonic() + 0.01)
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            due = time.monotonic() + 0.002
            bell.alarm.due = due
            if due < bell.alarm.entry:
                threads.arm(bell.alarm, due)
            bell.alarm.due = threads.NEVER
        due = time.monotonic() + 0.01
        rang = len(bell.rang)
        bell.event.clear()
        bell.alarm.due = due
        if due < bell.alarm.entry:
            threads.arm(bell.alarm, due)
        assert bell.event.wait(5) or len(bell.rang) > rang
        bell.alarm.stop()
        return bell.rang[-1] - due

    tasks = [Task(race) for _ in range(4)]
    assert all(task.result() < 1 for task in tasks)


# --- helpers that may be left behind --------------------------------------------------------


def test_abandonable_returns_and_raises_what_the_function_does() -> None:
    assert threads.abandonable("test", lambda: 5, CancelToken()) == 5
    with pytest.raises(OSError, match="no such host"):
        threads.abandonable("test", _no_host, CancelToken())


def _no_host() -> None:
    raise OSError("no such host")


def test_abandonable_leaves_its_thread_behind_when_it_is_stopped() -> None:
    stop, work = CancelToken(), Held()
    caller = Task(lambda: threads.abandonable("test", work, stop))
    assert work.begun.wait(5)
    stopped = time.monotonic()
    stop.cancel()
    assert isinstance(caller.error(), FutureTimeout)
    assert caller.ended - stopped < 1
    work.go.set()


def test_abandonable_with_a_token_cancelled_before_does_not_wait() -> None:
    stop, work = CancelToken(), Held()
    stop.cancel()
    with pytest.raises(FutureTimeout):
        threads.abandonable("test", work, stop)
    work.go.set()


def test_r08_abandonable_without_a_thread_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = CancelToken()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError):
            threads.abandonable("test", lambda: 1, stop)
    assert not stop._callbacks


# --- exit -----------------------------------------------------------------------------------


class Leaving:
    def __init__(self, order: int, left: List[int], error: Any = None) -> None:
        self._exit_order = order
        self._left = left
        self._error = error

    def _at_exit(self) -> None:
        self._left.append(self._exit_order)
        if self._error is not None:
            raise self._error


def test_r04_exit_goes_in_order_and_through_what_raises(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    left: List[int] = []
    monkeypatch.setattr(threads.lifecycle, "_exits", weakref.WeakSet())
    monkeypatch.setattr(threads.lifecycle, "_exiting", False)
    things = [
        Leaving(2, left),
        Leaving(0, left, ValueError("stuck")),
        Leaving(1, left, KeyboardInterrupt()),
        Leaving(3, left),
    ]
    for thing in things:
        threads.at_exit(thing)
    gone = Leaving(9, left)
    threads.at_exit(gone)
    del gone
    with caplog.at_level(logging.WARNING):
        threads.lifecycle._run_exits()
    assert left == [0, 1, 2, 3]
    assert threads.exiting()
    assert "could not be closed at exit" in caplog.text
    assert "interrupted" in caplog.text


def test_r05_a_pool_takes_nothing_once_exit_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = threads.WorkerPool(1)
    monkeypatch.setattr(threads.lifecycle, "_exiting", True)
    with pytest.raises(RuntimeError, match="no more work"):
        pool.submit(lambda: None)
    assert pool.shutdown(join=1)
