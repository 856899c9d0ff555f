"""P12, P13, B10, I8: lines of two bytes, by the million, cost what their bytes are; X02: a cancel ends them."""

from __future__ import annotations

import gzip
import threading
import tracemalloc

import pytest

from agentstream import CancelToken, Limits, errors
from agentstream.llm.sse import EventDecoder
from agentstream.web import follow, runs
from tests.kit.programs import within
from tests.kit.support import ask, client_of
from tests.kit.wire import WireServer, fetch, transport_of

CAP = 2**19
#: What a read of 64 KiB takes besides, cut into lines of two bytes.
MORE = 4 * 2**20


@pytest.fixture
def grown():
    """How many bytes a function's objects take at most."""

    def measure(function):
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            function()
            return tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()

    return measure


def play(server, line, size=4 * CAP, content_type="text/event-stream"):
    """Answer with many such lines, compressed: so the server itself takes nothing."""
    body = gzip.compress(line * (size // len(line)), 1)
    headers = [("Content-Encoding", "gzip")]
    server.reply(body, content_type=content_type, headers=headers, framing="length")


def test_p12_an_event_of_short_lines(grown):
    def read():
        with pytest.raises(errors.LimitExceeded):
            list(EventDecoder(max_event=CAP).decode(b"data: xy" for _ in range(2**18)))

    assert grown(read) < 2 * CAP + MORE


def test_p12_lines_that_are_joined_meanwhile_are_the_same_event():
    lines = [b"data: %d" % n for n in range(1000)]
    told = EventDecoder()
    assert [e.data for e in told.decode([*lines, b"", *lines[:300], b""])] == [
        "\n".join(map(str, range(1000))),
        "\n".join(map(str, range(300))),
    ]
    cut = EventDecoder()
    assert list(cut.decode(lines)) == []
    assert cut.tail() == "\n".join(map(str, range(1000)))


@pytest.mark.parametrize(
    ("line", "content_type"),
    [(b"xy\n", "application/json"), (b": p\n\n", "text/event-stream")],
)
def test_p13_a_body_of_short_lines(grown, server, line, content_type):
    play(server, b"{\n" + line * 99, content_type=content_type)
    found = []

    def call():
        with client_of(server, limits=Limits(event=CAP)) as client:
            found.append(ask(client).error)

    assert grown(call) < 2 * CAP + MORE
    assert isinstance(found[0], (errors.LimitExceeded, errors.StreamTruncated))


@pytest.mark.parametrize("line", [b"data: xy\n", b"id: 1\n"])
def test_b10_a_followed_event_of_short_lines(grown, server, line):
    play(server, line)

    def read():
        with pytest.raises(errors.LimitExceeded):
            list(follow(server.url, limits=Limits(event=CAP)))

    assert grown(read) < 2 * CAP + MORE


def test_b03_b10_a_list_of_runs_of_short_lines(grown, server, monkeypatch):
    monkeypatch.setattr("agentstream.web.client._MOST_LISTED", CAP)
    play(server, b"xy\r\n", 4 * CAP, "application/json")

    def read():
        with pytest.raises(errors.LimitExceeded):
            runs(server.url)

    assert grown(read) < 2 * CAP + MORE


def test_a_body_is_read_with_its_line_ends_made_lf():
    body = b"a\r\n\rb\n\n\x00\r\n"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with WireServer(lambda head, sent: [answer]) as server:
        transport = transport_of(server)
        assert fetch(transport) == b"a\n\nb\n\n\x00"
        transport.close()


@pytest.mark.parametrize("line", [b": ping\n\n", b"\n"])
def test_x02_a_cancel_ends_what_the_socket_holds(server, line):
    """Lines that no reader is given, more of them than a second can look at."""
    within(1.3, lambda: cancelled_after(0.3, server, line))


def cancelled_after(seconds, server, line):
    """What a call takes in seconds that is cancelled amid very many of these lines."""
    play(server, line, 400 * CAP)
    token = CancelToken()
    timer = threading.Timer(seconds, token.cancel)
    with client_of(server, limits=Limits(decompressed=None)) as client:
        timer.start()
        result = ask(client, cancel=token)
    assert type(result.error) is errors.Cancelled
    return result.took
