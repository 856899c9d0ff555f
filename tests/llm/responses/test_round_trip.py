"""Items that cannot go back as they were, and the recorded second rounds of others' clients.

That what can goes back whole: tests/llm/test_round_trip.py.
"""

from __future__ import annotations

import json
import pathlib

import pytest

from agentstream import (
    ChatMessage,
    ChatRequest,
    OpenAIClient,
    ToolCall,
)
from agentstream.testing import responses_chunks
from tests.kit.strict import thought
from tests.kit.support import KEY, NO_RETRIES, ask


def client_of(server, **settings):
    settings = {"api": "responses", "api_key": KEY, "retries": NO_RETRIES, **settings}
    return OpenAIClient("m", base_url=server.url, **settings)


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
