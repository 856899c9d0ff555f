"""Celery's recipes in docs/embedding.rst: a real prefork worker; tasks followed, stopped, resumed."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import sqlite3
import subprocess
from typing import Any, Dict, List, Optional

import pytest

from agentstream import SqliteStore
from agentstream.events.model import TERMINAL
from agentstream.testing import Gate, ScriptedServer, text_chunks, tool_call_chunks
from tests.kit.celery_support import FILES, celery_worker
from tests.kit.programs import Program
from tests.kit.recipes import BEGUN, MODEL, WORDS, lines_of, started, write
from tests.kit.redis_server import RedisServer
from tests.kit.support import check_events

NO_SUCH_MODEL: Any = {"status": 404, "content_type": "application/json", "framing": "length"}

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="prefork needs fork")

#: A worker on a Redis of the test's own.
REDIS = """
broker_url = result_backend = "URL"
worker_lost_wait = 0.2
"""

# What the document says of tasks that do not complete, and of the one that a shutdown waits for.
STOPPED = """
from celery.exceptions import SoftTimeLimitExceeded
from tasks import answer, app, runtime

def follow(task, *types):
    return runtime.event_stream.subscribe(workflow_id=task.id, after=0, types=types or None)

def begun(task):
    next(follow(task, "agent_llm_stream_chunk"))

limited = answer.apply_async(["limited"], soft_time_limit=1)
begun(limited)
stopped = answer.delay("stopped")
begun(stopped)
say(runtime.stop_generation(stopped.id))
say(sorted(stopped.get(timeout=60, interval=0.02).items()))
try:
    limited.get(timeout=60, interval=0.02)
except SoftTimeLimitExceeded:
    *_, last = follow(limited)
    say("limited", last.type, last.data["output"])
failed = answer.delay("failed")
try:
    failed.get(timeout=60, interval=0.02)
except Exception as error:
    say("failed", type(error).__name__, error)
finished = answer.delay("finished")
begun(finished)
app.control.shutdown()
say("shutting down")
say(sorted(finished.get(timeout=60, interval=0.02).items()))
"""


def follow_a_task(folder: pathlib.Path, model: ScriptedServer) -> None:
    gate = Gate()
    model.reply(*WORDS[:2], gate, *WORDS[2:])
    with started(folder, "-u", "follow.py", "Hi", stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        assert follower.stdout.read(5) == "Hello", lines_of(folder)  # while the task runs
        gate.open()
        assert follower.communicate(timeout=60)[0] == " world!\ncompleted\n"
        assert follower.returncode == 0


def stop_tasks(folder: pathlib.Path, model: ScriptedServer) -> None:
    gate = Gate()
    for _ in range(2):
        model.reply(*BEGUN)
    model.reply(b'{"error": {"message": "no such model"}}', **NO_SUCH_MODEL)
    model.reply(*WORDS[:2], gate, *WORDS[2:])
    with Program(STOPPED, cwd=folder) as driver:
        driver.expect("shutting down")
        gate.open()
        assert driver.finish() == 0, driver.errors
    assert driver.lines[:3] == [
        "True",
        "[('output', 'Hello'), ('status', 'cancelled')]",
        "limited workflow_cancelled Hello",
    ]
    assert re.fullmatch(r"failed WorkflowFailed .* HTTP 404: no such model.*", driver.lines[3])
    assert driver.lines[4:] == [
        "shutting down",
        "[('output', 'Hello world!'), ('status', 'completed')]",
    ]


@needs_fork
def test_celery_tasks_are_followed_and_stopped(server, tmp_path):
    write(tmp_path, "tasks.py", (MODEL, server.url))
    write(tmp_path, "follow.py")
    with celery_worker(tmp_path, "tasks") as worker:
        follow_a_task(tmp_path, server)
        stop_tasks(tmp_path, server)
        assert worker.wait(60) == 0, lines_of(tmp_path)
    with SqliteStore(tmp_path / "runs.db") as log:
        states = {state.workflow_id: state.status for state in log.runs()}
        assert sorted(states.values()) == ["cancelled"] * 2 + ["completed"] * 2 + ["failed"]
        for run in states:
            check_events(log.read(workflow_id=run, after=0, limit=100))


# --- a worker that is killed ----------------------------------------------------------------

# A task, to be killed in its second step, then to wait for an answer in its third.
RESUMED = """
from reviews import work

task = work.delay("tea")
while task.state != "SUSPENDED":
    threading.Event().wait(0.02)
say("suspended")
say(task.get(timeout=60, interval=0.02))
"""


def worker_of(folder: pathlib.Path, run: str) -> Optional[int]:
    """The process that has a run."""
    with contextlib.closing(sqlite3.connect(folder / "runs.db")) as log:
        found = log.execute(
            "SELECT pid FROM owners JOIN runs ON owner = owners.id WHERE workflow_id = ?", (run,)
        ).fetchone()
    return None if found is None else int(found[0])


def check_log(folder: pathlib.Path, run: str) -> None:
    """A run that was killed once, waited for an answer once, and did each thing once."""
    with SqliteStore(folder / "runs.db") as log:
        state = log.run(run)
        events = log.read(workflow_id=run, after=0, limit=1000)
    assert state is not None and state.status == "completed"
    assert [event.offset for event in events] == list(range(1, len(events) + 1))
    assert [event.type in TERMINAL for event in events].index(True) == len(events) - 1
    kinds: Dict[str, List[Any]] = {}
    for event in events:
        kinds.setdefault(event.type.value, []).append(event)
    resumed = [event.data for event in kinds["workflow_resumed"]]
    assert [(data["reason"], data["deaths"], data["step"]) for data in resumed] == [
        ("interrupted", 1, "1"),
        ("suspended", 1, "2"),
    ]
    assert list(resumed[0]["completed"]) == ["0"]
    assert [answer["by"] for answer in resumed[1]["answers"]] == ["ann"]
    done = [event.data["step"] for event in kinds["workflow_step_completed"]]
    assert done == ["0", "1", "2"]
    made = [event.data["arguments"] for event in kinds["tool_call_completed"]]
    assert made == ['{"text":"a draft"}', '{"text":"the end"}']


@needs_fork
@pytest.mark.parametrize("broker", ["files", "redis"])
def test_celery_task_goes_on_where_a_killed_worker_was(server, tmp_path, broker):
    write(tmp_path, "reviews.py", (MODEL, server.url))
    write(tmp_path, "approve.py")
    server.reply(*tool_call_chunks(("save", {"text": "a draft"})))
    server.reply(*text_chunks("A draft."))
    server.reply(*BEGUN)  # the second step, in which the worker is killed
    server.reply(*text_chunks("Well done."))
    server.reply(*tool_call_chunks(("save", {"text": "the end"})))
    server.reply(*text_chunks("Saved."))
    with contextlib.ExitStack() as stack:
        settings = FILES
        if broker == "redis":
            settings = REDIS.replace("URL", stack.enter_context(RedisServer()).url)
        stack.enter_context(celery_worker(tmp_path, "reviews", settings))
        driver = stack.enter_context(Program(RESUMED, cwd=tmp_path))
        assert server.wait_requests(3, timeout=60), lines_of(tmp_path)
        with SqliteStore(tmp_path / "runs.db") as log:
            (run,) = [state.workflow_id for state in log.runs()]
            first = worker_of(tmp_path, run)
            assert first is not None
            os.kill(first, signal.SIGKILL)
            driver.expect("suspended")
        assert len(server.requests) == 5  # the first step's two were not made again
        assert (tmp_path / "saved.txt").read_text() == "a draft\n"
        with started(tmp_path, "approve.py", run) as approved:
            assert approved.wait(60) == 0, lines_of(tmp_path)
        assert driver.finish() == 0, (driver.errors, lines_of(tmp_path))
    assert driver.lines == ["suspended", "Saved."]
    assert (tmp_path / "saved.txt").read_text() == "a draft\nthe end\n"
    assert len(server.requests) == 6
    check_log(tmp_path, run)
