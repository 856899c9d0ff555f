"""Schema mode: what a model without tools is told, and calls and answers out of its JSON."""

from __future__ import annotations

import json

import pytest

from agentstream.errors import ConfigError, ProtocolError
from agentstream.llm.accumulator import Accumulator
from agentstream.llm.llama.schema_tools import SchemaDialect, as_schema_request
from agentstream.llm.messages import ChatMessage, ChatRequest
from agentstream.results import ToolCall
from agentstream.testing import sse
from tests.kit.streams import PlayingClient, chat_dialect


def function(name, **parameters):
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": f"{name}!",
            "parameters": {
                "type": "object",
                "properties": parameters,
                "required": list(parameters),
            },
        },
    }


TOOLS = [function("look", x={"type": "integer"}), function("ask", who={"type": "string"})]


def forms(request):
    schema = request.response_format["json_schema"]["schema"]
    names = []
    for form in schema.get("anyOf", [schema]):
        properties = form["properties"]
        names.append("answer" if "answer" in properties else properties["tool"]["const"])
    return names


def asked(*messages, **fields):
    return as_schema_request(
        ChatRequest([ChatMessage.user("Where?"), *messages], tools=TOOLS, **fields)
    )


CALLED = (
    ChatMessage.assistant(None, [ToolCall("1", "look", '{"x": 1}')]),
    ChatMessage.tool("1", "a tree"),
)


def test_a_call_or_an_answer_is_offered_and_after_a_result_an_answer():
    assert forms(asked()) == ["look", "ask", "answer"]
    assert forms(asked(tool_choice="auto")) == ["look", "ask", "answer"]
    assert forms(asked(tool_choice="required")) == ["look", "ask"]
    assert forms(asked(tool_choice="none")) == ["answer"]
    assert forms(asked(*CALLED)) == ["answer"]
    assert forms(asked(*CALLED, ChatMessage.user("And now?"))) == ["look", "ask", "answer"]
    with pytest.raises(ConfigError):
        asked(response_format={"type": "json_object"})


def test_the_words_describe_tools_calls_and_results():
    request = asked(*CALLED)
    assert (list(request.tools), request.tool_choice) == ([], None)
    system, question, call, result = request.messages
    assert '- look: look! Arguments: {"x": {"type": "integer"}}' in system["content"]
    assert question["content"] == "Where?"
    assert json.loads(call["content"]) == {"tool": "look", "arguments": {"x": 1}}
    assert result["role"] == "user"
    assert "Result of look: a tree" in result["content"]
    assert result["content"].endswith("Now answer my question in words: Where?")
    own = as_schema_request(ChatRequest([ChatMessage.system("Be brief.")], tools=TOOLS))
    assert own.messages[0]["content"].startswith("Be brief.\n\nTools:")


def body(text, finish="stop", size=1):
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    chunks = [sse({"choices": [{"index": 0, "delta": {"content": p}}]}) for p in pieces]
    chunks.append(sse({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}))
    return [*chunks, b"data: [DONE]\n\n"]


def play(text, **how):
    client = PlayingClient(body(text, **how), tool_mode="schema")
    stream = client.stream_deltas(ChatRequest([ChatMessage.user("x")], tools=TOOLS))
    texts = [delta.content for delta in stream if delta.content]
    response = stream.answer.response()
    client.close()
    assert "".join(texts) == response.content
    return texts, response


@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_answer_streams_out_of_the_json(size):
    texts, response = play('{\n "answer": "Gr\\u00fc\\u00dfe 😀"}', size=size)
    assert response.content == "Grüße 😀"
    assert (response.tool_calls, response.finish_reason) == ((), "stop")
    assert len(texts) == {1: 7, 3: 5, 100: 1}[size]


@pytest.mark.parametrize("size", [1, 100])
def test_a_call_in_the_json_is_a_tool_call(size):
    _, response = play('{"tool": "look", "arguments": {"x": 1, "answer": "no"}}', size=size)
    (call,) = response.tool_calls
    assert (call.name, json.loads(call.arguments)) == ("look", {"x": 1, "answer": "no"})
    assert call.id
    assert (response.content, response.finish_reason) == ("", "tool_calls")


def test_a_call_that_was_cut_is_a_warning_and_talk_is_talk():
    _, response = play('{"tool": "look", "argum', finish="length")
    assert response.tool_calls == ()
    assert any("neither a whole call nor an answer" in w for w in response.warnings)
    texts, response = play("Just talk.", size=4)
    assert (texts, response.content) == (["Just", " tal", "k."], "Just talk.")
    _, response = play('{"answer": "cut in the mid', finish="length")
    assert (response.content, response.finish_reason) == ("cut in the mid", "length")


def test_json_without_an_end_is_refused():
    dialect = SchemaDialect(chat_dialect())
    dialect.begin(Accumulator())

    def said(text):
        return json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]})

    dialect.read("message", said("{"))
    with pytest.raises(ProtocolError):
        for _ in range(17):
            dialect.read("message", said(" " * 2**16))
