"""Values of agents with types, handed on: to functions whole, to agents as JSON, to predicates."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
from typing import Any, Dict, List, NamedTuple

import pytest
from typing_extensions import TypedDict

from agentstream import (
    Agent,
    Branch,
    EventStream,
    MemoryStore,
    Parallel,
    Repeat,
    RunContext,
    Runtime,
    Step,
    Workflow,
    tool,
)
from agentstream.testing import ScriptedClient
from tests.kit.support import events_of


class Kind(enum.Enum):
    BILL = "bill"
    NOTE = "note"


@dataclasses.dataclass
class Letter:
    kind: Kind
    day: datetime.date
    lines: List[str]


class Place(NamedTuple):
    x: int
    y: int


class Movie(TypedDict):
    title: str


JSON = '{"kind": "bill", "day": "2026-11-27", "lines": ["a", "b"]}'
LETTER = Letter(Kind.BILL, datetime.date(2026, 11, 27), ["a", "b"])


def typed(*answers: str, kind: Any = Letter, name: str = "reader") -> Agent:
    return Agent(name, client=ScriptedClient(*answers), output=kind)


def run(*steps: Any) -> Any:
    with Runtime(event_stream=EventStream(MemoryStore())) as runtime:
        result = runtime.run(Workflow("w", list(steps)), "go")
        events = events_of(runtime.event_stream, result.workflow_id)
    return result, events


def asked(client: Any) -> str:
    content: str = client.requests[-1].messages[-1].content
    return content


def test_a_function_gets_the_value_and_the_events_its_json():
    got: List[Any] = []
    result, events = run(typed(JSON), lambda letter: got.append(letter) or letter)
    assert got == [LETTER] and result.output == LETTER
    assert result.steps[0].output == LETTER
    data = [event.data["output"] for event in events if "output" in event.data]
    assert all(dict(one) == {**json.loads(JSON), "lines": ("a", "b")} for one in data)
    assert len(data) == 3


@pytest.mark.parametrize(
    ("kind", "answer", "told"),
    [
        (Letter, JSON, json.loads(JSON)),
        (Movie, '{"title": "M"}', {"title": "M"}),
        (Dict[str, int], '{"a": 1}', {"a": 1}),
        (List[Dict[str, Any]], '[{"type": "text", "text": "x"}]', [{"type": "text", "text": "x"}]),
        (Place, '{"x": 1, "y": 2}', {"x": 1, "y": 2}),
        (List[int], "[1, 2]", [1, 2]),
        (int, '{"value": 3}', 3),
    ],
)
def test_an_agent_is_asked_its_json(kind: Any, answer: str, told: Any):
    client = ScriptedClient("well", "well")
    first = Agent("writer", client=client)
    second = Step(Agent("again", client=client), prompt="Here: {input}")
    run(typed(answer, kind=kind), Parallel(first, second))
    asked = [request.messages[-1].content for request in client.requests]
    bare, prompted = sorted(asked, key=lambda text: text.startswith("Here: "))
    assert json.loads(bare) == told
    assert json.loads(prompted[len("Here: ") :]) == told


def test_a_choice_is_asked_as_its_word():
    client = ScriptedClient("well")
    run(typed("bill", kind=Kind), Agent("writer", client=client))
    assert asked(client) == "bill"


def test_prompts_name_its_fields_and_predicates_take_it():
    client = ScriptedClient("well")
    prompt = "Of {input.kind} on {input.day}: {input.lines}"
    run(typed(JSON), Step(Agent("writer", client=client), prompt=prompt))
    assert asked(client) == 'Of bill on 2026-11-27: ["a", "b"]'
    client = ScriptedClient("well")
    nested = Step(Agent("writer", client=client), prompt="{input.at.y}")
    run(typed('{"at": {"x": 1, "y": 2}}', kind=Dict[str, Place]), nested)
    assert asked(client) == "2"
    branch = Branch(lambda letter: letter.kind is Kind.BILL, then=lambda letter: letter.day)
    assert run(typed(JSON), branch)[0].output == LETTER.day
    note = JSON.replace("bill", "note")
    repeat = Repeat(typed(JSON, note), until=lambda letter: letter.kind is Kind.NOTE, at_most=3)
    assert run(repeat)[0].output.kind is Kind.NOTE


def test_agents_that_tools_and_functions_run_give_their_values():
    seen: List[Any] = []

    def ask(_: str, context: RunContext) -> Any:
        seen.append(context.run(typed(JSON), "read"))
        return seen[-1].lines

    assert run(ask)[0].output == ["a", "b"]

    @tool
    def read(context: RunContext) -> str:
        """Read the letter."""
        seen.append(context.run(typed(JSON), "read"))
        return "done"

    from agentstream import ToolCall

    caller = Agent("c", client=ScriptedClient([ToolCall("1", "read", "{}")], "ok"), tools=[read])
    assert caller.execute("go").response == "ok"
    assert seen == [LETTER, LETTER]
    helper = typed(JSON).as_tool("Reads letters.")
    client = ScriptedClient([ToolCall("1", "reader", '{"input": "x"}')], "ok")
    Agent("c", client=client, tools=[helper]).execute("go")
    assert json.loads(client.requests[1].messages[-1].content) == json.loads(JSON)
