"""A connection: clients that leave are noticed, whatever they sent ahead."""

from __future__ import annotations

import socket
import struct

import pytest

from agentstream.testing import Gate, Hang, Pause, link
from tests.kit.raw_http import (
    CHUNKED,
    EVENT_STREAM,
    GET,
    OK,
    WAITING,
    asked,
    connected,
    read,
    read_head,
)


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("action", sorted(WAITING))
def test_client_gone_is_noticed(server, action, how, portable, monkeypatch):
    if portable:
        monkeypatch.setattr(link, "_HANGUP", 0)
    server.reply("x", WAITING[action]())
    with asked(server) as sock:
        assert read(sock, len(CHUNKED) + 6) == CHUNKED + b"1\r\nx\r\n"
        assert server.active == 1
        assert not server.wait_client_gone(0.01)
        if how == "rst":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert server.wait_client_gone()
    assert server.wait_idle()
    assert server.open_connections == 0
    assert server.outcomes == {1: "client_gone"}


@pytest.mark.skipif(not link._HANGUP, reason="this system does not tell")
def test_client_gone_is_noticed_though_it_sent_ahead(server):
    server.reply(Hang())
    with asked(server) as sock:
        read_head(sock)
        sock.sendall(GET)
    assert server.wait_client_gone()


def test_portable_wait_goes_on_though_the_client_sent_ahead(server, monkeypatch):
    monkeypatch.setattr(link, "_HANGUP", 0)
    gate = Gate()
    server.reply(gate, Pause(0.01), "x", framing="length")
    server.reply("y", framing="close")
    with asked(server) as sock:
        assert gate.wait_reached()
        sock.sendall(GET)
        gate.open()
        assert read(sock).endswith(b"\r\n\r\ny")


def test_client_gone_is_noticed_by_a_write(server):
    server.reply(b"x" * 50_000_000)  # more than buffers take
    with asked(server) as sock:
        read_head(sock)
        assert read(sock, 10)
    assert server.wait_client_gone()


def test_client_that_leaves_between_requests_is_done(server):
    server.reply("x", framing="length")
    with asked(server) as sock:
        assert read(sock, len(OK + EVENT_STREAM) + 22)
    with connected(server):
        pass
    assert server.wait_closed(1)
    assert server.wait_closed(2)
    assert server.outcomes == {1: "done", 2: "done"}
