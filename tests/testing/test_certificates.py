"""TLS: certificates, handshakes that hang or are refused, and ends with and without a notice."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time

import pytest
import requests

from agentstream.testing import Cut, Gate, Hang, Reset, ScriptedServer
from tests.kit.raw_http import BOUND, GET, WAITING, asked, connected, read, read_chunk, read_head


def test_tls_serves_and_its_certificate_verifies(tls_server):
    tls_server.default("hello", framing="length")
    assert tls_server.url.startswith("https://127.0.0.1:")
    for host in ("127.0.0.1", "localhost"):
        url = f"https://{host}:{tls_server.port}"
        assert requests.get(url, verify=tls_server.ca_file, timeout=BOUND).text == "hello"


def test_tls_ends_with_a_close_notify(tls_server):
    tls_server.reply("hello", framing="close")
    with asked(tls_server) as sock:
        read_head(sock)
        assert read(sock, 5) == b"hello"
        # Asked below TLS: whether a missing one raises depends on the Python.
        assert socket.socket.recv(sock, 100)
        assert socket.socket.recv(sock, 100) == b""


def test_tls_cut_sends_no_close_notify(tls_server):
    tls_server.reply("hello", Cut(), framing="close")
    with asked(tls_server) as sock:
        read_head(sock)
        assert read(sock, 5) == b"hello"
        assert socket.socket.recv(sock, 100) == b""
    assert tls_server.outcomes == {1: "cut"}


def test_tls_reset_is_an_rst(tls_server):
    gate = Gate()
    tls_server.reply("hello", gate, Reset())
    with asked(tls_server) as sock:
        read_head(sock)
        assert read_chunk(sock) == b"hello"
        gate.open()
        # Asked below TLS: the ssl module of some Pythons (3.11.7) calls an RST an SSLEOFError.
        with pytest.raises(ConnectionResetError):
            socket.socket.recv(sock, 1)


@pytest.mark.parametrize("action", sorted(WAITING))
def test_tls_client_gone_is_noticed(tls_server, action):
    tls_server.reply("x", WAITING[action]())
    with asked(tls_server) as sock:
        read_head(sock)
    assert tls_server.wait_client_gone()


def test_tls_hang_before_the_handshake(tls_server):
    tls_server.on_connect(Hang())
    with connected(tls_server, tls=None) as plain:
        plain.settimeout(0.05)
        context = ssl.create_default_context(cafile=tls_server.ca_file)
        with pytest.raises(socket.timeout):
            context.wrap_socket(plain, server_hostname="127.0.0.1")
    assert tls_server.wait_client_gone()


def test_tls_pause_before_the_handshake_spoils_nothing(tls_server):
    gate = Gate()
    tls_server.on_connect(gate)
    tls_server.reply("x", framing="close")
    opener = threading.Thread(target=lambda: gate.wait_reached() and gate.open())
    opener.start()
    with asked(tls_server) as sock:
        assert read(sock).endswith(b"x")
    opener.join()


def test_tls_refused_by_the_client(tls_server):
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(tls_server.url, timeout=BOUND)
    assert tls_server.wait_closed(1)
    assert tls_server.outcomes == {1: "tls_failed"}
    assert tls_server.requests == []


def test_tls_expired():
    with ScriptedServer(tls="expired") as server:
        with pytest.raises(requests.exceptions.SSLError, match="certificate has expired"):
            requests.get(server.url, verify=server.ca_file, timeout=BOUND)
        server.reply("x", framing="close")
        context = ssl._create_unverified_context()
        with connected(server, tls=None) as plain, context.wrap_socket(plain) as sock:
            sock.sendall(GET)
            assert read(sock).endswith(b"x")


def test_tls_close_is_quick_and_removes_the_files():
    server = ScriptedServer(tls=True)
    assert os.path.exists(server.ca_file)
    server.default("x" * 50_000_000)
    with asked(server) as busy, connected(server), connected(server, tls=None):
        read_head(busy)
        start = time.monotonic()
        server.close()
        assert time.monotonic() - start < 4.0
    assert not os.path.exists(server.ca_file)
    assert not os.path.exists(os.path.dirname(server.ca_file))
