"""Replies: framings, heads, and which is given to whom."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest
import requests

from agentstream.testing import Cut, Gate, Raw, Reply
from tests.kit.raw_http import (
    BOUND,
    CHUNKED,
    EVENT_STREAM,
    GET,
    OK,
    asked,
    read,
    read_chunk,
    read_head,
)

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


def test_reply_that_says_close_closes(server):
    server.reply("x", framing="length", headers={"Connection": "close"})
    with asked(server) as sock:
        assert read(sock).endswith(b"\r\nConnection: close\r\n\r\nx")


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
