"""lock=: one run at a time has a name, in this process and in others."""

from __future__ import annotations

import os
import pathlib
import time
from typing import Any, Iterator

import pytest

from agentstream import Agent, Busy, ConfigError, LogError, Runtime, Workflow, WorkflowFailed
from agentstream.runtime.lock import NamedLock
from tests.kit.programs import Program
from tests.kit.support import saying
from tests.kit.work import Holding


@pytest.fixture
def name() -> Iterator[str]:
    """A name of the test's own; its file goes afterwards."""
    name = f"test-{os.getpid()}-{time.monotonic_ns()}"
    yield name
    with NamedLock(name) as lock:
        path = pathlib.Path(lock._file.name)
    path.unlink()


def test_a_run_holds_it_until_it_is_over_however_that_ends(runtime: Runtime, name: str) -> None:
    client = Holding()
    agent = Agent("a", client=client)
    handle = runtime.submit(agent, "x", lock=name)
    client.wait_begun()
    with pytest.raises(Busy, match=f"lock {name} is held by process {os.getpid()}"):
        runtime.submit(agent, "x", lock=name)
    handle.cancel()
    handle.exception  # noqa: B018 - not waited for: the lock is free when the handle is done
    with pytest.raises(Exception, match="stopped"):
        handle.result(10)

    def fails(_: Any) -> None:
        raise ValueError("no")

    for _ in range(30):  # at once after the other
        assert runtime.run(Agent("a", client=saying("x")), "x", lock=name).output == "x"
        with pytest.raises(WorkflowFailed):
            runtime.run(Workflow("w", [fails]), "x", lock=name)


def test_what_does_not_begin_lets_go_of_it(runtime: Runtime, name: str) -> None:
    agent = Agent("a", client=saying("x"))
    runtime.run(agent, "x", workflow_id="w")
    with pytest.raises(LogError):
        runtime.run(agent, "x", workflow_id="w", lock=name)
    with Runtime(max_workers=1) as narrow:
        client = Holding()
        first = narrow.submit(Agent("a", client=client), "x")
        client.wait_begun()
        queued = narrow.submit(agent, "x", lock=name)
        queued.cancel()
        with pytest.raises(Exception, match="stopped"):
            queued.result(10)
        with NamedLock(name):
            pass
        client.go.cancel()
        first.result(10)
    with pytest.raises(RuntimeError, match="shut down"):
        narrow.submit(agent, "x", lock=name)
    assert runtime.run(agent, "x", lock=name).output == "x"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_another_process_is_kept_out_and_a_forked_child_keeps_nothing(name: str) -> None:
    source = """
    runtime = Runtime()
    gate = threading.Event()
    handle = runtime.submit(Workflow("w", [lambda _: gate.wait(30)]), "x", lock=arguments[0])
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(writing)
        os.read(reading, 1)  # has the file of the lock open as long as the parent lives
        os._exit(0)
    say("held")
    sys.stdin.readline()
    gate.set()
    handle.result(10)
    say("free")
    sys.stdin.readline()
    os.close(writing)
    os.waitpid(pid, 0)
    runtime.shutdown()
    """
    import subprocess  # noqa: PLC0415

    env = {"PYTHONWARNINGS": "ignore"}
    with Program(source, name, stdin=subprocess.PIPE, env=env) as program:
        stdin: Any = program.process.stdin
        program.expect("held")
        with pytest.raises(Busy, match=f"process {program.process.pid}"):
            NamedLock(name)
        stdin.write(b"\n")
        stdin.flush()
        program.expect("free")
        NamedLock(name).release()
        stdin.close()
        assert program.finish() == 0, program.errors


@pytest.mark.parametrize("wrong", ["", "../x", ".x", "a b", "a/b", "x" * 101, 3, b"x", True])
def test_a_name_that_cannot_be_used(runtime: Runtime, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="lock"):
        runtime.submit(Agent("a", client=saying("x")), "x", lock=wrong)
