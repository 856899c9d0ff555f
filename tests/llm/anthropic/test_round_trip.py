"""What an answer was goes back whole, in order and in place: to its server, and to no other.

The server here is strict: a request that misses, alters, adds or moves anything of what
it said is a 400.
"""

from __future__ import annotations

import json

import pytest

from agentstream import Agent, Conversation, LlamaClient, tool
from agentstream.llm.anthropic.client import AnthropicClient
from agentstream.testing import Reply, ScriptedServer, messages_chunks, text_chunks
from tests.kit.support import KEY, NO_RETRIES

ROUNDS = [
    [
        {"type": "thinking", "thinking": "First I look.", "signature": "S1"},
        {"type": "redacted_thinking", "data": "R1"},
        "Let me see.",
        ("look", {"at": "a"}),
        ("look", {"at": "b"}),
    ],
    [
        {"type": "thinking", "thinking": "", "signature": "S2"},
        {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "c"}},
        {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": [{"url": "u"}]},
        "Once more.",
        {"type": "thinking", "thinking": "c \u00e9 \U0001f600", "signature": "S3"},
        ("look", {}),
    ],
    [
        ("look", {"at": "\u00e9"}),
    ],
    [
        {"type": "thinking", "thinking": "Done.", "signature": "S4"},
        "It is ",
        {"type": "text", "text": "so", "citations": [{"url": "u"}]},
        "indeed.",
    ],
]


def blocks_of(answer, number):
    """A scripted answer as Messages' blocks; its calls' ids tell the round."""
    calls = 0
    blocks = []
    for block in answer:
        if isinstance(block, str):
            block = {"type": "text", "text": block}
        elif isinstance(block, tuple):
            name, given = block
            block = {"type": "tool_use", "id": f"r{number}_{calls}", "name": name, "input": given}
            calls += 1
        blocks.append(block)
    return blocks


class Strict:
    """Plays the rounds of a conversation, and holds each request against what was said before."""

    def __init__(self, server, rounds=ROUNDS):
        self.rounds = rounds
        self.served = 0
        self.refused = []
        server.route("/v1/messages", self.answer)

    def answer(self, request):
        told = [turn for turn in request.json["messages"] if turn["role"] == "assistant"]
        expected = [blocks_of(answer, n) for n, answer in enumerate(self.rounds[: self.served])]
        problem = self.problem([turn["content"] for turn in told], expected, request.json)
        if problem:
            self.refused.append(problem)
            error = {"type": "invalid_request_error", "message": problem}
            return Reply.json({"type": "error", "error": error}, status=400)
        number, self.served = self.served, self.served + 1
        body = b"".join(messages_chunks(*self.rounds[number]))
        return Reply(body.replace(b'"toolu_', f'"r{number}_'.encode()))

    @staticmethod
    def problem(told, expected, body):
        without_marks = json.loads(
            json.dumps(body).replace(', "cache_control": {"type": "ephemeral"}', "")
        )
        if told != expected:
            return f"altered: {told[-1:]} is not {expected[-1:]}"
        turns = without_marks["messages"]
        for turn, after in zip(turns, turns[1:]):
            ids = [b["id"] for b in turn["content"] if b["type"] == "tool_use"]
            results = [b.get("tool_use_id") for b in after["content"] if b["type"] == "tool_result"]
            if turn["role"] == "assistant" and ids != results:
                return f"results of {results}, not of {ids}"
            if turn["role"] == after["role"]:
                return "two turns in a row"
        return ""


@tool
def look(at: str = "nothing") -> str:
    """Look at something.

    Args:
        at: what
    """
    return f"saw {at}"


def client_of(server):
    return AnthropicClient("m", base_url=server.url, api_key=KEY, retries=NO_RETRIES)


def test_a_tool_loop_of_three_rounds(server):
    strict = Strict(server)
    with client_of(server) as client:
        output = Agent("seer", system_prompt="Be brief.", client=client, tools=[look]).execute(
            "Look!"
        )
    assert strict.refused == []
    assert strict.served == 4
    assert output.response == "It is soindeed."
    last = server.requests[-1].json
    assert last["system"][0]["text"] == "Be brief."
    results = [
        block["content"]
        for turn in last["messages"]
        for block in turn["content"]
        if block["type"] == "tool_result"
    ]
    assert results == ["saw a", "saw b", "saw nothing", "saw \u00e9"]


def test_a_conversation_that_is_saved_and_loaded(server, tmp_path):
    strict = Strict(server, [*ROUNDS, ["Yes."]])
    path = tmp_path / "conversation.json"
    conversation = Conversation()
    with client_of(server) as client:
        agent = Agent("seer", client=client, tools=[look])
        agent.execute("Look!", conversation=conversation)
        conversation.save(path)
        output = agent.execute("Sure?", conversation=Conversation.load(path))
    assert (output.response, strict.refused, strict.served) == ("Yes.", [], 5)


def test_a_conversation_that_moves_to_another_provider_and_back(server):
    strict = Strict(server, [ROUNDS[3], ["Yes."]])
    conversation = Conversation()
    with ScriptedServer() as other, client_of(server) as client:
        other.reply(*text_chunks("Who knows."))
        Agent("a", client=client).execute("So?", conversation=conversation)
        with LlamaClient(other.url) as llama:
            Agent("b", client=llama).execute("Really?", conversation=conversation)
        sent = json.dumps(other.requests[0].json)
        assert "It is soindeed." in sent
        assert "S4" not in sent
        assert "Done." not in sent
        # The other's answer stands among ours, so the strict server is told of it.
        strict.rounds.insert(1, ["Who knows."])
        strict.served = 2
        output = Agent("a", client=client).execute("Well?", conversation=conversation)
    assert (output.response, strict.refused) == ("Yes.", [])


def test_another_server_of_messages_gets_text_and_calls_alone(server):
    conversation = Conversation()
    Strict(server)
    with client_of(server) as client:
        Agent("a", client=client, tools=[look]).execute("Look!", conversation=conversation)
    with ScriptedServer() as other, client_of(other) as client:
        other.reply(*messages_chunks("Yes."))
        Agent("a", client=client, tools=[look]).execute("Sure?", conversation=conversation)
        turns = other.requests[0].json["messages"]
    kinds = [[block["type"] for block in turn["content"]] for turn in turns]
    assert kinds[1] == ["text", "tool_use", "tool_use"]
    assert kinds[3] == ["text", "tool_use"]
    assert kinds[7] == ["text"]


@pytest.mark.parametrize("change", ["signature", "order", "missing"])
def test_the_strict_server_is_strict(server, change):
    """That a 400 follows is what makes the tests above mean something."""
    strict = Strict(server)
    strict.served = 1
    blocks = blocks_of(ROUNDS[0], 0)
    if change == "signature":
        blocks[0] = {**blocks[0], "signature": "S9"}
    elif change == "order":
        blocks[1:3] = blocks[2:0:-1]
    else:
        del blocks[1]
    assert strict.problem([blocks], [blocks_of(ROUNDS[0], 0)], {"messages": []})
