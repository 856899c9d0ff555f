"""What a model is sent back of what it said: readable by every server (T01), never empty (T02)."""

from __future__ import annotations

import json
import re

import pytest

from agentstream import Agent, Conversation, Delta, ToolCall
from agentstream.llm.history import UNREADABLE
from agentstream.testing import ScriptedClient, ScriptedServer, text_chunks
from agentstream.testing.pieces import DONE, chat_chunk
from tests.kit.support import client_of
from tests.kit.tool_runs import Ran, call, run, sent_back, told

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


# --- T01: what is sent back is readable by every server -------------------------------------

UNREADABLES = [
    '{"x": "a',
    '{"x"',
    "{",
    "x = 5",
    "[1, 2]",
    "5",
    "true",
    '"just a text"',
    '{"x": NaN}',
    '{"x": 1, "x": 2}',
    '{"x": 1}{"x": 2}',
    "<x>5</x>",
    "\ud800",
    "[" * 100_000,
]


@pytest.mark.parametrize("arguments", UNREADABLES, ids=lambda text: repr(text[:20]))
def test_t01_arguments_that_are_no_object_go_back_as_one(arguments):
    ran = Ran()
    _, requests = run([ToolCall("c", "look", arguments)], "done", tools=[ran.tool("look")])
    assert ran.calls == []
    (back,) = sent_back(requests[1])
    assert list(json.loads(back.arguments, parse_constant=pytest.fail)) == [UNREADABLE]
    back.arguments.encode()
    (text,) = told(requests[1])
    assert text.startswith("Error: ")
    shown = arguments[:8].replace('"', '\\"').replace("\ud800", "\ufffd")
    assert shown in text
    text.encode()
    assert len(text) < 1000


@pytest.mark.parametrize(
    ("arguments", "back"),
    [
        ("", "{}"),
        ("  ", "{}"),
        ("null", "{}"),
        ("{}", "{}"),
        ('{"x": "a"}', '{"x": "a"}'),
        (' {"x" : "a"} ', ' {"x" : "a"} '),
        ('"{\\"x\\": \\"a\\"}"', '{"x": "a"}'),
        ('{"x": "a\nb\tc"}', '{"x": "a\\nb\\tc"}'),
        ('"{\\"x\\": \\"a\\nb\\"}"', '{"x": "a\\nb"}'),
        ('{"x": "\\ud83d\\ude00"}', '{"x": "\\ud83d\\ude00"}'),
        ('{"x": "\\ud83d"}', '{"x": "\ufffd"}'),
    ],
    ids=repr,
)
def test_t01_t05_arguments_that_can_be_read_are_taken_and_go_back_readable(arguments, back):
    ran = Ran()
    _, requests = run([ToolCall("c", "look", arguments)], "done", tools=[ran.tool("look")])
    assert [name for name, _ in ran.calls] == ["look"]
    assert ran.calls[0][1] == json.loads(back).get("x", "")
    assert sent_back(requests[1])[0].arguments == back
    json.loads(back)
    assert told(requests[1]) == ["ok"]


@pytest.mark.parametrize("name", ["get weather!", "", "a" * 100, "é", "f(x)", "\n", "😀", "a/b c"])
def test_t01_a_name_that_no_server_takes_goes_back_as_one_that_all_take(name):
    output, requests = run([ToolCall("c", name, "{}")], "done", tools=[Ran().tool("look")])
    assert output.response == "done"
    assert NAME.fullmatch(sent_back(requests[1])[0].name)
    assert "there is no tool" in told(requests[1])[0]


def test_t01_over_the_wire(server):
    server.reply_tool_calls(("get weather!", '{"city": "Ro'), ("look", "[1]"))
    server.reply_text("done")
    with client_of(server) as client:
        Agent("worker", client=client, tools=[Ran().tool("look")]).execute("go")
    asked = server.requests[1].json["messages"][1]
    assert asked["content"] is None
    for made in asked["tool_calls"]:
        assert NAME.fullmatch(made["function"]["name"])
        assert isinstance(json.loads(made["function"]["arguments"]), dict)
    assert [m["role"] for m in server.requests[1].json["messages"]] == [
        "user",
        "assistant",
        "tool",
        "tool",
    ]


# --- T02: an empty answer -------------------------------------------------------------------


@pytest.mark.parametrize(
    "chunks",
    [
        [chat_chunk({"content": ""}), chat_chunk({}, finish_reason="stop")],
        [chat_chunk({}, finish_reason="stop")],
        [chat_chunk({"reasoning_content": "Hm."}), chat_chunk({}, finish_reason="stop")],
        [chat_chunk({"content": "\n\n"}), chat_chunk({}, finish_reason="stop")],
    ],
    ids=["empty", "nothing", "reasoning alone", "blank"],
)
def test_t02_an_empty_answer_is_not_remembered(server, chunks, tmp_path):
    server.reply(*text_chunks("Hello."))
    server.reply(*chunks, DONE)
    server.reply(*text_chunks("I am here."))
    conversation = Conversation()
    with client_of(server) as client:
        agent = Agent("worker", client=client)
        agent.execute("Hi", conversation=conversation)
        output = agent.execute("And?", conversation=conversation)
        assert output.response.strip() == ""
        assert any("empty" in warning for warning in output.chat_response.warnings)
        conversation.save(tmp_path / "talk.json")
        conversation = Conversation.load(tmp_path / "talk.json")
        agent.execute("Are you there?", conversation=conversation)
    sent = [(m["role"], m["content"]) for m in server.requests[2].json["messages"]]
    assert sent == [("user", "Hi"), ("assistant", "Hello."), ("user", "Are you there?")]


def test_t02_an_empty_answer_after_a_call_is_never_sent():
    ran = Ran()
    client = ScriptedClient([call("look")], [Delta(finish_reason="stop")], "done")
    agent = Agent("worker", client=client, tools=[ran.tool("look")])
    conversation = Conversation()
    agent.execute("go", conversation=conversation)
    agent.execute("go on", conversation=conversation)
    assert all(m.content != "" for r in client.requests for m in r.messages)
    assert len(conversation) == 2


def test_a_server_is_sent_no_empty_text_beside_calls(server: ScriptedServer) -> None:
    server.reply_tool_calls(("look", "{}"))
    server.reply_text("done")
    with client_of(server) as client:
        Agent("worker", client=client, tools=[Ran().tool("look")]).execute("go")
    assert server.requests[1].json["messages"][1]["content"] is None
