"""docs/jobs.rst on Celery: real workers, prefork and threads, that are killed and given too much."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
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


FORKS = """
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

THREADS = """
# K20: its host is killed in the second step
os.remove("go")
os.remove("pids")
run = jobs.start("slow", "cake")
say(*lines("pids", 1))
lines("pids", 2)
open("go", "w").close()
say(end(run), lines("began", 4)[3:])

# K18: delivered twice to a pool of threads
runs = [jobs.start("slow", str(n)) for n in range(8)]
for run in runs:
    jobs.send(run)
say(list(map(end, runs)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="prefork needs fork")
def test_k18_k19_k20_k21_k22_on_celery_that_forks_and_with_threads(
    server: ScriptedServer, tmp_path: pathlib.Path
) -> None:
    for _ in range(6):
        server.reply(*text_chunks("Well done."))
    with RedisServer() as redis, contextlib.ExitStack() as stack:
        source = write_jobs(tmp_path, redis, server)
        options = ("--pool=prefork", "--concurrency=2", "--max-tasks-per-child=1")
        host = stack.enter_context(worker(tmp_path, *options))
        driver = stack.enter_context(Program(source + FORKS + THREADS, cwd=tmp_path))
        driver.expect("WorkflowFailed Interrupted 2")
        assert driver.process.stdout is not None
        pid = int(driver.process.stdout.readline())
        host.kill()
        os.kill(pid, signal.SIGKILL)
        stack.enter_context(worker(tmp_path, "--pool=threads", "--concurrency=4"))
        url = stack.enter_context(web(tmp_path))
        assert driver.finish() == 0, (driver.errors, driver.lines, lines_of(tmp_path))
        assert driver.lines == [
            "ready",
            "['Well done.', 'Well done.', 'Well done.']",
            "TEA ['tea']",
            "COFFEE ['coffee']",
            "WorkflowFailed Interrupted 2",
            "CAKE ['cake']",
            str([str(n) for n in range(8)]),
        ]
        follow_over_http(url)
        assert len(server.requests) == 6
        ended = sorted(state.status for state in states(redis))
        assert ended == ["completed"] * 18 + ["failed"]
