"""drain: the end of a whole answer costs 100 ms and 64 KiB at the most (N13, B06)."""

from __future__ import annotations

import threading
import time

import pytest

from agentstream.llm.transport import drain
from agentstream.testing import text_chunks
from tests.kit.support import ask, client_of, wait_until
from tests.kit.wire import WireServer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWER = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in text_chunks("Hello"))

ENDLESS = {
    "trailers": (b"0\r\n", b"X-Trailer: y\r\n"),
    "trailers-dripped": (b"0\r\n", b"X"),
    "trailers-in-bulk": (b"0\r\n", b"X: " + b"y" * 1000 + b"\r\n" * 100),
    "comments": (b"", b"3\r\n:\n\n\r\n"),
    "chunks-in-bulk": (b"", b"2000\r\n" + b"z" * 8192 + b"\r\n"),
    "extension": (b"5", b";x=y"),
    "size-dripped": (b"", b"0"),
    "silence": (b"0\r\n", b""),
    "chunk-cut": (b"5\r\n:\n", b""),
}


def drains():
    return [t for t in threading.enumerate() if t.name.startswith("agentstream-drain")]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("every", [0.0, 0.02], ids=["fast", "dripped"])
@pytest.mark.parametrize("kind", ENDLESS)
def test_b06_whatever_follows_the_end_the_drain_ends(kind, every, tls):
    begin, more = ENDLESS[kind]
    over = threading.Event()

    def answer(head, body):
        yield HEAD + ANSWER + begin
        while not over.is_set():
            if more:
                yield more
            yield every or 0.0005

    with WireServer(answer, tls=tls) as server:
        with client_of(server) as client:
            began = time.monotonic()
            result = ask(client)
            assert result.error is None
            assert result.text == "Hello"
            assert time.monotonic() - began < 2.0
            wait_until(lambda: not drains(), 2.0)
            if more:  # by which the server learns of it
                wait_until(lambda: not server.open)  # the socket is closed, not pooled
        over.set()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("end", [[b"0\r\n\r\n"], [b"0\r\n", 0.01, b"X: y\r\n", 0.01, b"\r\n"]])
def test_n13_an_end_in_time_keeps_the_connection(monkeypatch, tls, end):
    monkeypatch.setattr(
        drain, "_MOST_S", 20.0
    )  # a server's pause may be a busy machine's longer one
    with WireServer(lambda head, body: [HEAD + ANSWER, *end], tls=tls) as server:
        with client_of(server) as client:
            for _ in range(3):
                assert ask(client).text == "Hello"
                wait_until(lambda: not drains())
        assert server.requests == [1, 1, 1]


@pytest.mark.parametrize("extra", [b"\r\n", b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
@pytest.mark.parametrize("apart", [False, True])
def test_b05_what_the_drain_finds_behind_the_end(extra, apart):
    def answer(head, body):
        end = b"0\r\n\r\n"
        return [HEAD + ANSWER, 0.005, *([end + extra] if not apart else [end, extra])]

    with WireServer(answer) as server, client_of(server) as client:
        for number in range(3):
            assert ask(client).text == "Hello"
            wait_until(lambda: not drains())
            wait_until(lambda n=number: server.answered > n)
        assert server.requests == [1, 2, 3]
