"""The child process: it ends with its parent, however that ends, and is not Ctrl-C's."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from agentstream.local import LocalServer, find_llama_server
from tests.kit.local_support import BOUND, ask, posix_only


def wait_gone(pid: int) -> None:
    """Return when the process, no child of ours, has ended; fails after a bound."""
    end = time.monotonic() + BOUND
    while True:
        try:
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2]
        except OSError:
            return
        if state.startswith("Z"):  # init has not come round yet
            return
        assert time.monotonic() < end, f"{pid} is still there"
        threading.Event().wait(0.01)


@pytest.mark.real_llama
def test_close_ends_the_child_and_may_be_called_twice(
    tmp_path: pathlib.Path, model_path: pathlib.Path
) -> None:
    spaced = tmp_path / "a model.gguf"
    os.link(model_path, spaced) if os.name == "posix" else shutil.copy(model_path, spaced)
    with LocalServer(spaced, api_key="sk-marker", n_parallel=1) as server:
        assert server.model == "a model"
        assert "error" in ask(server, "Hi")
        assert ask(server, "Hi", key="sk-marker")["choices"]
        assert b"sk-marker" not in pathlib.Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert "sk-marker" not in repr(server)
    server.close()
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)
    assert find_llama_server(server.url) is None
    assert repr(server) == "<LocalServer a model closed>"


@pytest.mark.real_llama
def test_dropped_without_close_it_ends_too(model_path: pathlib.Path) -> None:
    server = LocalServer(model_path, n_parallel=1)
    pid = server.pid
    del server
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


PARENT = """
import sys, os, signal, threading
from agentstream.local import LocalServer
server = LocalServer({path!r}, n_parallel=1)
print(server.pid, flush=True)
{then}
"""


def parent(path: pathlib.Path, then: str) -> subprocess.Popen[bytes]:
    code = PARENT.format(path=str(path), then=then)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def child_of(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


@posix_only
@pytest.mark.real_llama
def test_killed_with_9_the_parent_takes_the_child_along(model_path: pathlib.Path) -> None:
    with parent(model_path, "threading.Event().wait()") as process:
        pid = child_of(process)
        process.kill()
    wait_gone(pid)


@posix_only
@pytest.mark.real_llama
def test_a_fork_that_outlives_the_parent_does_not_keep_the_child(model_path: pathlib.Path) -> None:
    then = "if os.fork() == 0: sys.stdin.read(); os._exit(0)\nthreading.Event().wait()"
    with parent(model_path, then) as process:
        pid = child_of(process)
        process.kill()
        process.wait()
        assert process.stdin is not None
        wait_gone(pid)  # the fork, waiting for its stdin, is still there
        process.stdin.close()


@posix_only
@pytest.mark.real_llama
@pytest.mark.parametrize("then", ["sys.exit(3)", "raise RuntimeError", "os.fork() or sys.exit(0)"])
def test_the_parents_exit_without_close_ends_the_child(model_path: pathlib.Path, then: str) -> None:
    with parent(model_path, then) as process:
        pid = child_of(process)
        process.wait(BOUND)
    wait_gone(pid)


@posix_only
@pytest.mark.real_llama
def test_ctrl_c_is_the_parents_and_the_child_serves_until_it_closes(
    model_path: pathlib.Path,
) -> None:
    then = (
        "from agentstream.local import find_llama_server\n"
        "try:\n"
        "    print('ready', flush=True)\n"
        "    threading.Event().wait()\n"
        "except KeyboardInterrupt: print(find_llama_server(server.url), flush=True)"
    )
    with parent(model_path, then) as process:
        pid = child_of(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.killpg(process.pid, signal.SIGINT)
        said, errors = process.communicate(timeout=BOUND)
    assert said.strip().decode() == model_path.stem
    assert errors == b""
    assert process.returncode == 0
    wait_gone(pid)
