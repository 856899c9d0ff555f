"""Bodies in every framing; B05, nothing left over is read as an answer; B20, padded gzip."""

from __future__ import annotations

import gzip
import zlib

import pytest

from agentstream import errors
from agentstream.cancel import CancelToken
from tests.kit.support import wait_until
from tests.kit.wire import WireServer, chunked, closing, empty, fetch, sized, transport_of

FORGED = sized(b"forged")
EXTRAS = {
    "crlf": b"\r\n",
    "nul": b"\0",
    "forged": FORGED,
    "half": FORGED[:20],
    "chunk": b"5\r\nhello\r\n",
    "end": b"0\r\n\r\n",
    "much": b"x" * 100_000,
}
ANSWERS = {
    "length": sized,
    "chunked": chunked,
    "small-chunks": lambda body: chunked(body, size=2),
    "trailers": lambda body: chunked(body, end=b"0\r\nX: y\r\n\r\n"),
    "close": closing,
    "two-lengths": lambda body: sized(body, headers=b"Content-Length: %d\r\n" % len(body)),
}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("framing", ANSWERS)
@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS)
@pytest.mark.parametrize("apart", [False, True], ids=["one-record", "apart"])
def test_b05_nothing_left_over_is_read_as_the_next_answer(tls, framing, extra, apart):
    if framing == "close":
        extra = b""  # there, what follows is the body

    def answer(head, body):
        whole = ANSWERS[framing](body)
        yield from ([whole, extra] if apart else [whole + extra])
        if framing == "close":
            yield None

    with WireServer(answer, tls=tls) as server:
        transport = transport_of(server)
        for number in range(4):
            assert fetch(transport, b"call %d" % number) == b"call %d" % number
            if framing != "close":  # on its way after the next request, a forged one is believed
                wait_until(lambda n=number: server.answered > n)
        transport.close()
        if not apart or framing == "close":
            assert len(set(server.requests)) == 4  # none of them was used again


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("extra", [b"", b"body of a 204", FORGED])
def test_b05_behind_an_answer_without_a_body(tls, status, extra):
    with WireServer(lambda head, body: [empty(status) + extra], tls=tls) as server:
        transport = transport_of(server)
        for _ in range(3):
            with transport.exchange(b"{}", CancelToken()) as exchange:
                assert exchange.status == status
                assert exchange.read(10) == b""
        transport.close()
        assert server.requests == ([1, 2, 3] if extra else [1, 1, 1])


@pytest.mark.parametrize("framing", ["length", "chunked", "small-chunks", "trailers"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_connection_with_nothing_left_over_serves_again(framing, tls):
    with WireServer(lambda head, body: [ANSWERS[framing](body)], tls=tls) as server:
        transport = transport_of(server)
        for number in range(5):
            assert fetch(transport, b"%d" % number) == b"%d" % number
        transport.close()
        assert server.connections == 1


def test_trailers_have_a_bound():
    endless = chunked(b"hi", end=b"0\r\n" + b"X: y\r\n" * 20_000)
    with WireServer(lambda head, body: [endless]) as server:
        transport = transport_of(server)
        with transport.exchange(b"{}", CancelToken()) as exchange:
            assert exchange.read(100) == b"hi"
            assert exchange.broken
        transport.close()


@pytest.mark.parametrize(
    ("size", "error"), [(100, None), (101, errors.LimitExceeded), (10**6, errors.LimitExceeded)]
)
def test_read_has_a_bound(size, error):
    with WireServer(lambda head, body: [sized(b"x" * size)]) as server:
        transport = transport_of(server)
        with transport.exchange(b"{}", CancelToken()) as exchange:
            if error is None:
                assert exchange.read(100) == b"x" * size
            else:
                with pytest.raises(error):
                    exchange.read(100)
        transport.close()


TEXT = b"data: one\n\ndata: two\n\n" * 50
MEMBER = gzip.compress(TEXT)
PADDED = {
    "nuls": (MEMBER + b"\0" * 512, 1),
    "one-nul": (MEMBER + b"\0", 1),
    "garbage": (MEMBER + b"garbage", 1),
    "half-magic": (MEMBER + b"\x1f", 1),
    "almost-magic": (MEMBER + b"\x1fx", 1),
    "two-members": (MEMBER + MEMBER, 2),
    "two-and-nuls": (MEMBER + MEMBER + b"\0" * 9, 2),
    "many-nuls": (MEMBER + b"\0" * 5000, 1),
}


@pytest.mark.parametrize("case", PADDED)
@pytest.mark.parametrize("size", [1, 7, 65536], ids=["bytes", "sevens", "whole"])
def test_b20_padding_after_a_gzip_member(case, size):
    packed, members = PADDED[case]
    wire = chunked(packed, size=size).replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n", 1)
    with WireServer(lambda head, body: [wire]) as server:
        transport = transport_of(server)
        for _ in range(2):
            assert fetch(transport) == (TEXT * members).rstrip(b"\n") + b"\n"
        transport.close()
        assert server.connections == 1


@pytest.mark.parametrize("raw", [False, True])
def test_b20_padding_after_deflate(raw):
    packer = zlib.compressobj(wbits=-15 if raw else 15)
    packed = packer.compress(TEXT) + packer.flush() + b"\0" * 100
    with WireServer(
        lambda head, body: [sized(packed, headers=b"Content-Encoding: deflate\r\n")]
    ) as server:
        transport = transport_of(server)
        assert fetch(transport) == TEXT.rstrip(b"\n") + b"\n"
        transport.close()
