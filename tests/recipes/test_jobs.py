"""docs/jobs.rst on RQ, on Dramatiq and without a queue: each message is sent twice, each run once."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import signal
import subprocess

import pytest

from agentstream.testing import ScriptedServer, text_chunks
from tests.kit.jobs_support import states, write_block, write_jobs
from tests.kit.programs import Program
from tests.kit.recipes import lines_of, started
from tests.kit.redis_server import RedisServer

TWICE = """
open("go", "w").close()
runs = [jobs.start("reply", "tea") for _ in range(2)] + [jobs.start("slow", "tea")]
if jobs.send is not None:
    for run in runs:
        jobs.send(run)
say(*map(end, runs))
"""


def check(folder: pathlib.Path, redis: RedisServer, model: ScriptedServer, source: str) -> None:
    with Program(source + TWICE, cwd=folder) as driver:
        assert driver.finish() == 0, (driver.errors, driver.lines, lines_of(folder))
    assert driver.lines == ["ready", "Well done. Well done. TEA"]
    assert len(model.requests) == 4
    assert (folder / "began").read_text() == "tea\n"
    assert [state.status for state in states(redis)] == ["completed"] * 3


@pytest.fixture
def model(server: ScriptedServer) -> ScriptedServer:
    for _ in range(4):
        server.reply(*text_chunks("Well done."))
    return server


@pytest.mark.skipif(importlib.util.find_spec("rq") is None, reason="rq is not installed")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="RQ's worker forks")
def test_k18_k22_on_rq_whose_forks_leave_by_exit(
    model: ScriptedServer, tmp_path: pathlib.Path
) -> None:
    with RedisServer() as redis, contextlib.ExitStack() as stack:
        source = write_jobs(tmp_path, redis, model, "tasks_rq")
        url = redis.url.replace("/0", "/1")
        command = ["-m", "rq.cli", "worker", "--quiet", "--url", url]
        stack.enter_context(started(tmp_path, *command, stdout=subprocess.DEVNULL))
        check(tmp_path, redis, model, source)


@pytest.mark.skipif(importlib.util.find_spec("dramatiq") is None, reason="no dramatiq here")
def test_k18_on_dramatiq(model: ScriptedServer, tmp_path: pathlib.Path) -> None:
    with RedisServer() as redis, contextlib.ExitStack() as stack:
        source = write_jobs(tmp_path, redis, model, "tasks_dramatiq")
        command = ["-m", "dramatiq", "tasks_dramatiq", "--processes", "1", "--threads", "4"]
        worker = stack.enter_context(started(tmp_path, *command, stdout=subprocess.DEVNULL))
        check(tmp_path, redis, model, source)
        worker.terminate()
        worker.wait(20)


def test_a_worker_without_a_queue(model: ScriptedServer, tmp_path: pathlib.Path) -> None:
    with RedisServer() as redis, contextlib.ExitStack() as stack:
        source = write_jobs(tmp_path, redis, model).replace("import tasks as tasks", "")
        write_block(tmp_path, "worker.py")
        worker = stack.enter_context(started(tmp_path, "worker.py"))
        check(tmp_path, redis, model, source)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0, lines_of(tmp_path)
