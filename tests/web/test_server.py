"""Serving: a server's start and end, hosts, connections that stay idle, descriptors that run out."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import urllib.parse

import pytest
import requests

from agentstream import Runtime
from agentstream.errors import ConfigError
from agentstream.web import create_app
from agentstream.web.server import Server, is_loopback, listen
from tests.kit.support import wait_until
from tests.kit.web_support import site


def test_loopback_is_told_from_elsewhere():
    assert is_loopback("127.0.0.1")
    assert is_loopback("localhost")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("192.0.2.1")
    with pytest.raises(ConfigError, match="no address"):
        is_loopback("no.such.host.invalid")


def test_a_server_is_stopped_twice_and_its_port_is_free_again():
    with Runtime() as runtime:
        sock = listen("127.0.0.1", 0)
        port = sock.getsockname()[1]
        server = Server(create_app(runtime, max_streams=2), sock).start()
        assert requests.get(server.url + "/healthz").status_code == 200
        assert server.stop()
        assert server.stop()
        listen("127.0.0.1", port).close()
        with pytest.raises(requests.ConnectionError):
            requests.get(server.url + "/healthz")


def test_b22_idle_and_half_open_connections_keep_nobody_out(monkeypatch):
    monkeypatch.setattr("agentstream.web.server._IDLE_S", 1)
    monkeypatch.setattr("agentstream.web.server._CLEANUP_S", 1)
    with site(max_streams=2) as it, contextlib.ExitStack() as stack:
        host, port = urllib.parse.urlsplit(it.url).netloc.split(":")
        for number in range(520):
            sock = stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
            if number % 2:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: 127")
        assert requests.get(it.url + "/healthz", timeout=15).status_code == 200


def test_b22_out_of_descriptors_it_waits_and_says_so_once(caplog):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with site() as it, contextlib.ExitStack() as stack:
        assert requests.get(it.url + "/healthz", timeout=60).status_code == 200
        used = len(os.listdir("/proc/self/fd"))
        socks = [socket.socket() for _ in range(8)]
        for sock in socks:
            stack.enter_context(sock)
            sock.setblocking(False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, hard))
        try:
            address = urllib.parse.urlsplit(it.url)
            for sock in socks:
                sock.connect_ex((address.hostname, address.port))
            spent = time.process_time()
            wait_until(lambda: "no connection can be taken" in caplog.text)
            threading.Event().wait(1.0)
            assert time.process_time() - spent < 0.5
            assert caplog.text.count("no connection can be taken") == 1
            assert "Traceback" not in caplog.text
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        stack.close()
        assert requests.get(it.url + "/healthz", timeout=60).status_code == 200
