"""docs/faults.rst P09 to P11: answers that are no stream, tool calls in all their forms."""

from __future__ import annotations

import json

import pytest

from agentstream import errors
from agentstream.agent import Agent
from agentstream.events.stream import EventStream
from agentstream.llm.settings import Retries
from agentstream.testing import Cut, Hang
from agentstream.testing.pieces import chat_chunk
from agentstream.tools import tool
from tests.faults.test_protocol import answer_of, is_protocol_error
from tests.kit.support import ask, client_of

# --- P09: a 200 that is no stream ---


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream", None])
def test_p09_json_body(server, content_type):
    message = {"role": "assistant", "content": "Whole."}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    whole = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
    server.reply_json(whole, content_type=content_type)
    with client_of(server) as client:
        result = ask(client)
    assert result.error is None
    assert result.text == "Whole."
    assert result.response.finish_reason == "stop"
    assert result.response.usage.total_tokens == 3


def test_p09_json_body_over_several_lines_and_with_tool_calls(server):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    whole = {"choices": [{"message": message, "finish_reason": "tool_calls"}]}
    server.reply("\n" + json.dumps(whole, indent=2), content_type="application/json")
    with client_of(server) as client:
        result = ask(client)
    assert result.error is None
    assert [tuple(c) for c in result.response.tool_calls] == [("c", "f", "{}")]


@pytest.mark.parametrize("content_type", ["text/html", "text/event-stream", "text/plain"])
def test_p09_html_body(server, content_type):
    page = "<!DOCTYPE html><html><head><title>Sign in</title></head>" + "<p>x</p>" * 900
    server.reply(page, content_type=content_type, framing="length")
    with client_of(server, retries=Retries(2)) as client:
        result = ask(client)
    assert type(result.error) is errors.ProtocolError
    assert result.error.content_type == content_type
    assert "Sign in" in str(result.error)
    assert 0 < len(result.error.raw) <= 1024
    assert len(server.requests) == 1


@pytest.mark.parametrize("whole", [{}, {"choices": []}, {"ok": True}, [], {"choices": [{}]}])
def test_p09_json_that_is_no_answer(server, whole):
    server.reply_json(whole)
    with client_of(server) as client:
        result = ask(client)
    assert type(result.error) is errors.ProtocolError
    assert "application/json" in str(result.error)


def test_p09_json_error_in_a_200(server):
    server.reply_json({"error": "Unexpected endpoint or method. (POST /v1/chat/completions)"})
    with client_of(server) as client:
        result = ask(client)
    assert type(result.error) is errors.ProviderStreamError
    assert "Unexpected endpoint" in str(result.error)


def test_p09_json_body_cut(server):
    server.reply(
        '{"choices": [{"mess', Cut(), content_type="application/json", length=900, framing="length"
    )
    with client_of(server) as client:
        result = ask(client)
    assert type(result.error) is errors.StreamTruncated


def test_p09_json_body_that_never_ends(server):
    server.reply('{"choices": [', Hang(), content_type="application/json")
    with client_of(server, first_token=0.2) as client:
        result = ask(client)
    assert type(result.error) is errors.FirstTokenTimeout


# --- P10: tool calls ---


def tool_parts(*parts):
    return [chat_chunk({"tool_calls": [part]}) for part in parts]


def part(arguments="", *, index=None, id=None, name=None):
    function = {key: v for key, v in (("name", name), ("arguments", arguments)) if v is not None}
    found = {"index": index, "id": id, "function": function}
    return {key: value for key, value in found.items() if value is not None}


CALLS = {
    "out of order": [
        part('{"n":', index=1, id="b", name="g"),
        part('{"m":', index=0, id="a", name="f"),
        part("1}", index=1),
        part("2}", index=0),
    ],
    "index reused with a new id": [
        part('{"n":1}', index=0, id="b", name="g"),
        part('{"m":2}', index=0, id="a", name="f"),
    ],
    "no index": [
        part('{"n":1}', id="b", name="g"),
        part('{"m":', id="a", name="f"),
        part("2}"),
    ],
    "numbered from one, empty ids and names": [
        part('{"n":1}', index=1, id="b", name="g"),
        part('{"m":', index=2, id="a", name="f"),
        part("2}", index=2, id="", name=""),
    ],
}


@pytest.mark.parametrize("form", CALLS)
def test_p10_assembled(server, form):
    result = answer_of(server, *tool_parts(*CALLS[form]))
    assert result.error is None
    calls = [tuple(call) for call in result.response.tool_calls]
    assert calls == [("b", "g", '{"n":1}'), ("a", "f", '{"m":2}')]


def test_p10_no_id_gets_one(server):
    result = answer_of(server, *tool_parts(part("{}", index=0, name="f")))
    assert result.error is None
    assert result.response.tool_calls[0].id


@pytest.mark.parametrize("calls", [[{"function": {"arguments": "{}"}}], "x", 5])
def test_p10_cannot_be_assembled(server, calls):
    is_protocol_error(answer_of(server, chat_chunk({"tool_calls": calls})))


# --- P11: arguments that are no JSON ---


def test_p11_arguments_never_valid(server):
    called = []

    @tool
    def weather(city: str) -> str:
        """The weather of a city."""
        called.append(city)
        return "sun"

    server.reply_tool_calls(("weather", '{"city": "Par'))
    server.reply_text("Sorry.")
    with EventStream() as events, client_of(server) as client:
        seen = []
        events.subscribe(seen.append)
        agent = Agent("a", client=client, tools=[weather])
        output = agent.execute_with_events("hi", events)
    assert output.response == "Sorry."
    assert not called
    said = server.requests[1].json["messages"][-1]
    assert said["role"] == "tool"
    assert "JSON" in said["content"]
    failed = [e for e in seen if e.type == "tool_call_failed"]
    assert [e.data["error"] for e in failed] == ["ToolError"]
