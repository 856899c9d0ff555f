"""Conditions: which way a branch goes, and when a repeat is over."""

from __future__ import annotations

import enum
from typing import Any

import pytest

from agentstream.errors import WorkflowFailed
from agentstream.testing import ScriptedServer, text_chunks
from agentstream.workflow_files.conditions import Condition
from tests.kit.files_support import asked, start


@pytest.mark.parametrize(
    ("condition", "answer", "output"),
    [
        ('{contains = "rge"}', "urgent", "then"),
        ('{contains = "Rge"}', "urgent", "otherwise"),
        ('{contains = "rge", not = true}', "urgent", "otherwise"),
        ('{equals = "yes"}', " yes\\n", "then"),
        ('{equals = "yes"}', "yes!", "otherwise"),
        ('{matches = "^(?i)YES" }'.replace("^(?i)", "(?i)^"), "yes!", "then"),
        ('{call = "mytools:is_loud"}', "LOUD", "then"),
        ('{call = "mytools:is_loud", not = true}', "LOUD", "otherwise"),
        ('{call = "mytools:is_kept"}', "x", "then"),
        ('{equals = "German", context = "language"}', "x", "then"),
        ("{equals = 3, context = 'number'}", "x", "then"),
        ("{equals = true, context = 'number'}", "x", "otherwise"),
        ("{equals = 3}", "3", "then"),
        ('{contains = "a", context = "list"}', "x", "then"),
        ('{matches = "^$", context = "missing"}', "x", "then"),
    ],
)
def test_a_branch_asks_its_condition(
    write: Any, module: Any, server: ScriptedServer, condition: str, answer: str, output: str
) -> None:
    server.reply_text(answer.replace("\\n", "\n"))
    server.default(*text_chunks("asked again"))
    run = start(
        write,
        module,
        f"""
[context]
language = "German"
number = 3
list = ["a"]
[[steps]]
agent = "a"
[[steps]]
function = "mytools:keep"
[[steps]]
[steps.branch]
if = {condition}
then = {{agent = "a", name = "then"}}
otherwise = [{{agent = "b", name = "otherwise"}}]
""",
        server,
    )
    inner = run.steps[2].steps[0]
    assert (inner.steps[0] if inner.kind == "Sequence" else inner).name == output


def test_a_branch_without_otherwise_lets_the_input_through(
    write: Any, module: Any, server: ScriptedServer
) -> None:
    text = "[[steps]]\nbranch = {if = {equals = 'x'}, then = {agent = 'a'}}\n"
    assert start(write, module, text, server).output == "hello"
    assert server.requests == []


def test_a_repeat_goes_on_until_its_condition_holds(
    write: Any, module: Any, server: ScriptedServer
) -> None:
    for text in ("one", "two", "DONE.", "four"):
        server.reply_text(text)
    run = start(
        write,
        module,
        """
[[steps]]
name = "again"
[steps.repeat]
step = {agent = "a", prompt = "More: {input}"}
until = {matches = "(?i)\\\\bdone\\\\b"}
at_most = 5
""",
        server,
    )
    assert run.output == "DONE."
    assert asked(server) == ["More: hello", "More: one", "More: two"]


def test_a_repeat_may_fail_at_its_limit(write: Any, module: Any, server: ScriptedServer) -> None:
    server.default(*text_chunks("no"))
    text = (
        "[[steps]]\nfail_at_limit = true\n"
        "repeat = {step = {agent = 'a'}, until = {equals = 'yes'}, at_most = 2}\n"
    )
    with pytest.raises(WorkflowFailed, match="was not done after 2 rounds"):
        start(write, module, text, server)
    assert len(server.requests) == 2


def test_an_enum_is_the_text_of_its_value():
    class Mood(enum.Enum):
        GOOD = "good"

    assert Condition("equals", "good", negated=False, key=None)(Mood.GOOD, {})
