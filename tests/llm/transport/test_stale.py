"""A pooled connection that is stale: N17, closed; B05, with bytes that come when no answer may.

Bytes that come apart from the answer they follow meet the client anywhere: while the
connection lies in the pool, as it is taken out, or behind the next request.
"""

from __future__ import annotations

import threading

import pytest

from agentstream import errors
from agentstream.cancel import CancelToken
from agentstream.llm.transport import adapter, poll
from agentstream.llm.transport.link import Link
from tests.kit.wire import WireServer, chunked, closing, fetch, sized, transport_of

FORGED = sized(b"forged")
#: What is no head of an answer, whatever follows it.
NOT_HTTP = {
    "crlf": b"\r\n",
    "lf": b"\n",
    "nul": b"\0",
    "word": b"x",
    "chunk": b"5\r\nhello\r\n",
    "end": b"0\r\n\r\n",
    "trailers": b"X: y\r\n\r\n",
    "comment": b": ping\n\n",
    "done": b"data: [DONE]\n\n",
    "much": b"x" * 100_000,
    "other-version": b"HTTP/9.9 200 OK\r\n\r\n",
    "no-number": b"HTTP/1.1 OK\r\n\r\n",
    "half-word": b"HT",
    "half-status": b"HTTP/1.1 2",
    "half-head": FORGED[:20],
    "head-without-end": b"HTTP/1.1 200 OK\r\n",
}
both = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


class LateServer(WireServer):
    """Answers a request with its body; behind the first answer comes `extra`, at `let_go`."""

    def __init__(self, extra, *, tls=False, framing=sized):
        self.extra = extra
        self.framing = framing
        self.let_go = threading.Event()
        super().__init__(self._reply, tls=tls)

    def _reply(self, head, body):
        first = len(self.requests) == 1
        yield self.framing(body)
        if first:
            self.let_go.wait(5.0)
            yield self.extra

    def __exit__(self, *details):
        self.let_go.set()
        super().__exit__(*details)


def let_go_in(monkeypatch, server, owner, name, *, before):
    """Have the extra bytes come before, or behind, a function that is told the connection."""
    function = getattr(owner, name)

    def arrive(sock):
        server.let_go.set()
        assert poll.readable(sock, 5.0)

    def wrapped(*args):
        sock = getattr(args[-1] if owner is Link else args[0], "sock", args[0])
        if before:
            arrive(sock)
        result = function(*args)
        if not before:
            arrive(sock)
        monkeypatch.setattr(owner, name, function)
        return result

    monkeypatch.setattr(owner, name, wrapped)


@both
@pytest.mark.parametrize("framing", [sized, chunked], ids=["length", "chunked"])
@pytest.mark.parametrize("extra", [*NOT_HTTP.values(), FORGED], ids=[*NOT_HTTP, "forged"])
@pytest.mark.parametrize("resend", [True, False])
def test_b05_before_the_request_is_sent_nothing_is_an_answer(
    tls, framing, extra, resend, monkeypatch
):
    with LateServer(extra, tls=tls, framing=framing) as server:
        transport = transport_of(server)
        assert fetch(transport, b"one") == b"one"
        let_go_in(monkeypatch, server, Link, "serving", before=True)
        with transport.exchange(b"two", CancelToken(), resend=resend) as exchange:
            assert exchange.read(100) == b"two"
        transport.close()
    assert server.requests == [1, 2]  # the second was sent once


@both
@pytest.mark.parametrize("framing", [sized, chunked], ids=["length", "chunked"])
@pytest.mark.parametrize("extra", NOT_HTTP.values(), ids=NOT_HTTP)
def test_b05_behind_the_request_what_is_not_http_is_no_answer(tls, framing, extra, monkeypatch):
    with LateServer(extra, tls=tls, framing=framing) as server:
        transport = transport_of(server)
        assert fetch(transport, b"one") == b"one"
        let_go_in(monkeypatch, server, adapter, "readable", before=False)
        assert fetch(transport, b"two") == b"two"
        assert fetch(transport, b"three") == b"three"
        transport.close()
        assert server.let_go.is_set()  # the second had gone out there
    # And was sent again. Whether the server still read it on the first is the server's affair.
    assert [number for number in server.requests if number != 1] == [2, 2]


@pytest.mark.parametrize("extra", [b"\r\n", b"x", b"HTTP/1.1 200 OK\r\nno header\r\n\r\n"])
def test_b05_what_may_not_be_sent_again_is_not(extra, monkeypatch):
    with LateServer(extra) as server:
        transport = transport_of(server)
        assert fetch(transport, b"one") == b"one"
        let_go_in(monkeypatch, server, adapter, "readable", before=False)
        with pytest.raises(errors.ProtocolError) as caught:
            with transport.exchange(b"two", CancelToken(), resend=False):
                pass
        assert (caught.value.phase, caught.value.retryable) == ("headers", False)
        assert fetch(transport, b"three") == b"three"
        transport.close()


@pytest.mark.parametrize(
    "garbage", [b"\r\n", b"hello\r\n", b"HTTP/1.1 200 OK\r\nno header\r\n\r\n"]
)
def test_b05_a_server_that_does_not_speak_http_is_asked_once(garbage):
    with WireServer(lambda head, body: [garbage, None]) as server:
        transport = transport_of(server)
        with pytest.raises(errors.ProtocolError):
            fetch(transport)
        transport.close()
    assert server.requests == [1]


@both
def test_b05_and_on_a_pooled_connection_twice(tls):
    answers = iter([[sized(b"one")], [b"hello\r\n", None], [b"hello\r\n", None]])
    with WireServer(lambda head, body: next(answers), tls=tls) as server:
        transport = transport_of(server)
        assert fetch(transport) == b"one"
        with pytest.raises(errors.ProtocolError):
            fetch(transport)
        transport.close()
    assert server.requests == [1, 1, 2]


def test_n17_the_request_goes_again_over_a_new_connection():
    """Of four idle connections that all end as they are used, one is tried."""
    both_here = threading.Barrier(4)
    begun = []

    def answer(head, body):
        if body == b"first":
            begun.append(body)
            both_here.wait(5.0)
            return [sized(body)]
        return [None] if server.requests[-1] <= 4 else [sized(body)]

    with WireServer(answer) as server:
        transport = transport_of(server)
        threads = [threading.Thread(target=fetch, args=(transport, b"first")) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5.0)
        assert fetch(transport, b"second") == b"second"
        transport.close()
    assert server.requests[-1] == 5


@both
@pytest.mark.parametrize("body", [b"", b"too slow"])
def test_n17_408_on_an_idle_connection_answers_nothing(tls, body):
    """RFC 9110, 15.5.9: the server closes a connection that lay idle, and says so."""
    gone = b"HTTP/1.0 408 Request Time-out\r\nConnection: close\r\n\r\n" + body
    answers = iter([[sized(b"one")], [gone, None], [sized(b"two")]])
    with WireServer(lambda head, _: next(answers), tls=tls) as server:
        transport = transport_of(server)
        assert fetch(transport) == b"one"
        assert fetch(transport) == b"two"
        transport.close()
    assert server.requests == [1, 1, 2]


@pytest.mark.parametrize("headers", [b"", b"Connection: close\r\n"], ids=["kept", "closed"])
def test_n17_408_is_an_answer_on_a_new_connection_or_one_that_stays(headers):
    gone = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n%s\r\n" % headers
    with WireServer(lambda head, body: [gone, *([None] if headers else [])]) as server:
        transport = transport_of(server)
        for _ in range(2):
            with transport.exchange(b"{}", CancelToken()) as exchange:
                assert exchange.status == 408
                assert exchange.read(10) == b""
        transport.close()
    assert server.requests == ([1, 2] if headers else [1, 1])


def test_n17_cut_in_a_head_is_not_sent_again():
    for cut in (1, 8, 12, 17, 30):
        answers = iter([[sized(b"one")], [closing(b"")[:cut], None]])
        with WireServer(lambda head, body, answers=answers: next(answers)) as server:
            transport = transport_of(server)
            assert fetch(transport) == b"one"
            with pytest.raises(errors.ConnectError) as caught:
                fetch(transport)
            transport.close()
        assert (caught.value.outcome, caught.value.retryable) == ("unknown", True)
        assert server.requests == [1, 1]
