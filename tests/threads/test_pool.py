"""The worker pool: places, order, what work raises, fewer threads than asked for."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from typing import Any, Iterator, List

import pytest

from agentstream import threads
from agentstream.cancel import CancelToken
from tests.kit.support import wait_until
from tests.kit.work import Held, no_thread


@pytest.fixture
def pool() -> Iterator[threads.WorkerPool]:
    pool = threads.WorkerPool(3, "test")
    yield pool
    assert pool.shutdown(join=5)


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


def test_r05_a_pool_takes_nothing_once_exit_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = threads.WorkerPool(1)
    monkeypatch.setattr(threads.lifecycle, "_exiting", True)
    with pytest.raises(RuntimeError, match="no more work"):
        pool.submit(lambda: None)
    assert pool.shutdown(join=1)
