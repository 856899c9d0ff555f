"""The steps of a script: drips, pauses, gates, cuts, resets, callbacks."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from agentstream.testing import (
    Action,
    Callback,
    Cut,
    Drip,
    Gate,
    KeepOpen,
    Pause,
    Raw,
    Reset,
    ScriptedServer,
)
from tests.kit.raw_http import BOUND, CHUNKED, EVENT_STREAM, GET, OK, asked, read, read_head


def test_before_headers(server):
    gate = Gate()
    server.reply("x", before_headers=[b"HTTP/1.1 103 Early Hints\r\n\r\n", gate], framing="raw")
    server.reply(before_headers=[Reset()])
    server.reply(before_headers=[Cut()])
    with asked(server) as sock:
        assert read_head(sock) == b"HTTP/1.1 103 Early Hints\r\n\r\n"
        gate.open()
        assert read(sock) == b"x"
    with asked(server) as sock, pytest.raises(ConnectionResetError):
        sock.recv(1)
    with asked(server) as sock:
        assert sock.recv(1) == b""
    assert server.outcomes == {1: "done", 2: "reset", 3: "cut"}


def test_headers_every_drips_the_head(server):
    server.reply(headers_every=30)
    server.reply("x", headers_every=0.0001, framing="close")
    with asked(server) as sock:
        assert sock.recv(100) == b"H"
    assert server.wait_client_gone()
    with asked(server) as sock:
        assert read(sock) == OK + EVENT_STREAM + b"Connection: close\r\n\r\nx"


@pytest.mark.parametrize("framing", ["chunked", "length", "close", "gzip"])
def test_reset_is_an_rst(server, framing):
    server.reply("hello", Reset(), framing=framing, length=100)
    with asked(server) as sock:
        read_head(sock)
        with pytest.raises(ConnectionResetError):
            read(sock)
    assert server.outcomes == {1: "reset"}


def test_bytes_before_a_reset_arrive(server):
    gate = Gate()
    server.reply("hello", gate, Reset())
    with asked(server) as sock:
        expected = CHUNKED + b"5\r\nhello\r\n"
        assert read(sock, len(expected)) == expected
        gate.open()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_cut_is_a_fin_in_the_middle(server):
    server.reply("hello", Cut(), "never")
    server.reply("hello", Cut(), framing="length", length=10)
    with asked(server) as sock:
        assert read(sock) == CHUNKED + b"5\r\nhello\r\n"
    with asked(server) as sock:
        assert read(sock).endswith(b"\r\n\r\nhello")
    assert server.outcomes == {1: "cut", 2: "cut"}


def test_cut_is_a_fin_though_the_client_sent_ahead(server):
    gate = Gate()
    server.reply("hello", gate, Cut())
    with asked(server) as sock:
        read_head(sock)
        sock.sendall(b"more, unread" * 1000)
        gate.open()
        assert read(sock) == b"5\r\nhello\r\n"  # and no ConnectionResetError


def test_the_end_loses_nothing_though_the_client_sent_ahead(server):
    gate = Gate()
    body = b"x" * 200_000  # the server's kernel takes it at once, the client's does not
    server.reply(gate, body, framing="close")
    with socket.socket() as sock:
        sock.settimeout(BOUND)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(GET)
        read_head(sock)
        sock.sendall(b"more, unread" * 1000)
        gate.open()
        assert server.wait_closed(1)
        server.close()
        assert read(sock) == body


def test_drip_sends_wire_bytes_one_by_one(server):
    server.reply(Drip("hello", size=2, every=30), framing="chunked")
    server.reply(Drip(Raw(b"hello"), size=2, every=30), framing="close")
    with asked(server) as sock:
        read_head(sock)
        assert sock.recv(100) == b"5\r"
    assert server.wait_client_gone()
    with asked(server) as sock:
        read_head(sock)
        assert sock.recv(100) == b"he"
    assert server.wait_client_gone(count=2)


def test_drip_is_framed_as_one_piece_and_ends(server):
    server.reply(Drip("hello", every=0.001), Drip(b" world", size=4))
    with asked(server) as sock:
        expected = CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
        assert read(sock, len(expected)) == expected


def test_drip_keeps_its_pace(server):
    server.reply(Drip("hello", every=0.02), framing="close")
    start = time.monotonic()
    with asked(server) as sock:
        read(sock)
    assert time.monotonic() - start >= 4 * 0.02


def test_pause_pauses(server):
    server.reply(Pause(0.05), "x", framing="close")
    start = time.monotonic()
    with asked(server) as sock:
        read_head(sock)
        assert read(sock) == b"x"
    assert time.monotonic() - start >= 0.05


def test_gate_holds_and_lets_go(server):
    gate = Gate()
    server.default(gate, "x", framing="close")
    assert not gate.wait_reached(0.01)
    with asked(server) as one, asked(server) as two:
        assert gate.wait_reached(count=2)
        assert gate.reached == 2
        assert server.active == 2
        gate.open()
        assert read(one).endswith(b"x")
        assert read(two).endswith(b"x")
    gate.open()
    with asked(server) as sock:  # it stays open
        assert read(sock).endswith(b"x")
    assert server.wait_idle()


def test_gate_opened_first_does_not_stop(server):
    gate = Gate()
    gate.open()
    server.reply(gate, "x", framing="close")
    with asked(server) as sock:
        assert read(sock).endswith(b"x")
    assert gate.wait_reached()


def test_keep_open_leaves_the_terminator_out(server):
    server.reply("x", KeepOpen())
    with asked(server) as sock:
        assert read(sock, len(CHUNKED) + 6) == CHUNKED + b"1\r\nx\r\n"
        sock.settimeout(0.05)
        with pytest.raises(socket.timeout):
            sock.recv(1)
    assert server.wait_closed(1)
    assert server.outcomes == {1: "done"}
    assert not server.wait_client_gone(0)


def test_callback_runs_and_may_send(server):
    seen = []
    server.reply(
        Callback(lambda: seen.append(len(server.requests))), Callback(lambda: "x"), framing="close"
    )
    with asked(server) as sock:
        assert read(sock).endswith(b"\r\n\r\nx")
    assert seen == [1]


def test_what_a_callback_raises_reaches_the_excepthook(server, monkeypatch):
    raised = []
    monkeypatch.setattr(threading, "excepthook", lambda args: raised.append(args.exc_type))
    server.reply("x", Callback(lambda: 1 / 0))
    with asked(server) as sock:
        assert read(sock) == CHUNKED + b"1\r\nx\r\n"
    assert server.wait_closed(1)
    server.close()
    assert raised == [ZeroDivisionError]
    assert server.outcomes == {1: "error"}


def test_an_action_of_ones_own(server):
    class Twice(Action):
        body = b"xx"

        def play(self, stage):
            stage.write(stage.frame(b"x"))
            assert not stage.wait(0.001)
            stage.write(stage.frame(b"x"))

    server.reply(Twice(), framing="length")
    with asked(server) as sock:
        assert b"Content-Length: 2\r\n" in read_head(sock)
        assert read(sock, 2) == b"xx"


def test_what_is_no_piece_is_refused_at_once(server):
    with pytest.raises(TypeError, match="a piece is"):
        server.reply(["x"])
    with pytest.raises(ValueError, match="framing is one of"):
        server.reply("x", framing="chunky")
    with pytest.raises(ValueError, match="tls is"):
        ScriptedServer(tls="valid")
