"""docs/faults.rst N04 to N07, N16, B14 and W07: the clocks of a call."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from agentstream import errors
from agentstream.llm.settings import Retries
from agentstream.testing import Cut, Drip, Hang, Pause, ScriptedServer
from agentstream.testing.pieces import chat_chunk, sse, text_chunks
from tests.kit.programs import Program, settle
from tests.kit.support import ask, client_of

#: A slow machine's share of every bound.
ROOM = 1.0

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
    with client_of(server, stall=0.3) as client:
        result = ask(client, on_delta=lambda d: d.content == "Hello" and dawdle(0.4))
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
    assert 1.0 <= result.ended - result.times[-1] < 1.0 + 0.2 + ROOM


def test_n06_bytes_of_a_data_line_are_life(server):
    """A slow line is no silence: what resets the clock is its bytes, not its end."""
    server.reply(*BEGINNING, Drip(ANSWER[3], 2, 0.01), *ANSWER[4:])
    with client_of(server, stall=0.4) as client:
        result = ask(client)
    assert result.error is None
    assert result.text == "Hello, world!"
    assert result.took > 0.5


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


# --- a process that was suspended ---

ASKS = """
client = LlamaClient(arguments[0], timeouts=Timeouts(first_token=0.6, stall=0.6), retries=Retries(0))
say("asking")
try:
    for text in client.chat_stream("hi"):
        say("text", text)
    say("whole")
except AgentStreamError as error:
    say(type(error).__name__)
client.close()
"""


def suspended(server, seconds, after, end="whole"):
    """What a program says up to `end` that is stopped for `seconds` once it has said `after`."""
    with Program(ASKS, server.url) as program:
        program.expect(after)
        settle(program.process.pid)
        program.process.send_signal(signal.SIGSTOP)
        dawdle(seconds)
        program.process.send_signal(signal.SIGCONT)
        program.expect(end)
        assert program.finish() == 0
    return program.lines


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no SIGSTOP here")
@pytest.mark.parametrize("seconds", [0.7, 1.0, 2.0])
def test_b14_who_was_suspended_in_a_stream_reads_what_came_meanwhile(server, seconds):
    words = [chat_chunk({"content": "a"}), Pause(0.3)]
    words += [part for n in range(8) for part in (chat_chunk({"content": f"w{n}"}), Pause(0.2))]
    server.reply(ANSWER[0], *words, *text_chunks()[-2:])
    lines = suspended(server, seconds, "text a")
    assert [line for line in lines if line.startswith("text w")] == [f"text w{n}" for n in range(8)]


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no SIGSTOP here")
def test_b14_who_was_suspended_before_the_first_token_has_it(server):
    server.reply(Pause(0.4), *ANSWER)
    assert "text Hello" in suspended(server, 1.5, "asking")


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no SIGSTOP here")
def test_b14_a_silence_after_it_is_one_all_the_same(server):
    server.reply(*BEGINNING, Hang())
    began = time.monotonic()
    suspended(server, 1.2, "text , ", end="StallTimeout")
    assert time.monotonic() - began < 10


# --- data that adds nothing ---


@pytest.mark.parametrize("ping", [b"data:\n\n", b"data\n\n", b"data:   \n\n", sse({"choices": []})])
def test_w07_heartbeats_keep_a_stream_alive(server, ping):
    server.reply(*BEGINNING, *[p for _ in range(7) for p in (ping, Pause(0.1))], *ANSWER[3:])
    with client_of(server, stall=0.6, first_token=5.0) as client:
        result = ask(client)
    assert (result.error, result.text) == (None, "Hello, world!")


@pytest.mark.parametrize("ping", [b"data:\n\n", sse({"choices": []}), b"data: null\n\n"])
def test_w07_heartbeats_do_so_no_longer_than_the_first_token_may_take(server, ping):
    server.reply(*BEGINNING, *[p for _ in range(60) for p in (ping, Pause(0.05))])
    with client_of(server, stall=0.4, first_token=0.5, retries=Retries(0)) as client:
        result = ask(client)
    assert type(result.error) is errors.StallTimeout
    assert "Timeouts.first_token" in str(result.error)
    assert result.error.partial.content == "Hello, "
    assert 0.5 <= result.ended - result.times[-1] < 0.5 + ROOM


def test_w07_words_between_heartbeats_begin_the_time_anew(server):
    beat = [p for _ in range(3) for p in (b"data:\n\n", Pause(0.1))]
    words = [p for n in range(5) for p in (*beat, chat_chunk({"content": f"{n}"}))]
    server.reply(*BEGINNING, *words, *ANSWER[4:])
    with client_of(server, stall=0.5, first_token=1.0) as client:
        result = ask(client)
    assert (result.error, result.text) == (None, "Hello, 01234!")
    assert result.took > 1.0


def test_w07_heartbeats_after_the_finish_reason_do_not_keep_a_whole_answer(server):
    finish = chat_chunk({}, finish_reason="stop")
    beat = [p for _ in range(60) for p in (b"data:\n\n", Pause(0.05))]
    server.reply(*ANSWER[:4], finish, *beat)
    with client_of(server, stall=0.3, first_token=20.0) as client:
        result = ask(client)
    assert result.error is None
    assert result.response.warnings == ("the stream ended without [DONE]",)
    assert result.took < 2.0


def test_w07_heartbeats_before_the_first_token_are_none(server):
    server.reply(*[p for _ in range(60) for p in (b"data:\n\n", Pause(0.05))])
    with client_of(server, first_token=0.3) as client:
        too_late(ask(client), 0.3)
