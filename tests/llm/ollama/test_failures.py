"""How answers of Ollama's fail: errors in lines and statuses, cuts, silence, stops, limits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentstream import CancelToken, errors
from agentstream.llm.settings import Limits, Retries
from agentstream.testing import Cut, Gate, Hang, Pause, ollama_chunks
from tests.kit.support import KEY, PROMPT, Task, ask, wait_until
from tests.llm.ollama.kit import end, line, ollama_of, play, said

RETRY = Retries(1, backoff=0.001)
CRASH = "llama runner process has terminated: exit status 2"


def failed(server: Any, *pieces: Any, **settings: Any) -> Any:
    play(server, *pieces)
    with ollama_of(server, **settings) as client:
        result = ask(client)
    assert result.error is not None
    return result


# --- errors in lines ------------------------------------------------------------------------


def test_an_error_in_mid_answer_is_typed_and_final(server):
    result = failed(server, said("a"), line(error=CRASH), retries=RETRY)
    assert isinstance(result.error, errors.ProviderStreamError)
    assert CRASH in str(result.error)
    assert not result.error.retryable
    assert result.response.content == "a"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CRASH, errors.ProviderStreamError),
        ("server busy, please try again", errors.ServerError),
        ("model runner has unexpectedly stopped: internal error", errors.AgentStreamError),
        ({"message": "slow down", "code": 429}, errors.RateLimited),
    ],
)
def test_w11_an_error_before_the_first_word_is_tried_again(server, error, kind):
    play(server, line(error=error))
    play(server, *ollama_chunks("ok"))
    with ollama_of(server, retries=RETRY) as client:
        result = ask(client)
    assert (result.text, len(result.retries)) == ("ok", 1)
    result = failed(server, line(error=error))
    assert isinstance(result.error, kind) and result.error.retryable


def test_an_answer_that_ends_in_an_error(server):
    result = failed(server, said("a"), end("error"))
    assert isinstance(result.error, errors.ProviderStreamError)
    assert result.response.finish_reason is None


# --- statuses -------------------------------------------------------------------------------


def status(server: Any, code: int, body: Any, prompt: Any = PROMPT, **settings: Any) -> Any:
    server.reply(body if isinstance(body, str) else json.dumps(body), status=code)
    with ollama_of(server, **settings) as client:
        return ask(client, prompt).error


@pytest.mark.parametrize(
    "message", ["model 'm' not found", 'model "m" not found, try pulling it first']
)
def test_a_model_that_is_not_there(server, message):
    error = status(server, 404, {"error": message})
    assert type(error) is errors.BadRequest and not error.retryable
    assert "ollama pull m" in str(error)


def test_a_server_that_is_no_ollama(server):
    error = status(server, 404, "404 page not found")
    assert "base_url" in str(error) and "pull" not in str(error)


@pytest.mark.parametrize(
    ("what", "hint"), [("tools", "the request has tools"), ("thinking", "think=")]
)
def test_a_model_that_cannot(server, what, hint):
    error = status(server, 400, {"error": f'"m" does not support {what}'}, think=True)
    assert type(error) is errors.BadRequest
    assert hint in str(error) and "ollama show m" in str(error)


@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [
        (400, errors.BadRequest, False),
        (401, errors.AuthError, False),
        (407, errors.ConnectError, False),
        (429, errors.RateLimited, True),
        (500, errors.ServerError, True),
        (503, errors.ServerError, True),
    ],
)
def test_statuses(server, code, kind, retryable):
    error = status(server, code, {"error": "no"})
    assert isinstance(error, kind) and error.retryable == retryable
    assert "no" in str(error)


def test_a_busy_server_is_asked_again(server):
    busy = {"error": "server busy, please try again.  maximum pending requests exceeded"}
    server.reply(json.dumps(busy), status=503)
    play(server, *ollama_chunks("ok"))
    with ollama_of(server, retries=RETRY) as client:
        assert ask(client).text == "ok"


def test_no_secret_shows(server):
    echo = {"error": f"bad request: {PROMPT} with {KEY}"}
    for code in (400, 404, 500):
        status(server, code, echo)  # `ask` looks at the error
    failed(server, said("a"), line(**echo))
    failed(server, json.dumps(echo)[:-4] + "\n", said("b"))
    failed(server, f"<html>{PROMPT}</html>")


# --- endings --------------------------------------------------------------------------------

WHOLE = b"".join(
    [
        said(thinking="t\u00e9"),
        said("a\U0001f600"),
        said("b"),
        said(tool_calls=[{"function": {"name": "f", "arguments": {"x": 1}}}]),
        end(prompt_eval_count=1, eval_count=4),
    ]
)


def test_truncated_at_every_byte(server):
    starts = [0]
    while starts[-1] < len(WHOLE):
        starts.append(WHOLE.index(b"\n", starts[-1]) + 1)
    with ollama_of(server) as client:
        for place in range(len(WHOLE) - 1):
            play(server, WHOLE[:place], Cut())
            result = ask(client)
            assert isinstance(result.error, errors.StreamTruncated), place
            lines = sum(1 for start in starts[1:] if start - 1 <= place)
            response = result.response
            assert response.reasoning == ("t\u00e9" if lines > 0 else "")
            assert response.content == ["", "", "a\U0001f600", "a\U0001f600b"][min(lines, 3)]
            assert len(response.tool_calls) == (lines > 3)
            assert response.finish_reason is None


@pytest.mark.parametrize("last", [said("a"), said("a") + said("b")[:-9], b'{"model'])
@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
def test_an_end_without_done_is_truncated(server, last, framing):
    play(server, last, framing=framing)
    with ollama_of(server) as client:
        result = ask(client)
    assert isinstance(result.error, errors.StreamTruncated)
    assert result.error.retryable and '"done": true' in str(result.error)


def test_a_last_line_without_its_line_end_is_a_line(server):
    play(server, said("a") + end()[:-1])
    with ollama_of(server) as client:
        assert ask(client).response.finish_reason == "stop"


def test_a_line_that_is_no_json_with_others_behind_it(server):
    result = failed(server, said("a"), b'{"message": \n', said("b"), end())
    assert isinstance(result.error, errors.ProtocolError)
    assert result.response.content == "a"


@pytest.mark.parametrize(
    "calls",
    [3, [{"function": {}}], [{"function": {"name": 3}}], ["f"], [{"name": "f"}], {"f": 1}],
)
def test_calls_that_cannot_be_read(server, calls):
    result = failed(server, said(tool_calls=calls), end())
    assert isinstance(result.error, errors.ProtocolError)


@pytest.mark.parametrize("body", ["<html>busy</html>", "data: {}\n\n", "", "[]"])
def test_what_is_no_answer(server, body):
    server.reply(body, content_type="text/html")
    with ollama_of(server) as client:
        error = ask(client).error
    assert isinstance(error, errors.ProtocolError)
    assert "expected lines of JSON" in str(error)


def test_nothing_is_read_after_done(server):
    play(server, said("a") + end() + said("b") + line(error="late"))
    with ollama_of(server) as client:
        assert ask(client).text == "a"


# --- clocks, stops, limits ------------------------------------------------------------------


def test_loading_a_model_is_no_stall(server):
    play(server, Pause(0.6), *ollama_chunks("ok"))
    with ollama_of(server, stall=0.3) as client:
        assert ask(client).text == "ok"


def test_loading_for_ever_is_no_answer(server):
    play(server, Hang())
    with ollama_of(server, first_token=0.1) as client:
        assert isinstance(ask(client).error, errors.FirstTokenTimeout)


def test_silence_is_a_stall(server):
    result = failed(server, said("a"), Hang(), stall=0.1)
    assert isinstance(result.error, errors.StallTimeout)
    assert result.response.content == "a"


def test_the_deadline(server):
    result = failed(server, said("a"), Hang(), total=0.2)
    assert isinstance(result.error, errors.DeadlineExceeded)


@pytest.mark.parametrize("pieces", [[], [said("a")], [said(thinking="t")]])
def test_stop_in_each_phase(server, pieces):
    gate, token = Gate(), CancelToken()
    play(server, *pieces, gate, *ollama_chunks("late"))
    with ollama_of(server) as client:
        task = Task(lambda: ask(client, cancel=token))
        wait_until(lambda: gate.reached)
        token.cancel("enough")
        result = task.result()
        gate.open()
    assert isinstance(result.error, errors.Cancelled)


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"event": 300}, "event"),
        ({"line": 300}, "line"),
        ({"answer": 300}, "answer"),
    ],
)
def test_limits(server, limits, name):
    result = failed(server, said("a" * 500), end(), limits=Limits(**limits))
    assert isinstance(result.error, errors.LimitExceeded)
    assert result.error.limit == name


def test_the_limit_of_arguments(server):
    calls = [{"function": {"name": "f", "arguments": {"x": "y" * 500}}}]
    result = failed(server, said(tool_calls=calls), limits=Limits(tool_arguments=100))
    assert isinstance(result.error, errors.LimitExceeded)
