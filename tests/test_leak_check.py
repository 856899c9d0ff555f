"""The leak check of conftest.py, run on tests that leak and on tests that do not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

SUITE = """
import gc
import socket
import threading

import pytest

from agentstream.testing import ScriptedServer

kept = []


def start(function, **options):
    thread = threading.Thread(target=function, daemon=True, **options)
    thread.start()
    kept.append(thread)


def test_leaks_a_thread():
    start(threading.Event().wait)


def test_leaks_a_socket():
    kept.append(socket.socket())


def test_leaks_half_a_server():
    server = ScriptedServer()
    kept.append(server)


def test_leaks_and_fails():
    kept.append(socket.socket())
    raise AssertionError("on its own account")


def test_leaks_nothing():
    with socket.socket():
        pass


def test_ends_late():
    stop = threading.Event()
    start(lambda: stop.wait(0.05))


class Cycle:
    def __init__(self):
        self.me = self
        self.socket = socket.socket()

    def __del__(self):
        self.socket.close()


def test_leaves_a_cycle():
    gc.disable()
    Cycle()
    gc.enable()


def test_clock_may_stay():
    start(threading.Event().wait, name="agentstream-clock")


@pytest.mark.leak_exempt
def test_exempt():
    kept.append(socket.socket())


@pytest.fixture(scope="session")
def session_server():
    with ScriptedServer() as server:
        yield server


@pytest.fixture(scope="module")
def module_server():
    with ScriptedServer() as server:
        yield server


def test_higher_scope(session_server):
    pass


def test_higher_scope_asked_for_half_way(request):
    request.getfixturevalue("module_server")


def test_shipped_fixtures(scripted_server, scripted_tls_server):
    assert scripted_server.url.startswith("http://")
    assert scripted_tls_server.url.startswith("https://")
"""


def test_leaks_fail_a_test_and_nothing_else_does(tmp_path):
    conftest = Path(__file__).with_name("conftest.py").read_text(encoding="utf-8")
    assert conftest.count("SETTLE = 2.0") == 1
    quick = conftest.replace("SETTLE = 2.0", "SETTLE = 0.6")
    (tmp_path / "conftest.py").write_text(quick, encoding="utf-8")
    (tmp_path / "test_suite.py").write_text(SUITE, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "--tb=line", "--strict-markers"]
    command += ["-p", "no:cacheprovider", "-p", "agentstream.testing.pytest_plugin"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        [*command, "test_suite.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = re.findall(r"^(ERROR|FAILED|PASSED) test_suite.py::(\w+)", done.stdout, re.MULTILINE)
    errors = {name for outcome, name in lines if outcome == "ERROR"}
    passed = {name for outcome, name in lines if outcome == "PASSED"}
    assert errors == {
        "test_leaks_a_thread",
        "test_leaks_a_socket",
        "test_leaks_half_a_server",
    }, done.stdout
    assert {name for outcome, name in lines if outcome == "FAILED"} == {"test_leaks_and_fails"}
    assert passed - errors == {
        "test_leaks_nothing",
        "test_ends_late",
        "test_leaves_a_cycle",
        "test_clock_may_stay",
        "test_exempt",
        "test_higher_scope",
        "test_higher_scope_asked_for_half_way",
        "test_shipped_fixtures",
    }, done.stdout
    assert "socket:[" in done.stdout
