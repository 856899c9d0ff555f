"""Workers without a task queue, and workers that die: real processes.

The same in Redis is shown by tests/recipes/test_jobs_celery.py.
"""

from __future__ import annotations

import pathlib
import signal
import threading
import time
from typing import Any, Callable, List

import pytest

from agentstream import Checkpoints, RedisStore, Runtime, SqliteStore, Workflow, WorkflowFailed
from agentstream.events.store import EventStore
from agentstream.jobs import Jobs
from tests.kit.programs import Program
from tests.kit.redis_server import RedisServer, log_name
from tests.kit.support import Task, check_events, wait_until

Make = Callable[..., Jobs]
Open = Callable[[], EventStore]

#: A worker: its first step is quick, its second waits for a file, or kills its process.
WORKER = """
import pathlib
from agentstream.jobs import Jobs

where, folder, what = arguments
if where.startswith("redis"):
    url, _, name = where.partition("#")
    store = RedisStore(url, name, lease=0.5)
else:
    store = SqliteStore(where)
folder = pathlib.Path(folder)

def first(given):
    with open(folder / "first", "a") as file:
        file.write(given + chr(10))
    return given.upper()

def second(given):
    say("second", given)
    if what == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    while not (folder / "go").exists():
        threading.Event().wait(0.01)
    return given + "!"

jobs = Jobs(Runtime(event_stream=EventStream(store), grace=1.0), [Workflow("reply", [first, second])])
if what.startswith("leaves"):  # as RQ's work-horse does
    say(jobs.run(what.split()[1]).status)
    os._exit(0)
jobs.work(max=2)
say("over")
"""


@pytest.fixture
def file(tmp_path: pathlib.Path) -> str:
    return str(tmp_path / "runs.db")


@pytest.fixture(params=["sqlite", "redis"])
def where(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "runs.db")
    redis: RedisServer = request.getfixturevalue("redis")
    return f"{redis.url}#{log_name()}"


def open_log(where: str) -> EventStore:
    if not where.startswith("redis"):
        return SqliteStore(where)
    url, _, name = where.partition("#")
    return RedisStore(url, name, lease=0.5)


def events_of(jobs: Jobs, run: str) -> List[Any]:
    return jobs.runtime.event_stream.store.read(workflow_id=run, after=0, limit=1000)


def test_a_worker_takes_what_is_queued_as_many_at_once_as_it_may(
    shared: Open, jobs_of: Make
) -> None:
    here: List[str] = []
    most, gate = [0], threading.Event()

    def step(given: str) -> str:
        here.append(given)
        most[0] = max(most[0], len(here))
        gate.wait(0.02)
        here.remove(given)
        return given.upper()

    web, worker = jobs_of(shared()), jobs_of(shared(), step)
    runs = [web.start("reply", f"tea {n}") for n in range(12)]
    working = Task(lambda: worker.work(max=3))
    assert [web.result(run, timeout=30) for run in runs] == [f"TEA {n}" for n in range(12)]
    assert most[0] == 3
    worker.stop()
    working.result()
    later = web.start("reply", "later")
    assert web.runtime.event_stream.store.run(later).status == "queued"  # type: ignore[union-attr]


def test_k20_another_worker_goes_on_with_the_step_in_which_one_was_killed(
    where: str, tmp_path: pathlib.Path, jobs_of: Make
) -> None:
    web = jobs_of(open_log(where), str.upper, str.upper)
    run = web.start("reply", "tea")
    with Program(WORKER, where, str(tmp_path), "waits") as one:
        one.expect("second TEA")
        with Program(WORKER, where, str(tmp_path), "waits") as other:
            one.process.send_signal(signal.SIGKILL)
            began = time.monotonic()
            other.expect("second TEA")
            assert time.monotonic() - began < 10
            (tmp_path / "go").touch()
            assert web.result(run, timeout=20) == "TEA!"
            other.process.send_signal(signal.SIGTERM)
            other.expect("over")
            assert other.finish() == 0, other.errors
    assert (tmp_path / "first").read_text() == "tea\n"
    check_events(events_of(web, run))


def test_a_worker_that_is_told_to_end_leaves_its_runs_to_another(
    file: str, tmp_path: pathlib.Path, jobs_of: Make
) -> None:
    web = jobs_of(open_log(file), str.upper, str.upper)
    run = web.start("reply", "tea")
    for number in (signal.SIGTERM, signal.SIGINT):
        with Program(WORKER, file, str(tmp_path), "waits") as worker:
            worker.expect("second TEA")
            worker.process.send_signal(number)
            worker.expect("over")
            assert worker.finish() == 0, worker.errors
    state = web.runtime.event_stream.store.run(run)
    assert state is not None and state.status == "interrupted"
    (tmp_path / "go").touch()
    with Program(WORKER, file, str(tmp_path), "waits") as worker:
        assert web.result(run, timeout=20) == "TEA!"
    assert (tmp_path / "first").read_text() == "tea\n"
    check_events(events_of(web, run))


def test_k21_a_run_that_kills_each_of_its_workers_fails_once(
    file: str, tmp_path: pathlib.Path, jobs_of: Make
) -> None:
    web = jobs_of(open_log(file), str.upper, str.upper, recover=1)
    run = web.start("reply", "tea")
    for _ in range(2):
        with Program(WORKER, file, str(tmp_path), "dies") as worker:
            worker.expect("second TEA")
            assert worker.process.wait(20) == -signal.SIGKILL
    web.send = lambda _: None
    web.watch()  # somebody looks
    with pytest.raises(WorkflowFailed, match=r"Interrupted: .* died; so did 1 before"):
        web.result(run, timeout=20)
    assert web.run(run)[1:3] == ("ended", "failed")
    check_events(events_of(web, run))


def test_k22_the_end_is_in_the_log_when_a_worker_leaves_by_exit(
    file: str, tmp_path: pathlib.Path, jobs_of: Make
) -> None:
    (tmp_path / "go").touch()
    web = jobs_of(open_log(file), str.upper, str.upper)
    run = web.start("reply", "tea")
    with Program(WORKER, file, str(tmp_path), f"leaves {run}") as worker:
        worker.expect("completed")
        assert worker.finish() == 0, worker.errors
    state = web.runtime.event_stream.store.run(run)
    assert state is not None and (state.status, state.output) == ("completed", "TEA!")
    check_events(events_of(web, run))


def test_a_worker_ends_with_its_runtime(open_store: Open, jobs_of: Make) -> None:
    jobs = jobs_of(open_store())
    working = Task(jobs.work)
    assert jobs.result(jobs.start("reply", "tea"), timeout=20) == "TEA"
    jobs.runtime.shutdown()
    working.result()


def test_a_run_that_cannot_be_taken_ends_no_worker_and_leaves_no_trace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Keys:
        are_away = False

        def encode(self, data: bytes) -> bytes:
            if self.are_away:
                raise KeyError("the service that has the keys is away")
            return data

        def decode(self, data: bytes) -> bytes:
            return data

    keys = Keys()
    with Runtime(checkpoints=Checkpoints(codec=keys)) as runtime:
        jobs = Jobs(runtime, [Workflow("reply", [str.upper])], resend=0.2)
        run = jobs.start("reply", "tea")
        keys.are_away = True
        working = Task(jobs.work)
        wait_until(lambda: caplog.text.count("could not be taken") > 1)
        assert runtime.event_stream.store.read(workflow_id=run) == []
        keys.are_away = False
        assert jobs.result(run, timeout=20) == "TEA"
        jobs.stop()
        working.result()
