"""docs/faults.rst N08 to N11: an answer of about 2 KB, cut at every byte, in every framing.

In the suite: every byte in memory, and a stride of them through real sockets.
AGENTSTREAM_EXHAUSTIVE=1 takes every byte through real sockets, plain and TLS (minutes).
"""

from __future__ import annotations

import bisect
import contextlib
import os

import pytest

from agentstream import errors
from agentstream.testing import Callback, Cut, Headers, Reply, Request, Reset, ScriptedServer
from agentstream.testing.pieces import text_chunks
from tests.kit.streams import play
from tests.kit.support import KEY, NO_RETRIES, ask, check_error, client_of

EXHAUSTIVE = os.environ.get("AGENTSTREAM_EXHAUSTIVE") == "1"
FRAMINGS = ("chunked", "one-chunk", "length", "close", "http10", "gzip")

TEXTS = ("Once", " upon", " a", " t\u00efme", " \u2014 far", " \U0001f30a", " away", ".")
ANSWER = text_chunks(*TEXTS)
BODY = b"".join(ANSWER)
#: Where in the body each text's event is whole, blank line and all; and the two marks of an end.
WHOLE = [sum(map(len, ANSWER[: n + 2])) for n in range(len(TEXTS))]
FINISHED = sum(map(len, ANSWER[: len(TEXTS) + 2]))
DONE = len(BODY) - 2  # a tail of [DONE] needs no line end


class _Wire:
    """A stand-in for a server's connection: keeps what is written."""

    def __init__(self):
        self.sent = b""

    def write(self, data):
        self.sent += data


def wire_of(framing):
    """The answer on the wire, and where on it each byte of the body is there.

    Compressed, a byte is there at the latest where its event's piece ends.
    """
    request = Request(
        method="POST", path="/", version="HTTP/1.1", headers=Headers([]), body=b"", connection_id=1
    )
    link = _Wire()
    ends = []
    pieces = []
    for piece in ANSWER:
        pieces += [piece, Callback(lambda: ends.append(len(link.sent)))]
    Reply(*pieces, framing=framing).play(request, link)
    wire = link.sent
    if framing == "gzip":
        places = [end for end, piece in zip(ends, ANSWER) for _ in piece]
    else:
        places = []
        at = wire.index(b"\r\n\r\n") + 4
        for piece in ANSWER:
            at = wire.index(piece, at)
            places += range(at + 1, at + len(piece) + 1)
            at += len(piece)
    return wire, places


def had(places, length):
    """How many bytes of the body are within the first `length` bytes of the wire."""
    return bisect.bisect_right(places, length)


def judge(result, body_length, *, exact):
    """What was delivered, and how it was said to have ended, after so much of the body."""
    whole = sum(end <= body_length for end in WHOLE)
    least = list(TEXTS[:whole])
    assert tuple(result.texts) == TEXTS[: len(result.texts)], "not the beginning of the answer"
    if exact:
        assert result.texts == least
    else:
        assert len(result.texts) >= len(least)
    if body_length >= FINISHED:
        assert result.error is None
    elif exact or result.error is not None:
        assert type(result.error) in (errors.StreamTruncated, errors.ConnectError), result.error
        assert result.error.retryable
        if body_length:
            assert type(result.error) is errors.StreamTruncated
    if result.error is None:
        assert result.response.finish_reason == "stop"
        warned = bool(result.response.warnings)
        assert warned == (body_length < DONE) if exact else body_length < DONE or not warned


def lengths(total, step):
    return range(total + 1) if EXHAUSTIVE else [*range(0, total + 1, step), total]


@contextlib.contextmanager
def quiet():
    """http.client's half headers make urllib3 warn, with a traceback that pytest would keep."""
    import logging

    logger = logging.getLogger("urllib3.connection")
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("end", [Cut(), Reset()], ids=["fin", "rst"])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_n09_n10_n11_cut_on_the_wire(framing, end, tls):
    wire, places = wire_of(framing)
    assert 1500 < len(BODY) < 2500
    cuts = lengths(len(wire), 211 if tls else 37)
    with ScriptedServer(tls=tls) as server, client_of(server) as client, quiet():
        for length in cuts:
            server.reply(wire[:length], end, framing="raw")
            result = ask(client)
            # Linux gives out what had arrived before a reset; another system need not.
            exact = framing != "gzip" and isinstance(end, Cut)
            if isinstance(end, Reset) and had(places, length) >= FINISHED:
                assert result.error is None or not result.response.finish_reason
            else:
                judge(result, had(places, length), exact=exact)
        assert len(server.requests) == len(cuts)


def truncated_in_memory(length, *end):
    class Result:
        pass

    result = Result()
    deltas, result.response, result.error = play(
        [BODY[:length], *end], api_key=KEY, retries=NO_RETRIES
    )
    result.texts = [delta.content for delta in deltas if delta.content]
    return result


def test_n11_cut_at_every_byte_in_memory():
    for length in range(len(BODY) + 1):
        result = truncated_in_memory(length)
        judge(result, length, exact=True)
        if result.error is not None:
            check_error(result.error)
            assert result.error.partial.content == "".join(result.texts)


class _Breaks:
    """A piece that cannot be had: what a read does when the connection is reset."""

    def __len__(self):
        raise ConnectionResetError(104, "Connection reset by peer")

    def __bool__(self):
        raise ConnectionResetError(104, "Connection reset by peer")


def test_n09_reset_at_every_byte_in_memory():
    for length in range(1, len(BODY) + 1):
        result = truncated_in_memory(length, _Breaks())
        judge(result, length, exact=True)
        if result.error is not None:
            assert "Connection reset by peer" in str(result.error)
            assert result.error.partial.content == "".join(result.texts)
