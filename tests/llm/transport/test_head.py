"""The head of an answer: B04, interim answers; B20, lengths that differ."""

from __future__ import annotations

import pytest

from agentstream import errors
from tests.kit.wire import WireServer, chunked, fetch, sized, transport_of

EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
UNKNOWN = b"HTTP/1.1 199 Whatever\r\nContent-Length: 5\r\nX: y\r\n\r\n"


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    "interim",
    [
        [EARLY],
        [CONTINUE, EARLY],
        [PROCESSING] * 5,
        [UNKNOWN, CONTINUE],
        [b"HTTP/1.1 103\r\n\r\n"],
        [b"HTTP/1.1 103 x\nA: b\n\n"],
    ],
    ids=["103", "100-103", "102x5", "199", "no-reason", "lf"],
)
@pytest.mark.parametrize("apart", [False, True], ids=["at-once", "apart"])
def test_b04_interim_answers_are_skipped(tls, interim, apart):
    def answer(head, body):
        pieces = [*interim, chunked(body)]
        if not apart:
            return [b"".join(pieces)]
        return [item for piece in pieces for item in (piece, 0.005)]

    with WireServer(answer, tls=tls) as server:
        transport = transport_of(server)
        for number in range(4):
            assert fetch(transport, b"call %d" % number) == b"call %d" % number
        transport.close()
        assert server.connections == 1  # skipped, the connection is as good as before


@pytest.mark.parametrize(
    "interim",
    [EARLY * 1000, b"HTTP/1.1 103 x\r\n" + b"A: " + b"b" * 100_000, PROCESSING * 65 + EARLY],
    ids=["many", "long", "a-few-too-many"],
)
def test_b04_interim_answers_have_a_bound(interim):
    with WireServer(lambda head, body: [interim, sized(b"late")]) as server:
        transport = transport_of(server)
        with pytest.raises(errors.ProtocolError) as caught:
            fetch(transport)
        transport.close()
    assert (caught.value.phase, caught.value.retryable) == ("headers", False)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_b04_101_is_an_error_and_its_connection_never_used_again(tls):
    upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    answers = iter([upgrade + sized(b"forged"), sized(b"own")])
    with WireServer(lambda head, body: [next(answers)], tls=tls) as server:
        transport = transport_of(server)
        with pytest.raises(errors.ProtocolError, match="101"):
            fetch(transport)
        assert fetch(transport) == b"own"
        transport.close()
    assert server.requests == [1, 2]


@pytest.mark.parametrize("cut", [0, 10, len(EARLY) - 2])
def test_b04_cut_after_interim_answers_is_no_answer(cut):
    """Bytes of an answer have come, so the request is not sent again by itself."""
    answers = iter([[sized(b"first")], [EARLY + EARLY[:cut], None]])
    with WireServer(lambda head, body: next(answers)) as server:
        transport = transport_of(server)
        assert fetch(transport) == b"first"
        with pytest.raises(errors.ConnectError) as caught:
            fetch(transport)
        transport.close()
    assert (caught.value.outcome, caught.value.retryable) == ("unknown", True)
    assert server.requests == [1, 1]


LENGTHS = {
    "differ": b"Content-Length: 5\r\nContent-Length: 7\r\n",
    "list": b"Content-Length: 5, 7\r\n",
    "list-and-one": b"Content-Length: 5, 5\r\nContent-Length: 6\r\n",
    "word": b"Content-Length: five\r\n",
    "signed": b"Content-Length: +5\r\n",
    "negative": b"Content-Length: -5\r\n",
    "underscore": b"Content-Length: 1_0\r\n",
    "empty-in-list": b"Content-Length: 5,\r\n",
    "endless": b"Content-Length: " + b"9" * 5000 + b"\r\n",
    "vertical-tab": b"Content-Length: \x0b5\r\n",
    "no-break-space": b"Content-Length: \xa05\r\n",
    "behind-a-cr": b"X-Echo: y\rContent-Length: 5\r\n",
    "coding-behind-a-cr": b"X-Echo: y\rTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "coding-with-a-vertical-tab": b"Transfer-Encoding: \x0bchunked\r\n",
    "other-coding": b"Transfer-Encoding: gzip, chunked\r\n",
    "unknown-coding": b"Transfer-Encoding: x\r\nContent-Length: 5\r\n",
}


@pytest.mark.parametrize("headers", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_b20_a_body_without_a_clear_length_is_an_error_sent_once(headers, tls):
    answer = b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n" + b"hello, HTTP/1.1 200 OK\r\n\r\n"
    with WireServer(lambda head, body: [answer], tls=tls) as server:
        transport = transport_of(server)
        with pytest.raises(errors.ProtocolError) as caught:
            fetch(transport)
        transport.close()
        assert server.requests == [1]
    assert (caught.value.phase, caught.value.retryable) == ("headers", False)


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 5, 5\r\n",
        b"Content-Length: 05\r\nContent-Length: 5\r\n",
        b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
    ],
)
def test_b20_equal_lengths_are_one(headers):
    with WireServer(lambda head, body: [b"HTTP/1.1 200 OK\r\n%s\r\nhello" % headers]) as server:
        transport = transport_of(server)
        assert fetch(transport) == b"hello"
        assert fetch(transport) == b"hello"
        transport.close()


@pytest.mark.parametrize(
    "headers",
    [
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
    ],
)
def test_b20_two_framings_chunks_are_read_and_the_connection_is_closed(headers):
    answer = b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n5\r\nhello\r\n0\r\n\r\n"
    with WireServer(lambda head, body: [answer]) as server:
        transport = transport_of(server)
        assert fetch(transport) == b"hello"
        assert fetch(transport) == b"hello"
        transport.close()
    assert server.requests == [1, 2]
