"""ScriptedServer: what happens at accept, how it closes, and what its package needs.

Mostly raw sockets: what a client library would make of it is not the question.
"""

from __future__ import annotations

import ast
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import agentstream.testing
from agentstream.testing import (
    Callback,
    Cut,
    Drip,
    Gate,
    Hang,
    KeepOpen,
    Pause,
    Reset,
    ScriptedServer,
)
from tests.kit.raw_http import BOUND, CHUNKED, GET, asked, connected, read, read_head


@pytest.mark.parametrize(
    "request_bytes",
    [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"],
)
def test_client_that_wants_no_keep_alive(server, request_bytes):
    server.reply("x", framing="length")
    with asked(server, request_bytes) as sock:
        assert read(sock).endswith(b"\r\nConnection: close\r\n\r\nx")


# --- at accept ---


def test_on_connect_comes_before_the_request(server):
    server.on_connect(Reset())
    server.on_connect(b"220 mail ready\r\n", Cut())
    server.reply("x", framing="close")
    with pytest.raises(ConnectionResetError), connected(server) as sock:  # connect may tell it
        sock.recv(1)
    with connected(server) as sock:
        assert read(sock) == b"220 mail ready\r\n"
    with asked(server) as sock:
        assert read(sock).endswith(b"x")
    assert server.outcomes == {1: "reset", 2: "cut", 3: "done"}


def test_on_connect_for_every_connection(server):
    server.on_connect(Hang(), repeat=True)
    for _ in range(2):
        with asked(server) as sock:
            sock.settimeout(0.02)
            with pytest.raises(socket.timeout):
                sock.recv(1)
    assert server.wait_client_gone(count=2)
    assert server.requests == []
    server.on_connect(repeat=True)
    server.reply("x", framing="close")
    with asked(server) as sock:
        assert read(sock).endswith(b"x")


def test_waits_say_when_time_is_up(server):
    server.default(Hang())
    assert not server.wait_connections(timeout=0.01)
    assert not server.wait_requests(timeout=0.01)
    assert not server.wait_closed(1, timeout=0.01)
    with asked(server):
        assert server.wait_requests()
        assert not server.wait_requests(2, timeout=0.01)
        assert not server.wait_idle(timeout=0.01)


# --- close ---


def test_close_ends_every_script_at_once():
    gate = Gate()
    server = ScriptedServer()
    scripts = [gate, Pause(60), Hang(), Drip(b"xx", every=60), KeepOpen(), b"x" * 50_000_000]
    with contextlib.ExitStack() as stack:
        server.on_connect(Hang())
        hung = stack.enter_context(connected(server))
        for script in scripts * 3:
            server.reply(script)
            sock = stack.enter_context(asked(server))
            read_head(sock)
        idle = stack.enter_context(connected(server))
        half = stack.enter_context(asked(server, b"GET / HT"))
        assert gate.wait_reached(count=3)
        assert server.wait_connections(3 * len(scripts) + 3)
        start = time.monotonic()
        server.close()
        assert time.monotonic() - start < 4.0
        for sock in (idle, half, hung):
            assert sock.recv(1) == b""
        server.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("agentstream-testing")]
    assert set(server.outcomes.values()) <= {"server_closed", "done"}
    assert server.open_connections == server.active == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), BOUND)


def test_close_from_a_callback(server):
    server.reply("x", Callback(server.close), "y")
    with asked(server) as sock:
        assert read(sock) == CHUNKED + b"1\r\nx\r\n"


def test_close_does_not_wait_for_ever(server, monkeypatch, caplog):
    monkeypatch.setattr(agentstream.testing.server, "_CLOSE_BOUND", 0.05)
    stuck, entered = threading.Event(), threading.Event()
    server.reply(Callback(entered.set), Callback(stuck.wait))
    with asked(server) as sock:
        assert entered.wait(BOUND)
        server.close()
        assert "agentstream-testing-connection-1 is stuck" in caplog.text
        stuck.set()
        assert read(sock) == CHUNKED


def test_the_same_port_again(server):
    server.close()
    with ScriptedServer(port=server.port) as again:
        again.reply("x", framing="close")
        with asked(again) as sock:
            assert read(sock).endswith(b"x")


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors from 0 up")
def test_server_outlives_a_lack_of_descriptors(server):
    import resource

    server.reply("x", framing="close")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as sock:
        sock.settimeout(0.1)
        lowest_free = os.dup(sock.fileno())
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            sock.connect(("127.0.0.1", server.port))
            sock.sendall(GET)
            with pytest.raises(socket.timeout):
                sock.recv(1)
            assert server.connections == 0
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        sock.settimeout(BOUND)
        assert read(sock).endswith(b"x")


def test_many_connections_at_once(server):
    gate = Gate()
    server.default(gate, "x", framing="close")
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(asked(server)) for _ in range(100)]
        assert gate.wait_reached(count=100)
        assert server.active == server.open_connections == 100
        gate.open()
        assert all(read(sock).endswith(b"x") for sock in socks)
    assert server.connections == 100


# --- the package ---


#: A ChatClient, tools, a store's tests, what records a client need what they are made of.
NEEDS_MORE = {"client", "mcp", "checkpoints", "queues", "shared", "shared_process", "stores"}
NEEDS_MORE |= {"cassette", "pytest_plugin", "recorder", "tape"}


def test_package_needs_no_requests_and_no_pytest():
    imported = set()
    for path in Path(agentstream.testing.__file__).parent.glob("*.py"):
        if path.stem in NEEDS_MORE:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            imported |= set(names)
    ours = {name for name in imported if name.startswith("agentstream")}
    assert not {name for name in ours if not name.startswith("agentstream.testing")}
    assert not imported & {"pytest", "requests", "urllib3"}
    code = "import sys, agentstream.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0
