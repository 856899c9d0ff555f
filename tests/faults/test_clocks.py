"""FAULTS.md N04 to N07 and N16: the clocks of a call."""

from __future__ import annotations

import threading

import pytest

from agentstream import errors
from agentstream.llm.settings import Retries
from agentstream.testing import Cut, Drip, Hang, Pause, ScriptedServer
from agentstream.testing.pieces import chat_chunk, sse, text_chunks
from tests.kit.support import ask, client_of

#: A slow machine's share of every bound.
ROOM = 0.4

FRAMINGS = ("chunked", "one-chunk", "length", "close", "http10", "gzip")
ANSWER = text_chunks("Hello", ", ", "world", "!")
BEGINNING = ANSWER[:3]  # the role, "Hello" and ", "


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def either(request):
    with ScriptedServer(tls=request.param) as server:
        yield server


# --- N04 ---


def too_late(result, limit):
    assert type(result.error) is errors.FirstTokenTimeout
    assert isinstance(result.error, TimeoutError)
    assert "Timeouts.first_token" in str(result.error)
    assert result.error.outcome == "unknown"
    assert not result.retries
    assert limit <= result.took < limit + ROOM
    assert result.text == ""


def test_n04_no_headers(either):
    either.reply(before_headers=[Hang()])
    with client_of(either, first_token=0.3, retries=Retries(2)) as client:
        result = ask(client)
    too_late(result, 0.3)
    assert result.error.phase == "headers"
    assert len(either.requests) == 1


@pytest.mark.parametrize("status", [200, 503])
def test_n04_header_drip(either, status):
    either.reply(*ANSWER, headers_every=0.1, status=status)
    with client_of(either, first_token=0.35, retries=Retries(2)) as client:
        result = ask(client)
    too_late(result, 0.35)
    assert len(either.requests) == 1


def test_n04_no_delta_after_the_headers(either):
    either.reply(ANSWER[0], Hang())
    with client_of(either, first_token=0.3) as client:
        result = ask(client)
    too_late(result, 0.3)
    assert result.error.phase == "stream"


def test_n04_drip_of_an_event_that_never_ends(server):
    server.reply(Drip(b"data: {" + b" " * 500, 1, 0.02))
    with client_of(server, first_token=0.3) as client:
        too_late(ask(client), 0.3)


# --- N05 ---


def dawdle(seconds):
    """What a caller does with its time."""
    threading.Event().wait(seconds)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_n05_silence_mid_body(either, framing):
    either.reply(*BEGINNING, Hang(), framing=framing, length=5000)
    with client_of(either, stall=0.15, retries=Retries(2)) as client:
        result = ask(client)
    assert type(result.error) is errors.StallTimeout
    assert isinstance(result.error, TimeoutError)
    assert not isinstance(result.error, ConnectionError)
    assert (result.error.phase, result.error.outcome) == ("stream", "unknown")
    assert "Timeouts.stall" in str(result.error)
    assert result.error.partial.content == "Hello, "
    assert 0.149 <= result.ended - result.times[-1] < 0.15 + ROOM
    assert len(either.requests) == 1


def test_n05_silence_in_the_middle_of_an_event(either):
    either.reply(*BEGINNING, ANSWER[3][:20], Hang())
    with client_of(either, stall=0.15) as client:
        result = ask(client)
    assert type(result.error) is errors.StallTimeout
    assert result.error.partial.content == "Hello, "


def test_n05_the_callers_own_time_is_not_silence(server):
    server.reply(*ANSWER)
    with client_of(server, stall=0.1) as client:
        result = ask(client, on_delta=lambda d: d.content == "Hello" and dawdle(0.2))
    assert result.error is None
    assert result.text == "Hello, world!"


# --- N06 ---


def pings(every, count, text=":\n\n"):
    return [piece for _ in range(count) for piece in (text, Pause(every))]


def test_n06_only_comments_before_the_first_delta(server):
    server.reply(*pings(0.1, 30))
    with client_of(server, first_token=0.35) as client:
        too_late(ask(client), 0.35)


@pytest.mark.parametrize("ping", [":\n\n", ": OPENROUTER PROCESSING\n\n", "event: ping\n\n", "\n"])
def test_n06_only_comments_after_it(server, ping):
    server.reply(*BEGINNING, *pings(0.08, 30, ping))
    with client_of(server, stall=0.3) as client:
        result = ask(client)
    assert type(result.error) is errors.StallTimeout
    assert result.error.partial.content == "Hello, "
    assert 0.299 <= result.ended - result.times[-1] < 0.3 + 0.08 + ROOM


def test_n06_pings_every_fifth_of_a_second_against_a_stall_of_one(tls_server):
    tls_server.reply(*BEGINNING, *pings(0.2, 30))
    with client_of(tls_server, stall=1.0) as client:
        result = ask(client)
    assert type(result.error) is errors.StallTimeout
    assert 1.0 <= result.ended - result.times[-1] <= 1.3


def test_n06_bytes_of_a_data_line_are_life(server):
    """A slow line is no silence: what resets the clock is its bytes, not its end."""
    server.reply(*BEGINNING, Drip(ANSWER[3], 4, 0.01), *ANSWER[4:])
    with client_of(server, stall=0.15) as client:
        result = ask(client)
    assert result.error is None
    assert result.text == "Hello, world!"
    assert result.took > 0.3


def test_n06_usage_chunk_resets_stall_but_does_not_end_first_token(server):
    empty = sse({"choices": []})
    server.reply(*[p for _ in range(30) for p in (empty, Pause(0.08))])
    with client_of(server, first_token=0.3) as client:
        too_late(ask(client), 0.3)


# --- N07 ---


def test_n07_tokens_flow_past_the_deadline(either):
    words = [piece for n in range(500) for piece in (chat_chunk({"content": f"{n} "}), Pause(0.01))]
    either.reply(*words)
    with client_of(either, total=0.4, retries=Retries(2)) as client:
        result = ask(client)
    assert type(result.error) is errors.DeadlineExceeded
    assert isinstance(result.error, TimeoutError)
    assert "Timeouts.total" in str(result.error)
    assert 0.4 <= result.took < 0.4 + ROOM
    assert len(result.texts) >= 10
    assert len(either.requests) == 1


def test_n07_deadline_counts_the_callers_time(server):
    words = [chat_chunk({"content": f"{n} "}) for n in range(100)]
    server.reply(*words, Hang())
    with client_of(server, total=0.3) as client:
        result = ask(client, on_delta=lambda _: dawdle(0.02))
    assert type(result.error) is errors.DeadlineExceeded
    assert 0.3 <= result.took < 0.3 + ROOM
    assert 1 <= len(result.texts) < 100


def test_n07_deadline_before_the_headers(either):
    either.reply(before_headers=[Hang()])
    with client_of(either, total=0.2, retries=Retries(2)) as client:
        result = ask(client)
    assert type(result.error) is errors.DeadlineExceeded
    assert result.error.phase == "headers"
    assert 0.2 <= result.took < 0.2 + ROOM


def test_n07_deadline_in_a_retry(server):
    server.reply(before_headers=[Cut()])
    server.reply(before_headers=[Hang()])
    with client_of(server, total=0.3, retries=Retries(5, backoff=0.02)) as client:
        result = ask(client)
    assert type(result.error) is errors.DeadlineExceeded
    assert len(result.retries) == 1
    assert 0.3 <= result.took < 0.3 + ROOM


# --- N16 ---


def test_n16_a_kilobyte_a_second(either):
    either.reply(Drip(b"".join(ANSWER[1:3] + ANSWER[-1:]), 10, 0.01), framing="close")
    with client_of(either, stall=0.3, first_token=2.0) as client:
        result = ask(client)
    assert result.error is None
    assert result.text == "Hello, "
    assert result.took > 0.3


def test_n16_jitter_below_the_stall_limit(server):
    jitter = [piece for event in ANSWER for piece in (event, Pause(0.12))]
    server.reply(*jitter)
    with client_of(server, stall=0.5, first_token=0.6) as client:
        result = ask(client)
    assert result.error is None
    assert result.text == "Hello, world!"
    assert result.took > 0.6
