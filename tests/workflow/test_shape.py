"""A workflow's shape, and what differs between two."""

from __future__ import annotations

import json
from typing import Any, List

from agentstream import Agent, Branch, Map, Parallel, Repeat, Step, Wait, Workflow
from agentstream.testing import ScriptedClient
from agentstream.workflow.shape import differences, shape_of


def agent(name: str) -> Agent:
    return Agent(name, client=ScriptedClient("x"))


def whole() -> Workflow:
    inner = Workflow("inner", [agent("one"), Parallel(a=[len, str], b=bool)])
    return Workflow(
        "outer",
        [
            agent("first"),
            Parallel(facts=agent("a"), tone=Branch(bool, agent("b"), [agent("c")])),
            Map(Step(inner, name="sub")),
            Repeat([len, Wait("approval")], at_most=2),
        ],
    )


def test_a_shape_has_every_step_at_any_depth_and_is_json() -> None:
    shape = shape_of(whole())
    assert json.loads(json.dumps(shape)) == shape
    assert [tuple(step) for step in shape] == [
        ("", "outer", "Workflow"),
        ("0", "first", "Agent"),
        ("1", "parallel", "Parallel"),
        ("1.facts", "a", "Agent"),
        ("1.tone", "branch", "Branch"),
        ("1.tone.then", "b", "Agent"),
        ("1.tone.otherwise", "sequence", "Sequence"),
        ("1.tone.otherwise.0", "c", "Agent"),
        ("2", "map", "Map"),
        ("2.1", "sub", "Workflow"),
        ("2.1.0", "one", "Agent"),
        ("2.1.1", "parallel", "Parallel"),
        ("2.1.1.a", "sequence", "Sequence"),
        ("2.1.1.a.0", "len", "Function"),
        ("2.1.1.a.1", "str", "Function"),
        ("2.1.1.b", "bool", "Function"),
        ("3", "repeat", "Repeat"),
        ("3.1", "sequence", "Sequence"),
        ("3.1.0", "len", "Function"),
        ("3.1.1", "approval", "Wait"),
    ]
    assert differences(shape, shape_of(whole())) == []


def between(old: List[Any], new: List[Any]) -> List[str]:
    return differences(shape_of(Workflow("w", old)), shape_of(Workflow("w", new)))


def test_what_differs_is_said_in_sentences() -> None:
    assert between([Parallel(facts=agent("a"))], [Parallel(facts=Step(len, name="a"))]) == [
        "step 0.facts was an Agent named 'a', and is a Function now"
    ]
    assert between([agent("a"), len], [agent("b"), len]) == [
        "step 0 was an Agent named 'a', and is named 'b' now"
    ]
    assert between([agent("a")], [len]) == [
        "step 0 was an Agent named 'a', and is a Function named 'len' now"
    ]
    assert between([len, str], [len, str, bool]) == ["step 2 is new"]
    assert between([len, str, bool], [len]) == ["step 1 is gone", "step 2 is gone"]
    one, two = (shape_of(Workflow(name, [len])) for name in "ab")
    assert differences(one, two) == ["the workflow was named 'a', and is named 'b' now"]


def test_what_is_within_a_step_that_differs_is_not_told_as_well() -> None:
    nested = Parallel(a=[len, str], b=bool)
    assert between([len, nested], [len]) == ["step 1 is gone"]
    assert between([len], [len, nested]) == ["step 1 is new"]
    assert between([nested], [Map(len, name="parallel")]) == [
        "step 0 was a Parallel named 'parallel', and is a Map now"
    ]
    renamed = Parallel(a=[len, bool], b=bool, name="other")
    assert between([nested], [renamed]) == [
        "step 0 was a Parallel named 'parallel', and is named 'other' now",
        "step 0.a.1 was a Function named 'str', and is named 'bool' now",
    ]
    inner = [Workflow("in", [len]), Workflow("in", [len, str])]
    assert between(inner[:1], inner[1:]) == ["step 0.1 is new"]


def test_the_order_of_branches_is_no_difference_and_the_sentences_are_ten_at_most() -> None:
    assert between([Parallel(a=len, b=str)], [Parallel(b=str, a=len)]) == []
    said = between([len] * 20, [str] * 20)
    assert len(said) == 10
    assert said[-1] == "and 11 more"
    assert len(between([len] * 10, [str] * 10)) == 10
    for kept in (None, 3, [1], [["a", "b"]], [[[], "a", "b"]], {"a": 1}):
        assert between_kept(kept) == ["the workflow's shape is not one that this version wrote"]


def between_kept(kept: Any) -> List[str]:
    return differences(kept, shape_of(Workflow("w", [len])))
