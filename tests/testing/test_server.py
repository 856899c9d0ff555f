"""ScriptedServer does on the wire what its scripts say, byte for byte.

Mostly raw sockets: what a client library would make of it is not the question.
"""

from __future__ import annotations

import ast
import contextlib
import gzip
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import pytest
import requests

import agentstream.testing
from agentstream.testing import (
    Action,
    Callback,
    Cut,
    Drip,
    Gate,
    Hang,
    KeepOpen,
    Pause,
    Raw,
    Reply,
    Reset,
    ScriptedServer,
    link,
    recorded,
    sse,
    text_chunks,
    tool_call_chunks,
)

BOUND = 5.0
GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
EVENT_STREAM = b"Content-Type: text/event-stream\r\n"


@contextlib.contextmanager
def connected(server, tls=False):
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), BOUND))
        if server.ca_file and tls is not None:
            context = ssl.create_default_context(cafile=server.ca_file)
            sock = stack.enter_context(
                context.wrap_socket(sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False)
            )
        yield sock


@contextlib.contextmanager
def asked(server, request=GET):
    with connected(server) as sock:
        sock.sendall(request)
        yield sock


def read(sock, size=None):
    """Up to `size` bytes, or all until the end."""
    data = b""
    while size is None or len(data) < size:
        more = sock.recv(65536 if size is None else size - len(data))
        if not more:
            break
        data += more
    return data


def read_head(sock):
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        more = sock.recv(1)
        assert more, data
        data += more
    return data


def read_chunk(sock):
    line = b""
    while not line.endswith(b"\r\n"):
        line += read(sock, 1)
    data = read(sock, int(line, 16))
    assert read(sock, 2) == b"\r\n"
    return data


# --- framings ---

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + EVENT_STREAM + b"Transfer-Encoding: chunked\r\n\r\n"

KEPT_ALIVE = {
    "chunked": CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    "one-chunk": CHUNKED + b"b\r\nhello world\r\n0\r\n\r\n",
    "length": OK + EVENT_STREAM + b"Content-Length: 11\r\n\r\nhello world",
}
CLOSED = {
    "close": OK + EVENT_STREAM + b"Connection: close\r\n\r\nhello world",
    "http10": b"HTTP/1.0 200 OK\r\n" + EVENT_STREAM + b"\r\nhello world",
    "raw": b"hello world",
}


@pytest.mark.parametrize("framing", sorted(KEPT_ALIVE))
def test_framing_that_keeps_the_connection(server, framing):
    expected = KEPT_ALIVE[framing]
    server.reply("hello", b" world", framing=framing)
    server.reply("hello", b" world", framing=framing)
    with asked(server) as sock:
        assert read(sock, len(expected)) == expected
        sock.sendall(GET)  # had there been a byte more, it would come first now
        assert read(sock, len(expected)) == expected
        assert server.wait_idle()
        server.close()
        assert read(sock) == b""
    assert [request.connection_id for request in server.requests] == [1, 1]
    assert server.outcomes == {1: "server_closed"}


@pytest.mark.parametrize("framing", sorted(CLOSED))
def test_framing_that_closes_the_connection(server, framing):
    server.reply("hello", b" world", framing=framing)
    with asked(server) as sock:
        assert read(sock) == CLOSED[framing]
    assert server.outcomes == {1: "done"}


def test_framing_gzip_flushes_each_piece(server):
    gate = Gate()
    server.reply("hello", gate, " world", framing="gzip")
    decompressor = zlib.decompressobj(wbits=31)
    with asked(server) as sock:
        assert b"\r\nContent-Encoding: gzip\r\n" in read_head(sock)
        first = read_chunk(sock)
        assert decompressor.decompress(first) == b"hello"
        gate.open()
        second, tail = read_chunk(sock), read_chunk(sock)
        assert decompressor.decompress(second) == b" world"
        assert gzip.decompress(first + second + tail) == b"hello world"
        assert read_chunk(sock) == b""


@pytest.mark.parametrize("framing", ["chunked", "gzip", "one-chunk", "length", "close", "http10"])
@pytest.mark.parametrize("pieces", [("hello", "", " world"), ()])
def test_framing_is_understood_by_requests(server, framing, pieces):
    server.reply(*pieces, framing=framing)
    assert requests.get(server.url, timeout=BOUND).content == "".join(pieces).encode()


def test_a_piece_is_on_the_wire_before_the_next(server):
    gates = [Gate(), Gate()]
    server.reply("one", gates[0], "two", gates[1])
    with asked(server) as sock:
        assert read(sock, len(CHUNKED) + 8) == CHUNKED + b"3\r\none\r\n"
        gates[0].open()
        assert read(sock, 8) == b"3\r\ntwo\r\n"
        gates[1].open()
        assert read(sock, 5) == b"0\r\n\r\n"


def test_length_can_lie_short_and_long(server):
    server.reply("hello", framing="length", length=100)
    server.reply("hello", framing="one-chunk", length=100)
    server.reply("hello", framing="length", length=3)
    with asked(server) as sock:
        assert read(sock) == OK + EVENT_STREAM + b"Content-Length: 100\r\n\r\nhello"
    with asked(server) as sock:
        assert read(sock) == CHUNKED + b"64\r\nhello"
    with asked(server) as sock:
        assert read(sock) == OK + EVENT_STREAM + b"Content-Length: 3\r\n\r\nhello"


def test_raw_goes_past_the_framing(server):
    server.reply("hello", Raw(b"ff"), Cut())
    server.reply("hello", Raw(b" world"), framing="length", length=11)
    with asked(server) as sock:
        assert read(sock) == CHUNKED + b"5\r\nhello\r\nff"
    with asked(server) as sock:
        assert read(sock).endswith(b"\r\n\r\nhello world")


# --- heads ---


def test_head_says_what_it_is_told(server):
    server.reply(
        "no",
        status=429,
        reason="Slow Down",
        headers=[("Retry-After", "1"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")],
        content_type="text/plain",
        framing="length",
    )
    server.reply(headers={"content-type": "x/y"}, status=529, framing="close")
    with asked(server) as sock:
        assert read_head(sock) == (
            b"HTTP/1.1 429 Slow Down\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n"
            b"Retry-After: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n"
        )
    with asked(server) as sock:
        assert read(sock) == (
            b"HTTP/1.1 529 Unknown\r\nConnection: close\r\ncontent-type: x/y\r\n\r\n"
        )


def test_answers_without_a_body(server):
    server.reply("unsent", status=204)
    server.reply("unsent", framing="length")
    server.reply("sent", framing="close")
    with asked(server) as sock:
        assert read_head(sock) == b"HTTP/1.1 204 No Content\r\n" + EVENT_STREAM + b"\r\n"
        sock.sendall(GET.replace(b"GET", b"HEAD"))
        assert b"\r\nContent-Length: 6\r\n" in read_head(sock)
        sock.sendall(GET)
        assert read(sock).endswith(b"\r\n\r\nsent")
    assert server.connections == 1


@pytest.mark.parametrize(
    "request_bytes",
    [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"],
)
def test_client_that_wants_no_keep_alive(server, request_bytes):
    server.reply("x", framing="length")
    with asked(server, request_bytes) as sock:
        assert read(sock).endswith(b"\r\nConnection: close\r\n\r\nx")


def test_reply_that_says_close_closes(server):
    server.reply("x", framing="length", headers={"Connection": "close"})
    with asked(server) as sock:
        assert read(sock).endswith(b"\r\nConnection: close\r\n\r\nx")


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


# --- actions ---


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
    with asked(server) as sock:
        read_head(sock)
        start = time.monotonic()
        assert read(sock) == b"x"
        assert time.monotonic() - start >= 0.04


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


# --- clients that leave ---

WAITING = {
    "gate": Gate,
    "pause": lambda: Pause(60),
    "hang": Hang,
    "drip": lambda: Drip(b"xx", every=60),
}


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


@pytest.mark.parametrize(
    "start", [b"GET / HT", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nx", b"junk\r\n\r\n"]
)
def test_half_a_request_is_a_bad_request(server, start):
    with asked(server, start) as sock:
        sock.shutdown(socket.SHUT_WR)
        assert read(sock) == b""
    assert server.outcomes == {1: "bad_request"}
    assert server.requests == []


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


# --- which reply ---


def test_replies_are_given_in_order_and_by_path(server):
    server.reply_json("any 1")
    server.reply_json("any 2")
    server.default("default", framing="length")
    server.reply_json("props", path="/props")
    server.reply_json("health", path="/health", repeat=True)
    server.route("/echo", lambda request: Reply.json(request.json))

    def ask(path, **options):
        return requests.post(server.url + path, timeout=BOUND, **options)

    assert ask("/props?x=1").json() == "props"
    assert ask("/health").json() == "health"
    assert ask("/echo", json={"a": 1}).json() == {"a": 1}
    assert ask("/v1").json() == "any 1"
    assert ask("/props").json() == "any 2"
    assert ask("/health").json() == "health"
    assert ask("/v1").text == "default"
    assert ask("/props").text == "default"
    assert server.unscripted == []


def test_unscripted_request_gets_a_500_that_explains(server):
    response = requests.get(server.url + "/nowhere", timeout=BOUND)
    assert response.status_code == 500
    error = response.json()["error"]
    assert error["type"] == "unscripted_request"
    assert "GET /nowhere, its request number 1" in error["message"]
    assert [request.path for request in server.unscripted] == ["/nowhere"]
    assert len(server.requests) == 1


def test_reply_text_is_a_whole_stream(server):
    server.reply_text("Hel", "lo ☕", model="m", headers={"X-Request-Id": "r1"})
    response = requests.post(server.url, timeout=BOUND)
    assert response.headers["X-Request-Id"] == "r1"
    events = response.content.decode().split("\n\n")
    assert events.pop() == ""
    assert events.pop() == "data: [DONE]"
    chunks = [json.loads(event[len("data: ") :]) for event in events]
    assert {chunk["model"] for chunk in chunks} == {"m"}
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert [delta.get("content") for delta in deltas] == ["", "Hel", "lo ☕", None]
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "total_tokens": 12,
    }


def test_reply_tool_calls_is_a_whole_stream(server):
    server.reply_tool_calls(("weather", {"city": "Oslo"}), ("broken", '{"a":'), usage=False)
    lines = requests.post(server.url, timeout=BOUND).text.split("\n\n")
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    parts = [p for c in chunks for p in c["choices"][0]["delta"].get("tool_calls", [])]
    arguments = {0: "", 1: ""}
    for part in parts:
        arguments[part["index"]] += part["function"]["arguments"]
    assert arguments == {0: '{"city":"Oslo"}', 1: '{"a":'}
    assert [(p["id"], p["function"]["name"]) for p in parts if "id" in p] == [
        ("call_0", "weather"),
        ("call_1", "broken"),
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


# --- the record ---


def test_requests_are_recorded(server):
    server.default(status=204)
    with requests.Session() as session:
        session.post(server.url + "/a?b=c", json={"x": 1}, headers={"X-Key": "k"}, timeout=BOUND)
        session.put(server.url + "/d", data=iter([b"12", b"345"]), timeout=BOUND)
    first, second = server.requests
    assert (first.method, first.path, first.version) == ("POST", "/a?b=c", "HTTP/1.1")
    assert first.json == {"x": 1}
    assert first.headers["x-key"] == first.headers.get("X-KEY") == "k"
    assert "Content-Type" in first.headers
    assert first.headers.get("X-None") is None
    assert len(first.headers) == len(set(first.headers))
    assert (second.method, second.body) == ("PUT", b"12345")
    assert first.received <= second.received
    assert first.connection_id == second.connection_id == 1
    assert "k" not in repr(first.headers).split("X-Key")[1]
    assert repr(first) == "<Request POST /a?b=c, 8 bytes, connection 1>"


def test_repeated_header_fields_are_all_kept(server):
    server.reply(status=204)
    with asked(server, b"GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\na: 3\r\n\r\n") as sock:
        read_head(sock)
    headers = server.requests[0].headers
    assert headers.get_all("A") == ["1", "3"]
    assert headers["A"] == "1"


def test_keep_alive_is_recorded(server):
    server.reply("1", framing="length")
    server.reply("2", framing="chunked", headers={"Connection": "close"})
    server.reply("3", framing="close")
    with requests.Session() as session:
        for _ in range(3):
            session.get(server.url, timeout=BOUND)
    assert [request.connection_id for request in server.requests] == [1, 1, 2]
    assert server.connections == 2


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
        assert time.monotonic() - start < 1.0
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


# --- TLS ---


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
        assert time.monotonic() - start < 1.0
    assert not os.path.exists(server.ca_file)
    assert not os.path.exists(os.path.dirname(server.ca_file))


# --- pieces ---


def test_sse():
    assert sse({"a": "é\n"}) == 'data: {"a":"é\\n"}\n\n'.encode()
    assert sse("[DONE]") == b"data: [DONE]\n\n"
    assert sse("a\nb", event="e", id="1") == b"event: e\nid: 1\ndata: a\ndata: b\n\n"
    assert sse({"a": "\ud83d"}) == b'data: {"a":"\\ud83d"}\n\n'


def test_text_chunks_without_their_marks():
    whole = text_chunks("a")
    bare = text_chunks("a", finish_reason=None, usage=False, done=False)
    assert len(whole) == 5
    assert bare == whole[:2]
    assert text_chunks("a", usage={"total_tokens": 7})[-2].endswith(
        b'"usage":{"total_tokens":7}}\n\n'
    )
    assert tool_call_chunks(finish_reason=None, usage=False) == [
        b'data: {"id":"chatcmpl-scripted","object":"chat.completion.chunk","created":1700000000,'
        b'"model":"scripted","choices":[{"index":0,"delta":{"role":"assistant","content":null},'
        b'"finish_reason":null}]}\n\n',
        b"data: [DONE]\n\n",
    ]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_recorded_cuts_between_events(end, tmp_path):
    events = [b": hi" + end * 2, b"data: 1" + end + b"data: 2" + end * 2, b"data: cut"]
    path = tmp_path / "body.sse"
    path.write_bytes(b"".join(events))
    assert recorded(path) == recorded(str(path)) == recorded(b"".join(events)) == events


def test_recorded_changes_nothing():
    body = b"\n\n\r\n\rdata: x\r\r\n\n\ndata\n\r\n"
    assert b"".join(recorded(body)) == body
    assert recorded(b"") == []


# --- the package ---


def test_package_needs_no_requests_and_no_pytest():
    imported = set()
    for path in Path(agentstream.testing.__file__).parent.glob("*.py"):
        if path.name in ("client.py", "stores.py"):
            continue  # a ChatClient, and a store's tests, need what they are made of
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            allowed = {"pytest"} if path.name == "pytest_plugin.py" else set()
            imported |= set(names) - allowed
    ours = {name for name in imported if name.startswith("agentstream")}
    assert not {name for name in ours if not name.startswith("agentstream.testing")}
    assert not imported & {"pytest", "requests", "urllib3"}
    code = "import sys, agentstream.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0
