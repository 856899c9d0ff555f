"""docs/faults.rst V05 to V08: errors in the stream, odd endings, tool calls for ever, redirects."""

from __future__ import annotations

import time

import pytest

from agentstream import errors
from agentstream.agent import Agent, ToolLimits
from agentstream.llm import call
from agentstream.llm.settings import Retries
from agentstream.testing import Hang, Reply, ScriptedServer, sse, text_chunks
from agentstream.testing.pieces import chat_chunk
from agentstream.tools import tool
from tests.faults.test_provider import ROOM, refused, said
from tests.kit.support import KEY, PROMPT, client_of, hunt

BEGINNING = text_chunks("Hello", finish_reason=None, usage=False, done=False)

# --- V05 ---

ERRORS = {
    "error object": sse(said("engine died", code="boom")),
    "error string": sse({"error": "engine died"}),
    "beside choices": sse({**said("engine died"), "choices": [{"delta": {"content": "x"}}]}),
    "object error": sse({"object": "error", "message": "engine died"}),
    "named event": sse({"error": {"message": "engine died"}}, event="error"),
    "named event, not JSON": sse("engine died", event="error"),
    "error field": b'error: {"code": 500, "message": "engine died"}\n\n',
    "error message": sse({"choices": None, "error_message": "engine died"}),
}


@pytest.mark.parametrize("form", ERRORS)
def test_v05_error_mid_stream(server, form):
    server.reply(*BEGINNING, ERRORS[form], *text_chunks("no more of this"))
    result = refused(server, Retries(3))
    assert type(result.error) is errors.ProviderStreamError
    assert "engine died" in str(result.error)
    assert "engine died" in result.error.body
    assert (result.error.phase, result.error.outcome) == ("stream", "failed")
    assert result.text == "Hello"
    assert len(server.requests) == 1


def test_v05_error_before_the_first_delta_is_no_retry_either(server):
    server.reply(ERRORS["error object"])
    result = refused(server, Retries(3))
    assert type(result.error) is errors.ProviderStreamError
    assert result.error.code == "boom"
    assert len(server.requests) == 1


def test_v05_error_that_echoes_secrets(server):
    server.reply(*BEGINNING, sse(said(f"{KEY} said {PROMPT}", code=f"c-{KEY}")))
    result = refused(server, Retries(0))
    assert type(result.error) is errors.ProviderStreamError
    hunt(result.error.code)


# --- V06 ---


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_v06_cut_by_the_server(server, reason):
    server.reply_text("Hello", finish_reason=reason)
    result = refused(server, Retries(2))
    assert result.error is None
    assert result.response.finish_reason == reason
    assert len(result.response.warnings) == 1
    assert reason in result.response.warnings[0]


def test_v06_refusal(server):
    server.reply(
        chat_chunk({"refusal": "I will "}), chat_chunk({"refusal": "not."}), *text_chunks()[1:]
    )
    result = refused(server, Retries(2))
    assert result.error is None
    assert any("I will not." in warning for warning in result.response.warnings)


def test_v06_empty_answer(server):
    server.reply_text()
    result = refused(server, Retries(2))
    assert result.error is None
    assert result.text == ""
    assert result.response.finish_reason == "stop"
    assert "the answer is empty" in result.response.warnings
    assert len(server.requests) == 1


def test_v06_nothing_but_done(server):
    server.reply(sse("[DONE]"))
    result = refused(server, Retries(2))
    assert result.error is None
    assert "the answer is empty" in result.response.warnings


@pytest.mark.parametrize("reason", ["stop", "tool_calls", "eos_token", "END_TURN"])
def test_v06_reasons_that_are_fine(server, reason):
    server.reply_text("Hello", finish_reason=reason)
    result = refused(server, Retries(0))
    assert result.response.finish_reason == reason
    assert result.response.warnings == ()


# --- V07 ---


@pytest.mark.parametrize("differs", [False, True])
def test_v07_same_tool_call_for_ever(server, differs):
    @tool
    def again(number: int) -> str:
        """Once more."""
        return f"result {number}"

    for n in range(10):
        server.reply_tool_calls(("again", {"number": n if differs else 0}))
    with client_of(server) as client:
        limits = ToolLimits(max_rounds=4, repeat_limit=None)
        agent = Agent("a", client=client, tools=[again], tool_limits=limits)
        with pytest.raises(errors.LimitExceeded) as info:
            agent.execute("hi")
    assert info.value.limit == "max_rounds"
    assert info.value.partial is not None
    assert len(server.requests) == 4
    said = [m["content"] for m in server.requests[3].json["messages"] if m["role"] == "tool"]
    said = [text.split("\n")[0] for text in said]
    assert said == [f"result {n if differs else 0}" for n in range(3)]


# --- V08 ---


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 300, 304])
def test_v08_redirect_is_not_followed(server, status):
    with ScriptedServer() as elsewhere:
        location = elsewhere.url + "/v1/chat/completions"
        server._add(Reply("moved", status=status, headers={"Location": location}), None, False)
        result = refused(server, Retries(3))
        assert elsewhere.connections == 0
    assert type(result.error) is errors.BadRequest
    assert result.error.status == status
    assert result.error.location == location
    assert location in str(result.error)
    assert len(server.requests) == 1


def test_v08_redirect_whose_body_never_ends(monkeypatch, server):
    monkeypatch.setattr(call, "_ERROR_BODY_S", 0.2)
    server.reply(Hang(), status=302, headers={"Location": "http://model.invalid/"})
    start = time.monotonic()
    result = refused(server, Retries(3))
    assert type(result.error) is errors.BadRequest
    assert time.monotonic() - start < 0.2 + ROOM


def test_v08_location_that_holds_the_key(server):
    server.reply(status=302, headers={"Location": f"http://model.invalid/?key={KEY}"})
    result = refused(server, Retries(0))
    assert type(result.error) is errors.BadRequest
    hunt(result.error.location)
