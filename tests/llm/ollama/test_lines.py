"""What Ollama writes: text, thinking, calls, counts and reasons, over a socket."""

from __future__ import annotations

import json
from typing import Any, Dict, List

import pytest

from agentstream import Agent, Conversation, OllamaClient, Usage, tool
from agentstream.llm.messages import as_request
from agentstream.testing import Drip, Reply, ScriptedServer, ollama_chunks, text_chunks
from tests.kit.support import ask, client_of
from tests.llm.ollama.kit import answer, end, line, ollama_of, play, said


def read(server: ScriptedServer, *pieces: Any) -> Any:
    play(server, *pieces)
    with ollama_of(server) as client:
        result = ask(client)
    assert result.error is None, result.error
    return result


def test_text_thinking_and_counts(server):
    result = read(
        server,
        said(thinking="Let me "),
        said(thinking="see."),
        said("Hel"),
        said("lo"),
        end(prompt_eval_count=7, eval_count=5, total_duration=9, load_duration=4),
    )
    response = result.response
    assert (response.content, response.reasoning) == ("Hello", "Let me see.")
    assert (response.finish_reason, response.model) == ("stop", "m")
    assert response.usage == Usage(7, 5, 12)
    assert response.warnings == ()
    assert result.texts == ["Hel", "lo"]


def test_the_words_of_the_last_line_count(server):
    last = line(model="m", message={"content": "lo"}, done=True, done_reason="stop")
    assert read(server, said("Hel"), last).text == "Hello"


def test_an_answer_that_is_not_streamed(server):
    message = {"role": "assistant", "content": "whole", "thinking": "t"}
    body = json.dumps({"model": "m", "message": message, "done": True, "eval_count": 2})
    server.reply(body, content_type="application/json", framing="length")
    with ollama_of(server) as client:
        response = client.chat("hi")
    assert (response.content, response.reasoning, response.finish_reason) == ("whole", "t", "stop")
    assert response.usage == Usage(None, 2)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_bytes_as_they_come(server, size):
    body = said("caf\u00e9 ") + said("\U0001f600") + b"\n" + end(eval_count=2)
    assert read(server, Drip(body, size, 0.0)).text == "caf\u00e9 \U0001f600"


def test_p07_surrogates_are_joined_or_replaced(server):
    pieces = [said("a\ud83d"), said("\ude00b\ud83d"), said(thinking="\ud83d"), end()]
    response = read(server, *pieces).response
    assert response.content == "a\U0001f600b\ufffd"
    assert response.reasoning == "\ufffd"


def call(name: str, arguments: Any = None, **fields: Any) -> Dict[str, Any]:
    function = {"name": name} if arguments is None else {"name": name, "arguments": arguments}
    return {"function": function, **fields}


def test_calls_are_whole_and_each_has_an_id(server):
    response = read(
        server,
        said(tool_calls=[call("f", {"x": "\u00e9", "y": [1, None]}), call("f", {})]),
        said(tool_calls=[call("g"), call("h", '{"a": 1}', id="call_7")]),
        end("stop"),
    ).response
    names = [one.name for one in response.tool_calls]
    arguments = [one.arguments for one in response.tool_calls]
    assert names == ["f", "f", "g", "h"]
    assert arguments == ['{"x": "\u00e9", "y": [1, null]}', "{}", "{}", '{"a": 1}']
    ids = [one.id for one in response.tool_calls]
    assert len(set(ids)) == 4 and all(ids) and ids[3] == "call_7"
    assert response.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("arguments", "cut"), [({}, False), ({"x": 1}, False), ('{"x": ', True), ("", True)]
)
def test_w06_a_call_cut_at_the_limit_is_marked(server, arguments, cut):
    pieces = [said(tool_calls=[call("f", {"a": 1}), call("f", arguments)]), end("length")]
    response = read(server, *pieces).response
    assert [one.cut for one in response.tool_calls] == [False, cut]
    assert response.finish_reason == "length"
    assert response.warnings == ("the answer was cut: done_reason length",)


@pytest.mark.parametrize(
    ("reason", "finish", "warning"),
    [
        ("stop", "stop", ()),
        ("", "stop", ()),
        ("length", "length", ("the answer was cut: done_reason length",)),
        ("load", "stop", ("the server gave no answer: done_reason load",)),
        ("unload", "stop", ("the server gave no answer: done_reason unload",)),
        ("n\x1bew", "new", ("the answer ended for a reason that is not known: done_reason new",)),
    ],
)
def test_w10_reasons(server, reason, finish, warning):
    response = read(server, said("a"), end(reason)).response
    assert (response.finish_reason, response.warnings) == (finish, warning)


@pytest.mark.parametrize("count", [-1, True, "7", 2.5, 2**60, None])
def test_counts_that_are_none(server, count):
    response = read(server, said("a"), end(prompt_eval_count=count, eval_count=1)).response
    assert response.usage == Usage(None, 1)
    response = read(server, said("a"), end(prompt_eval_count=count)).response
    assert response.usage.estimated


@pytest.mark.parametrize(
    "odd",
    [b"null\n", b"[]\n", b'{"status": "loading"}\n', line(model="m", message=None), b" \r\n"],
)
def test_lines_that_say_nothing(server, odd):
    assert read(server, said("a"), odd, said("b"), end()).text == "ab"


def test_an_answer_without_a_word_is_empty(server):
    assert read(server, end()).response.warnings == ("the answer is empty",)


# --- thinking goes home ---------------------------------------------------------------------


@tool
def look(x: str = "") -> str:
    """Look."""
    return f"seen {x}"


def strict(messages: List[Dict[str, Any]], turns: List[Dict[str, Any]]) -> str:
    """What is wrong with a request's messages; `turns` are the answers given before it."""
    asked = [dict(message) for message in messages if message["role"] == "assistant"]
    if asked != turns:
        return f"expected {turns}, got {asked}"
    for place, message in enumerate(messages):
        if message["role"] == "tool" and set(message) != {"role", "content", "tool_name"}:
            return f"message {place}"
    return ""


def test_thinking_goes_back_in_place_over_three_rounds(server):
    turns: List[Dict[str, Any]] = []

    def route(request: Any) -> Reply:
        problem = strict(request.json["messages"], turns)
        if problem:
            return Reply.json({"error": problem}, status=400)
        number = len(turns)
        told = [f"think {number}, ", "more \u00e9"]
        turn: Dict[str, Any] = {"role": "assistant", "content": "", "thinking": "".join(told)}
        if number < 3:
            calls = [("look", {"x": str(number)}), ("look", {"x": f"b{number}"})]
            turn["tool_calls"] = [call(*one) for one in calls]
            turns.append(turn)
            return answer(*ollama_chunks(thinking=told, tool_calls=calls))
        turn["content"] = f"done {number}"
        turns.append(turn)
        return answer(*ollama_chunks(turn["content"], thinking=told))

    server.route("/api/chat", route)
    with ollama_of(server) as client:
        conversation = Conversation()
        agent = Agent("a", client=client, tools=[look])
        assert agent.execute("go", conversation=conversation).response == "done 3"
        assert agent.execute("on", conversation=conversation).response == "done 4"


def test_thinking_goes_to_no_other_server(server):
    play(server, *ollama_chunks("hi", thinking=["private"]))
    conversation = Conversation()
    with ollama_of(server) as client:
        Agent("a", client=client).execute("go", conversation=conversation)
    server.reply(*text_chunks("ok"))
    with client_of(server) as other:
        Agent("a", client=other).execute("on", conversation=conversation)
    assert "private" not in json.dumps(server.requests[-1].json)
    with ScriptedServer() as elsewhere, ollama_of(elsewhere) as third:
        play(elsewhere, *ollama_chunks("ok"))
        Agent("a", client=third).execute("on", conversation=conversation)
        assert "private" not in json.dumps(elsewhere.requests[-1].json)
    play(server, *ollama_chunks("ok"))
    with ollama_of(server) as client:
        Agent("a", client=client).execute("back", conversation=conversation)
    assert server.requests[-1].json["messages"][1]["thinking"] == "private"


def test_a_client_is_made_without_a_server():
    with OllamaClient("m") as client:
        assert repr(client) == "<OllamaClient 'm' at http://127.0.0.1:11434/api/chat>"
        assert client.timeouts.first_token == 600.0
        client.stream_deltas(as_request("hi")).close()
