"""docs/jobs.rst on Celery: real workers, prefork and threads, that are killed and given too much."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
from typing import Iterator

import pytest
import requests

from agentstream.testing import ScriptedServer, text_chunks
from tests.kit.jobs_support import states, write_block, write_jobs
from tests.kit.programs import Program
from tests.kit.recipes import lines_of, started
from tests.kit.redis_server import RedisServer
from tests.kit.support import free_port
from tests.kit.web_support import SSE


@contextlib.contextmanager
def worker(folder: pathlib.Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = ["-m", "celery", "-A", "tasks", "worker", *options]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    with started(folder, *command, *quiet, stdout=subprocess.DEVNULL) as process:
        yield process


PREFORK = """
# K22: each pool process leaves after one task
runs = [jobs.start("reply", "tea") for _ in range(3)]
say(sorted(map(end, runs)))

# K18: delivered five times at once, and after the end
run = jobs.start("slow", "tea")
for _ in range(4):
    jobs.send(run)
pid, = lines("pids", 1)
# K20: its process is killed in the second step
os.kill(int(pid), signal.SIGKILL)
lines("pids", 2)
open("go", "w").close()
say(end(run), lines("began", 1))
jobs.send(run)

# K19: the queue loses it
send, jobs.send = jobs.send, lambda _: None
run = jobs.start("slow", "coffee")
jobs.send = send
say(end(run), lines("began", 2)[1:])

# K21: it kills each of its workers
run = jobs.start("deadly", "cocoa")
say(end(run), len(lines("deaths", 2)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="prefork needs fork")
def test_k18_k19_k20_k21_k22_on_celery_that_forks(
    server: ScriptedServer, tmp_path: pathlib.Path
) -> None:
    for _ in range(6):
        server.reply(*text_chunks("Well done."))
    with RedisServer() as redis:
        source = write_jobs(tmp_path, redis, server)
        options = ("--pool=prefork", "--concurrency=2", "--max-tasks-per-child=1")
        with worker(tmp_path, *options), Program(source + PREFORK, cwd=tmp_path) as driver:
            assert driver.finish() == 0, (driver.errors, driver.lines, lines_of(tmp_path))
        assert driver.lines == [
            "ready",
            "['Well done.', 'Well done.', 'Well done.']",
            "TEA ['tea']",
            "COFFEE ['coffee']",
            "WorkflowFailed Interrupted 2",
        ]
        assert len(server.requests) == 6
        found = states(redis)
        assert [state.status for state in found] == ["failed"] + ["completed"] * 5


@contextlib.contextmanager
def web(folder: pathlib.Path) -> Iterator[str]:
    """Two web workers of the recipe; their URL."""
    write_block(folder, "web.py")
    port = free_port()
    command = ["-m", "gunicorn", "--worker-class", "gthread", "--workers", "2", "--threads", "8"]
    bind = ["--bind", f"127.0.0.1:{port}", "--log-level", "error"]
    with started(folder, *command, *bind, "web:application") as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def follow_over_http(url: str) -> None:
    """Start runs by whichever web worker takes the request, and follow each by another one."""
    for number in range(4):
        body = {"workflow": "slow", "input": f"web {number}"}
        answer = requests.post(f"{url}/workflows", json=body, timeout=20)
        assert answer.status_code == 201, answer.text
        with SSE(url, f"/workflows/{answer.json()['workflow_id']}/stream", timeout=30) as stream:
            *_, last = stream.events()
        assert (last.event, last.data["data"]["output"]) == ("workflow_completed", f"WEB {number}")


THREADS = """
run = jobs.start("slow", "tea")
for _ in range(4):
    jobs.send(run)
say(*lines("pids", 1))
lines("pids", 2)
open("go", "w").close()
say(end(run), lines("began", 1))
runs = [jobs.start("slow", str(n)) for n in range(8)]
say(list(map(end, runs)))
"""


def test_k18_k20_on_celery_with_threads_and_a_host_that_dies(
    server: ScriptedServer, tmp_path: pathlib.Path
) -> None:
    with RedisServer() as redis, contextlib.ExitStack() as stack:
        source = write_jobs(tmp_path, redis, server)
        hosts = [
            stack.enter_context(worker(tmp_path, "--pool=threads", "--concurrency=4", "-n", name))
            for name in ("one@%h", "other@%h")
        ]
        url = stack.enter_context(web(tmp_path))
        driver = stack.enter_context(Program(source + THREADS, cwd=tmp_path))
        driver.expect("ready")
        assert driver.process.stdout is not None
        pid = int(driver.process.stdout.readline())
        (host,) = [one for one in hosts if one.pid == pid]
        host.kill()
        assert driver.finish() == 0, (driver.errors, driver.lines, lines_of(tmp_path))
        assert driver.lines[1:] == ["TEA ['tea']", str([str(n) for n in range(8)])]
        follow_over_http(url)
        assert {state.status for state in states(redis)} == {"completed"}
