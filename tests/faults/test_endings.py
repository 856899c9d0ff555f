"""docs/faults.rst N09 to N13: how a body ends, and what may be said of the answer then.

Truncation at every byte is in test_faults_truncation.py.
"""

from __future__ import annotations

import threading
import time

import pytest

from agentstream import errors
from agentstream.llm.settings import Retries
from agentstream.llm.transport import drain
from agentstream.testing import Cut, Gate, Hang, KeepOpen, Raw, Reset, ScriptedServer
from agentstream.testing.pieces import text_chunks
from tests.kit.support import ask, client_of

ROOM = 1.0  # a slow machine's share of "at once"

FRAMINGS = ("chunked", "one-chunk", "length", "close", "http10", "gzip")
ANSWER = text_chunks("Hello", ", ", "world", "!")
BEGINNING = ANSWER[:3]  # the role, "Hello" and ", "


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def either(request):
    with ScriptedServer(tls=request.param) as server:
        yield server


def cut_after_the_second_text(server, *end, **options):
    """Serve the beginning, then `end`, once the client has the beginning.  Returns the result,
    and the seconds from the cut to the error."""
    gate = Gate()
    server.reply(*BEGINNING, gate, *end, **options)
    opened = []

    def open_it(delta):
        if delta.content == ", ":
            opened.append(time.monotonic())
            gate.open()

    with client_of(server, retries=Retries(3, backoff=0.01)) as client:
        result = ask(client, on_delta=open_it)
    return result, result.ended - opened[0]


def is_truncated(result, server):
    assert type(result.error) is errors.StreamTruncated, result.error
    assert (result.error.phase, result.error.outcome) == ("stream", "unknown")
    assert result.texts == ["Hello", ", "]
    assert result.error.partial.content == "Hello, "
    assert result.error.partial.finish_reason is None
    assert not result.retries
    assert len(server.requests) == 1


@pytest.mark.parametrize("framing", FRAMINGS)
def test_n09_reset_mid_stream(either, framing):
    result, took = cut_after_the_second_text(either, Reset(), framing=framing, length=5000)
    is_truncated(result, either)
    assert took < ROOM


def test_n09_reset_right_behind_the_events(either):
    """Nothing that had arrived before the reset is lost with it."""
    either.reply(*BEGINNING, Reset())
    with client_of(either) as client:
        result = ask(client)
    assert isinstance(result.error, (errors.StreamTruncated, errors.ConnectError))
    assert "Hello, ".startswith(result.text)


@pytest.mark.parametrize("framing", ["chunked", "one-chunk", "length", "gzip"])
def test_n10_fin_between_two_pieces(either, framing):
    result, took = cut_after_the_second_text(either, Cut(), framing=framing, length=5000)
    is_truncated(result, either)
    assert took < ROOM


@pytest.mark.parametrize(
    "half", [b"9", b"9f\r", b"9f\r\n", b"9f\r\ndata: {", b"9f\r\ndata: {}\n\n"], ids=range(5)
)
def test_n10_fin_inside_a_chunk(either, half):
    result, took = cut_after_the_second_text(either, Raw(half), Cut())
    is_truncated(result, either)
    assert took < ROOM


def test_n10_events_of_a_broken_chunk_are_delivered(either):
    """Whole events at the head of a chunk whose rest never comes."""
    events = ANSWER[1] + ANSWER[2]
    either.reply(Raw(b"%x\r\n" % 4000 + events), Cut())
    with client_of(either, retries=Retries(2)) as client:
        is_truncated(ask(client), either)


def test_n10_events_of_a_chunk_with_a_broken_end(either):
    events = ANSWER[1] + ANSWER[2]
    either.reply(Raw(b"%x\r\n" % len(events) + events + b"rubbish"), Cut())
    with client_of(either, retries=Retries(2)) as client:
        is_truncated(ask(client), either)


@pytest.mark.parametrize("size", [b"zz", b"-5", b"", b"1" * 30, b"5" * 70_000], ids=range(5))
def test_n10_chunk_size_that_is_none(either, size):
    result, took = cut_after_the_second_text(either, Raw(size + b"\r\n"), Hang())
    is_truncated(result, either)
    assert took < ROOM


@pytest.mark.parametrize("framing", ["close", "http10"])
def test_n11_fin_in_close_framing(either, framing):
    """With TLS: cut without close_notify."""
    result, took = cut_after_the_second_text(either, Cut(), framing=framing)
    is_truncated(result, either)
    assert took < ROOM


@pytest.mark.parametrize("framing", ["close", "http10", "chunked", "length"])
def test_n11_clean_end_without_a_finish_mark(either, framing):
    """With TLS: close_notify and all."""
    either.reply(*BEGINNING, framing=framing)
    with client_of(either, retries=Retries(2)) as client:
        is_truncated(ask(client), either)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_n12_finish_reason_but_no_done(either, framing):
    either.reply_text("Hello", ", ", done=False, framing=framing)
    with client_of(either) as client:
        result = ask(client)
    assert result.error is None
    assert result.text == "Hello, "
    assert result.response.finish_reason == "stop"
    assert result.response.warnings == ("the stream ended without [DONE]",)
    assert result.took < 1.0


@pytest.mark.parametrize("end", [Cut(), Reset()], ids=["fin", "rst"])
def test_n12_finish_reason_and_then_a_cut(either, end):
    gate = Gate()
    either.reply(*text_chunks("Hello", usage=False, done=False), gate, end)

    def open_it(delta):
        if delta.finish_reason:
            gate.open()

    with client_of(either, retries=Retries(2)) as client:
        result = ask(client, on_delta=open_it)
    assert result.error is None
    assert result.response.finish_reason == "stop"
    assert len(result.response.warnings) == 1


def test_n12_finish_reason_and_then_silence(either):
    """The model has finished: what may still come is not waited for as for a word of it."""
    either.reply(*text_chunks("Hello", usage=False, done=False), Hang())
    with client_of(either, stall=0.2) as client:
        result = ask(client)
    assert result.error is None
    assert result.text == "Hello"
    assert result.response.warnings == ("the stream ended without [DONE]",)
    assert 0.2 <= result.took < 0.2 + 2 * ROOM


@pytest.mark.parametrize("framing", ["chunked", "close", "http10", "length", "one-chunk", "gzip"])
def test_n13_done_with_the_socket_left_open(either, framing):
    either.reply(*ANSWER, KeepOpen(), framing=framing, length=5000)
    with client_of(either) as client:
        result = ask(client)
        assert result.error is None
        assert result.text == "Hello, world!"
        assert result.response.usage.completion_tokens == 4
        assert result.response.warnings == ()
        assert either.wait_closed(1)  # drained within its bound, then dropped
    assert "client_gone" not in either.outcomes.values()


@pytest.mark.parametrize("framing", ["chunked", "close", "http10", "length", "one-chunk", "gzip"])
def test_n13_no_drain_in_the_callers_time(monkeypatch, either, framing):
    monkeypatch.setattr(drain, "_MOST_S", 20.0)
    gate = Gate()
    either.reply(*ANSWER, gate, framing=framing, length=5000)
    with client_of(either) as client:
        result = ask(client)
        assert result.error is None
        assert result.ended - result.times[-1] < ROOM
        gate.open()
        drained()


def drained():
    """Wait until no thread is draining."""
    for thread in threading.enumerate():
        if thread.name == "agentstream-drain":
            thread.join(5)


def test_n13_terminator_late_and_the_connection_used_again(monkeypatch, either):
    monkeypatch.setattr(drain, "_MOST_S", 20.0)
    gate = Gate()
    either.reply(*ANSWER, gate)
    either.reply(*ANSWER)
    with client_of(either) as client:
        assert ask(client).error is None
        gate.open()
        drained()
        assert ask(client).text == "Hello, world!"
    assert [request.connection_id for request in either.requests] == [1, 1]


def test_n13_terminator_too_late_and_the_connection_dropped(either):
    gate = Gate()
    either.reply(*ANSWER, gate)
    either.reply(*ANSWER)
    with client_of(either) as client:
        assert ask(client).error is None
        start = time.monotonic()
        assert either.wait_closed(1)
        assert time.monotonic() - start < 0.1 + ROOM
        assert ask(client).text == "Hello, world!"
    assert [request.connection_id for request in either.requests] == [1, 2]


def test_n13_more_after_done_is_not_read_to_its_end(either):
    either.reply(*ANSWER, *[b": " + b"x" * 65536 + b"\n\n"] * 400)  # 25 MiB
    either.reply(*ANSWER)
    with client_of(either) as client:
        result = ask(client)
        assert result.error is None
        assert result.ended - result.times[-1] < 0.1 + ROOM
        assert either.wait_closed(1)
        assert ask(client).text == "Hello, world!"
    assert either.outcomes[1] == "client_gone"


def test_n13_nothing_after_done_is_delivered(either):
    either.reply(*ANSWER, ANSWER[1])
    with client_of(either) as client:
        assert ask(client).text == "Hello, world!"


def test_n13_next_call_while_the_last_one_drains(either):
    gate = Gate()
    either.reply(*ANSWER, gate)
    either.reply(*ANSWER)
    with client_of(either) as client:
        for _ in range(2):
            assert ask(client).text == "Hello, world!"
        gate.open()
    assert [request.connection_id for request in either.requests] == [1, 2]
