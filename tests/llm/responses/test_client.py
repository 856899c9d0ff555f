"""The Responses API over a real socket: stopped, silent, too much, secrets."""

from __future__ import annotations

import json

import pytest

from agentstream import CancelToken, ChatRequest, Limits, OpenAIClient, Timeouts, errors
from agentstream.llm.messages import ChatMessage
from agentstream.testing import Cut, Hang, Reply, responses_chunks, sse
from tests.kit.support import KEY, NO_RETRIES, PROMPT, ask

THOUGHT = {
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "Hm \u00e9"}],
    "encrypted_content": "gAAAA",
}


def client_of(url, **settings):
    settings = {"api": "responses", "api_key": KEY, "retries": NO_RETRIES, **settings}
    return OpenAIClient("m", base_url=url, **settings)


def test_a_stop_in_the_stream(server):
    server.reply(*responses_chunks("Hel", "lo")[:5], Hang())
    token = CancelToken()
    with client_of(server.url) as client:
        result = ask(client, cancel=token, on_delta=lambda d: d.content and token.cancel("x"))
    assert isinstance(result.error, errors.Cancelled)
    assert result.text == "Hel"


def test_a_stop_before_the_headers(server):
    token = CancelToken()
    server.route("/responses", lambda _: (token.cancel("x"), Reply(Hang()))[1])
    with client_of(server.url) as client:
        result = ask(client, cancel=token)
    assert isinstance(result.error, errors.Cancelled)


def test_silence_is_a_stall(server):
    server.reply(*responses_chunks("Hel", "lo")[:5], Hang())
    with client_of(server.url, timeouts=Timeouts(stall=0.2)) as client:
        result = ask(client)
    assert isinstance(result.error, errors.StallTimeout)
    assert result.text == "Hel"


def test_a_connection_that_ends_is_truncated_and_asked_for_again_before_the_first_delta(server):
    server.reply(*responses_chunks("Hello")[:2], Cut())
    server.reply(*responses_chunks("Hello"))
    with client_of(server.url, retries=None) as client:
        result = ask(client)
    assert (result.error, result.text, len(result.retries)) == (None, "Hello", 1)


@pytest.mark.parametrize(
    ("limits", "items"),
    [
        ({"answer": 4}, ["Hel", "lo"]),
        ({"tool_arguments": 4}, [("f", {"a": "b"})]),
        ({"event": 600}, [{**THOUGHT, "encrypted_content": "g" * 1000}]),
    ],
)
def test_limits_hold(server, limits, items):
    server.reply(*responses_chunks(*items))
    with client_of(server.url, limits=Limits(**limits)) as client:
        assert isinstance(ask(client).error, errors.LimitExceeded)


def test_w06_a_call_in_which_the_answer_was_cut_is_marked(server):
    server.reply(
        *responses_chunks(("f", {"a": 1}), ("f", '{"a": '), incomplete="max_output_tokens")
    )
    with client_of(server.url) as client:
        response = ask(client).response
    assert response.finish_reason == "length"
    assert [call.cut for call in response.tool_calls] == [False, True]


@pytest.mark.parametrize(
    ("reason", "word", "warned"),
    [
        ("max_output_tokens", "length", "cut"),
        ("max_messages", "length", "cut"),
        ("content_filter", "content_filter", "cut"),
        ("steered", "steered", "not known"),
    ],
)
def test_w10_why_an_answer_is_incomplete(server, reason, word, warned):
    server.reply(*responses_chunks("Hel", incomplete=reason))
    with client_of(server.url) as client:
        response = ask(client).response
    assert response.finish_reason == word
    assert warned in str(response.warnings)
    assert reason in str(response.warnings)


def test_an_answer_in_one_piece_counts_though_a_stream_was_asked_for(server):
    body = json.loads(responses_chunks(THOUGHT, "Hello", ("f", {}))[-1].split(b"data: ")[1])
    server.reply_json(body["response"])
    with client_of(server.url) as client:
        response = ask(client).response
    assert (response.content, response.reasoning) == ("Hello", "Hm \u00e9")
    assert (response.finish_reason, response.tool_calls[0].name) == ("tool_calls", "f")
    assert [item["type"] for item in response.provider_state["items"]] == [
        "reasoning",
        "message",
        "function_call",
    ]


def test_halves_of_characters_meet(server):
    events = [
        {"type": "response.output_text.delta", "output_index": 0, "delta": half}
        for half in ("a\ud83d", "\ude00b", "\ud83d")
    ]
    events.append({"type": "response.completed", "response": {"status": "completed"}})
    server.reply(*(sse(event) for event in events))
    with client_of(server.url) as client:
        assert ask(client).text == "a\U0001f600b\ufffd"


def test_no_error_shows_a_key_or_a_prompt(server):
    error = {"type": "error", "message": f"what is {KEY}, said {PROMPT}", "code": "odd"}
    server.reply(sse(error))
    server.reply_json({"error": {"message": f"{KEY}: {PROMPT}"}}, status=400)
    request = ChatRequest([ChatMessage.system("Instructions of mine"), ChatMessage.user(PROMPT)])
    with client_of(server.url) as client:
        for _ in range(2):
            assert "MARKED" not in str(ask(client, request).error)
