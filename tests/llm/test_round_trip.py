"""T03: what an answer was goes back whole, in order and in place: to its server, and to no other.

The servers are strict (tests/kit/strict.py); one table for all protocols.
"""

from __future__ import annotations

import json
from typing import Any, List, Type

import pytest

from agentstream import Agent, Conversation, tool
from agentstream.testing import ScriptedServer
from tests.kit.strict import STRICT, Strict


@tool
def look(at: str = "nothing") -> str:
    """Look at something.

    Args:
        at: what
    """
    return f"saw {at}"


each_protocol = pytest.mark.parametrize("kind", STRICT, ids=lambda kind: kind.__name__[6:].lower())


def seer(client: Any) -> Agent:
    return Agent("seer", system_prompt="Be brief.", client=client, tools=[look])


@each_protocol
def test_t03_a_tool_loop_of_three_rounds(server: ScriptedServer, kind: Type[Strict]) -> None:
    strict = kind(server)
    with strict.client() as client:
        output = seer(client).execute("Look!")
    assert (strict.refused, strict.served) == ([], 4)
    assert output.response == kind.last
    last = json.dumps(server.requests[-1].json, ensure_ascii=False)
    found = [last.find(f'"saw {at}"') for at in ("a", "b", "nothing", "\u00e9")]
    assert found == sorted(found)
    assert found[0] > 0
    assert "Be brief." in last


@each_protocol
def test_t03_a_conversation_that_is_saved_and_loaded(server, tmp_path, kind):
    strict = kind(server, [*kind.rounds, ["Yes."]])
    path = tmp_path / "conversation.json"
    conversation = Conversation()
    with strict.client() as client:
        seer(client).execute("Look!", conversation=conversation)
        conversation.save(path)
        output = seer(client).execute("Sure?", conversation=Conversation.load(path))
    assert (output.response, strict.refused, strict.served) == ("Yes.", [], 5)


@each_protocol
def test_t03_a_conversation_that_moves_to_each_other_provider_and_back(server, kind):
    strict = kind(server, [kind.rounds[3], ["Yes."]])
    conversation = Conversation()
    with strict.client() as client:
        seer(client).execute("So?", conversation=conversation)
        for number, other in enumerate(each for each in STRICT if each is not kind):
            said = f"Who knows {number}."
            sent = asked_elsewhere(other, conversation, said)
            assert kind.last in sent
            assert [mark for mark in kind.marks if mark in sent] == []
            strict.hear(said)
        output = seer(client).execute("Well?", conversation=conversation)
    assert (output.response, strict.refused) == ("Yes.", [])
    assert "Who knows 2." in json.dumps(server.requests[-1].json)


def asked_elsewhere(kind: Type[Strict], conversation: Conversation, said: str) -> str:
    """Ask a server of that protocol, which knows nothing of what was said; its request."""
    with ScriptedServer() as server:
        strict = Lenient.of(kind)(server, [[said]])
        with strict.client() as client:
            seer(client).execute("Really?", conversation=conversation)
        return json.dumps(server.requests[0].json, ensure_ascii=False)


class Lenient:
    """Takes any history."""

    @classmethod
    def of(cls, kind: Type[Strict]) -> Type[Strict]:
        return type(f"Lenient{kind.__name__}", (cls, kind), {})

    def problem(self, body: Any) -> str:
        return ""


@each_protocol
def test_t03_another_server_of_the_same_api_gets_text_and_calls_alone(server, kind):
    conversation = Conversation()
    strict = kind(server)
    with strict.client() as client:
        seer(client).execute("Look!", conversation=conversation)
    sent = asked_elsewhere(kind, conversation, "Yes.")
    assert kind.last in sent
    assert sent.count('"saw ') == 4
    assert [mark for mark in kind.marks if mark in sent] == []


@each_protocol
@pytest.mark.parametrize("change", ["missing", "order", "content"])
def test_the_strict_server_is_strict(server, kind, change):
    """That a 400 follows is what makes the tests above mean something."""
    strict = kind(server)
    with strict.client() as client:
        seer(client).execute("Look!")
    body = server.requests[-1].json
    strict.served = 3
    assert strict.problem(body) == ""
    history: List[Any] = body.get("messages") or body["input"]
    first = next(n for n, each in enumerate(history) if each.get("role") != "user" and n)
    if change == "missing":
        del history[first]
    elif change == "order":
        history[first : first + 2] = history[first + 1 : first - 1 : -1]
    else:
        text = json.dumps(history).replace("look", "loop", 1)
        history[:] = json.loads(text)
    assert strict.problem(body)
