"""How a step's input becomes an agent's question."""

from __future__ import annotations

from typing import Any, List

import pytest

from agentstream import Branch, ChatMessage, Parallel, Runtime, Step, Workflow
from agentstream.errors import ConfigError, WorkflowFailed
from tests.kit.support import KEY, PROMPT, events_of, hunt
from tests.kit.workflow_runs import failure_of, run_one
from tests.kit.workflow_support import Cast


def test_nothing_for_an_agent_is_an_error_that_says_so(cast: Cast, runtime: Runtime) -> None:
    def forgetful(input: Any) -> None:
        pass

    for agent in cast.says("a", "x"), Step(cast.says("a", "x"), prompt="Say: {input}"):
        with pytest.raises(WorkflowFailed) as caught:
            runtime.run(Workflow("w", [forgetful, agent]), "x")
        assert isinstance(caught.value.__cause__, ConfigError)
        assert "given nothing (None)" in str(caught.value)
    assert cast.asked == {}


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        ("text", "text"),
        ({"a": "one", "b": {"c": 2}}, "## a\n\none\n\n## b\n\n## c\n\n2"),
        ({"a": {"error": "StallTimeout", "message": "5 s"}}, "## a\n\n(failed: StallTimeout: 5 s)"),
        ([1, "zwei ü", None], '[1, "zwei ü", null]'),
        (0, "0"),
        ([{"type": "text", "text": "hi"}], [{"type": "text", "text": "hi"}]),
    ],
)
def test_an_agent_is_asked(cast: Cast, runtime: Runtime, value: Any, asked: Any) -> None:
    runtime.run(Workflow("w", [cast.says("a", "x")]), value)
    assert cast.asked["a"] == [asked]


def test_a_prompt_has_places_for_input_results_and_context(cast: Cast, runtime: Runtime) -> None:
    prompt = "{input.two words}|{input.b}|{context.language}|{ input }|{x}|{{input.b}}|{context}|{}"
    step = Step(cast.says("a", "x"), prompt=prompt)
    value = {"two words": "{input.b} is not a place in here", "b": [1]}
    run_one(runtime, step, value, context={"language": "German"})
    assert cast.asked["a"] == [
        "{input.b} is not a place in here|[1]|German|{ input }|{x}|{[1]}|{context}|{}"
    ]


def test_files_of_an_input_stand_behind_what_a_prompt_makes_of_its_text(
    cast: Cast, runtime: Runtime
) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    step = Step(cast.says("a", "x"), prompt="In one word: {input}")
    parts = [{"type": "text", "text": "What is it?"}, picture]
    for value in (parts, ChatMessage.user(parts)):
        run_one(runtime, step, value)
    expected = [{"type": "text", "text": "In one word: What is it?"}, picture]
    assert cast.asked["a"] == [expected, expected]


@pytest.mark.parametrize("prompt", ["{input.c}", "{context.c}"])
def test_a_name_that_is_not_there_fails_and_shows_no_value(
    cast: Cast, runtime: Runtime, prompt: str
) -> None:
    step = Step(cast.says("a", "x"), prompt=prompt)
    failed = failure_of(runtime, step, {"a": PROMPT}, context={"key": KEY}, workflow_id="w")
    assert isinstance(failed.__cause__, ConfigError)
    assert prompt in str(failed)
    hunt(str(failed))
    events_of(runtime.event_stream, "w")
    assert isinstance(failure_of(runtime, step, "a text").__cause__, ConfigError)


def test_no_event_shows_what_was_asked_or_the_key(cast: Cast, runtime: Runtime) -> None:
    steps: List[Any] = [
        Parallel(cast.says("a", "x"), cast.breaks("b", "y"), fail_fast=False),
        lambda results: PROMPT + results["a"],
    ]
    workflow = Workflow("w", [Branch(bool, steps[0]), cast.says("c", "fine")])
    runtime.run(workflow, PROMPT, workflow_id="w", context={"key": KEY})
    assert PROMPT in cast.asked["a"]
    assert cast.server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    events_of(runtime.event_stream, "w")  # it hunts
