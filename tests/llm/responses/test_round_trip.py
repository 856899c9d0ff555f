"""The items of an answer go back whole, in order and in place: to their server, to no other.

The server here is strict: a request that misses, alters, adds or moves anything of what
it said is a 400.
"""

from __future__ import annotations

import json
import pathlib
import re

import pytest

from agentstream import (
    Agent,
    ChatMessage,
    ChatRequest,
    Conversation,
    LlamaClient,
    OpenAIClient,
    ToolCall,
    tool,
)
from agentstream.testing import Reply, ScriptedServer, responses_chunks, text_chunks
from tests.kit.support import KEY, NO_RETRIES, ask


def thought(number, **more):
    return {
        "type": "reasoning",
        "id": f"rs_{number}",
        "summary": [{"type": "summary_text", "text": f"Thinking {number} \u00e9."}],
        "encrypted_content": f"gAAAA{number}\u00e9\U0001f600",
        **more,
    }


ROUNDS = [
    [thought(1), "Let me", " see.", ("look", {"at": "a"}), ("look", {"at": "b"})],
    [
        thought(2, status=None, content=[]),
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"q": "c"}},
        thought(3),
        "Once more.",
        ("look", {}),
    ],
    [("look", {"at": "\u00e9"})],
    [thought(4), "It is ", "so."],
]


def items_of(answer):
    """The items that a scripted answer consists of, as their `output_item.done` has them."""
    events = [json.loads(piece.split(b"data: ")[1]) for piece in responses_chunks(*answer)]
    return [e["item"] for e in events if e["type"] == "response.output_item.done"]


class Strict:
    """Plays the rounds of a conversation, and holds each request against what was said before."""

    def __init__(self, server, rounds=ROUNDS):
        self.rounds = [self.numbered(answer, n) for n, answer in enumerate(rounds)]
        self.served = 0
        self.refused = []
        server.route("/responses", self.answer)

    @staticmethod
    def numbered(answer, number):
        """The events of an answer, its calls' and items' ids telling the round."""
        body = b"".join(responses_chunks(*answer))
        body = re.sub(rb'"call_(?=\d)', f'"r{number}_'.encode(), body)
        return re.sub(rb'"item_(?=\d)', f'"i{number}_'.encode(), body)

    def answer(self, request):
        said = self.items(self.rounds[: self.served])
        problem = self.problem(request.json, said)
        if problem:
            self.refused.append(problem)
            return Reply.json({"error": {"message": problem}}, status=400)
        self.served += 1
        return Reply(self.rounds[self.served - 1])

    @staticmethod
    def items(bodies):
        lines = [line for body in bodies for line in body.split(b"\n") if line[:5] == b"data:"]
        events = [json.loads(line[5:]) for line in lines]
        return [e["item"] for e in events if e["type"] == "response.output_item.done"]

    @staticmethod
    def problem(body, said):
        if body["store"] or body.get("include") != ["reasoning.encrypted_content"]:
            return "not stateless"
        told = [item for item in body["input"] if "id" in item]
        if told != said:
            return f"altered: {[a for a, b in zip(told, said) if a != b]}, {len(told)}"
        waiting = []
        for item in body["input"]:
            if item.get("type") == "function_call":
                waiting.append(item["call_id"])
            elif item.get("type") == "function_call_output":
                if item["call_id"] != waiting.pop(0):
                    return "a result out of place"
            elif waiting and item.get("type") not in ("reasoning", "message", "web_search_call"):
                return f"no result of {waiting}"
        return f"no result of {waiting}" if waiting else ""


@tool
def look(at: str = "nothing") -> str:
    """Look at something.

    Args:
        at: what
    """
    return f"saw {at}"


def client_of(server, **settings):
    settings = {"api": "responses", "api_key": KEY, "retries": NO_RETRIES, **settings}
    return OpenAIClient("m", base_url=server.url, **settings)


def test_a_tool_loop_of_three_rounds(server):
    strict = Strict(server)
    with client_of(server) as client:
        agent = Agent("seer", system_prompt="Be brief.", client=client, tools=[look])
        output = agent.execute("Look!")
    assert (strict.refused, strict.served) == ([], 4)
    assert output.response == "It is so."
    last = server.requests[-1].json
    assert last["instructions"] == "Be brief."
    results = [item["output"] for item in last["input"] if "output" in item]
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
        assert "It is so." in sent
        assert "gAAAA" not in sent
        assert "rs_4" not in sent
        output = Agent("a", client=client).execute("Well?", conversation=conversation)
    assert (output.response, strict.refused) == ("Yes.", [])
    assert {"role": "assistant", "content": "Who knows."} in server.requests[-1].json["input"]


def test_another_server_of_the_same_api_gets_text_and_calls_alone(server):
    conversation = Conversation()
    Strict(server)
    with client_of(server) as client:
        Agent("a", client=client, tools=[look]).execute("Look!", conversation=conversation)
    with ScriptedServer() as other, client_of(other) as client:
        other.reply(*responses_chunks("Yes."))
        Agent("a", client=client, tools=[look]).execute("Sure?", conversation=conversation)
        items = other.requests[0].json["input"]
    assert not any("id" in item or item.get("type") == "reasoning" for item in items)
    assert [item.get("type") or item["role"] for item in items][:4] == [
        "user",
        "assistant",
        "function_call",
        "function_call",
    ]


@pytest.mark.parametrize("change", ["encrypted", "order", "missing"])
def test_the_strict_server_is_strict(server, change):
    """That a 400 follows is what makes the tests above mean something."""
    said = items_of(ROUNDS[0])
    told = [dict(item) for item in said]
    if change == "encrypted":
        told[0]["encrypted_content"] = "other"
    elif change == "order":
        told[:2] = told[1::-1]
    else:
        del told[0]
    body = {"store": False, "include": ["reasoning.encrypted_content"], "input": told}
    assert Strict(server).problem(body, said)


# --- what cannot go back --------------------------------------------------------------------


def answered(server, *items, **how):
    """The message of an answer."""
    server.reply(*responses_chunks(*items, **how))
    with client_of(server) as client:
        response = ask(client).response
    return ChatMessage.assistant(
        response.content or None, response.tool_calls, response.provider_state
    )


def sent(server, *messages):
    """The input items of a request with these messages."""
    server.reply(*responses_chunks("Yes"))
    with client_of(server) as client:
        assert ask(client, ChatRequest([ChatMessage.user("Hi"), *messages])).error is None
    return server.requests[-1].json["input"][1:]


def test_an_answer_that_was_changed_since_goes_back_as_it_is_now(server):
    message = answered(server, thought(1), "Yes", ("look", {}))
    text = sent(server, message.replace(content="No"), ChatMessage.tool("call_0", "x"))
    assert text[0] == {"role": "assistant", "content": "No"}
    assert text[1]["type"] == "function_call"
    assert "id" not in text[1]
    assert sent(server, message.replace(tool_calls=()))[0] == {
        "role": "assistant",
        "content": "Yes",
    }


def test_arguments_that_were_made_readable_stand_in_their_item(server):
    message = answered(server, thought(1), ("look", "{half"))
    call = ToolCall("call_0", "look", '{"unreadable_arguments": "{half"}')
    items = sent(server, message.replace(tool_calls=(call,)), ChatMessage.tool("call_0", "x"))
    assert items[0]["encrypted_content"] == thought(1)["encrypted_content"]
    assert items[1]["arguments"] == call.arguments
    assert items[1]["id"] == "item_1"


def test_reasoning_that_nothing_follows_is_not_sent(server):
    message = answered(server, thought(1), incomplete="max_output_tokens")
    assert sent(server, message) == [{"role": "assistant", "content": ""}]


def test_reasoning_of_which_there_is_but_an_id_is_not_sent_nor_are_the_ids_beside_it(server):
    message = answered(server, {"type": "reasoning", "id": "rs_1", "summary": []}, "Yes")
    (item,) = sent(server, message)
    assert item["type"] == "message"
    assert "id" not in item


def test_ids_of_calls_that_come_again_are_told_apart(server):
    first = answered(server, ("look", {"at": "a"}))
    second = answered(server, ("look", {"at": "b"}))
    result = ChatMessage.tool("call_0", "x")
    items = sent(server, first, result, second, result)
    assert [item["call_id"] for item in items] == ["call_0", "call_0", "call_0_2", "call_0_2"]


def test_reasoning_that_is_refused_is_left_out_once(server):
    message = answered(server, thought(1), "Yes")
    complaint = "The encrypted content gAAA could not be verified."
    error = {"message": complaint, "code": "invalid_encrypted_content"}
    server.reply_json({"error": error}, status=400)
    assert sent(server, message) == [{"role": "assistant", "content": "Yes"}]
    assert "include" in server.requests[-1].json


# --- recorded second rounds -----------------------------------------------------------------

REQUESTS = (
    pathlib.Path(__file__).resolve().parents[4] / "shared" / "conformance" / "native" / "requests"
)
LOOPS = sorted(REQUESTS.glob("responses__*.json"))
#: Fields that an item may be sent with or without.
FREE = ("id", "status", "content", "strict", "annotations", "logprobs", "phase", "type", "caller")


def loops():
    for path in LOOPS:
        rounds = json.loads(path.read_text("utf-8"))["rounds"]
        if len(rounds) > 1 and all(r["answer"].get("output_items") for r in rounds[:-1]):
            yield pytest.param(rounds, id=path.stem[11:71])


def plain(item):
    """An item without what may differ: ids, and how a text is written."""
    if item.get("type") == "function_call":
        given = {"name": item["name"], "arguments": json.loads(item["arguments"])}
        return ("call", given)
    if item.get("type") == "function_call_output":
        return ("result", item["output"])
    if item.get("type") == "reasoning":
        return ("reasoning", item.get("encrypted_content"), item.get("summary"))
    content = item["content"]
    if not isinstance(content, str):
        content = "".join(part.get("text", "") for part in content)
    return (item["role"], content)


@pytest.mark.skipif(not LOOPS, reason="../shared/conformance/native is not here")
@pytest.mark.parametrize("rounds", list(loops()))
def test_a_recorded_loop_is_sent_as_its_client_sent_it(server, rounds):
    """Each round's answer is played, and the next request compared with the recorded one."""
    first = rounds[0]["body"]
    messages = [ChatMessage.system(first["instructions"])] if "instructions" in first else []
    with client_of(server) as client:
        for number, recorded in enumerate(rounds):
            told = [plain(item) for item in recorded["body"]["input"]]
            before = [plain(item) for item in rounds[number - 1]["body"]["input"]] if number else []
            messages += new_messages(recorded, told[len(before) :], messages)
            answer = recorded["answer"].get("output_items") or []
            server.reply(*stream_of(answer))
            response = ask(client, ChatRequest(messages)).response
            body = server.requests[-1].json
            ours = [plain(item) for item in body["input"]]
            has_reasoning = any(kind[0] == "reasoning" for kind in told)
            if not has_reasoning:  # it may be left out, and some clients do
                ours = [kind for kind in ours if kind[0] != "reasoning"]
            instructions = [("system", body["instructions"])] if "instructions" in body else []
            if "instructions" in recorded["body"]:  # where others say it in their input
                told.insert(0, ("system", recorded["body"]["instructions"]))
            assert instructions + ours == told
            said = ChatMessage.assistant(
                response.content or None, response.tool_calls, response.provider_state
            )
            messages.append(said)


def new_messages(recorded, told, messages):
    """What a round's client added that no model had said."""
    found = []
    calls = [call.id for call in messages[-1].tool_calls] if messages else []
    for kind in told:
        if kind[0] == "result":
            found.append(ChatMessage.tool(calls.pop(0), kind[1]))
        elif kind[0] in ("user", "system", "developer"):
            found.append(ChatMessage(kind[0], kind[1]))
    return found


def stream_of(items):
    events = [
        {"type": "response.output_item.done", "output_index": n, "item": item}
        for n, item in enumerate(items)
    ]
    response = {"status": "completed", "output": items, "model": "m"}
    events.append({"type": "response.completed", "response": response})
    return [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
