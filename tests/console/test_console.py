"""The console: text kept together per step while many stream; retries; runs within runs."""

from __future__ import annotations

import errno
import io
import re
from typing import Any, Iterator, List

import pytest

from agentstream import Agent, Map, Parallel, Repeat, Runtime, Step, Workflow
from agentstream.cancel import CancelToken
from agentstream.console import Console
from agentstream.console.status import StatusLine
from agentstream.errors import StreamTruncated, WorkflowFailed
from agentstream.llm.messages import Delta, ToolCallDelta
from tests.kit.screens import E, Feed, Terminal, pty_only
from tests.kit.support import FunctionClient, saying

# --- each step's text together --------------------------------------------------------------


def test_what_began_first_streams_and_the_others_follow_whole(feed: Feed) -> None:
    feed.parallel("facts", "tone", "names")
    for n in range(3):
        for branch in ("tone", "facts", "names"):
            feed.say(f"0.{branch}", branch, f"{branch}{n} ")
        assert feed.text == "🤖 facts >\n   " + "".join(f"facts{k} " for k in range(n + 1))
    feed.agent_done("0.tone", "tone")
    feed.done("0.tone")
    assert "tone" not in feed.text
    feed.agent_done("0.facts", "facts")
    feed.done("0.facts")
    first = "🤖 facts >\n   facts0 facts1 facts2 \n\n🤖 tone >\n   tone0 tone1 tone2 \n\n"
    assert feed.text == first + "🤖 names >\n   names0 names1 names2 "
    feed.say("0.names", "names", "live")  # it has the turn now
    assert feed.text.endswith("names2 live")
    feed(E.WORKFLOW_COMPLETED)
    assert feed.text.endswith("names2 live\n\n")


@pytest.mark.parametrize(
    ("branch", "agent", "heading"),
    [
        ("critic", "critic", "critic"),
        ("tone", "critic", "critic (tone)"),
        ("a.b", "critic", "critic (a.b)"),
        ("2", "critic", "critic (2)"),
    ],
)
def test_a_heading_names_the_branch_where_the_agent_does_not(
    feed: Feed, branch: str, agent: str, heading: str
) -> None:
    feed.parallel(branch, agent=agent)
    assert feed.text == f"🤖 {heading} >\n"


def test_branches_within_branches_and_other_shapes(feed: Feed) -> None:
    feed.parallel("left")
    feed.step("0.right", "sequence", "Sequence")
    feed.step("0.right.0", "repeat", "Repeat")
    feed.step("0.right.0.1", "parallel", "Parallel")
    feed.agent("0.right.0.1.x", "critic", "one")
    feed.done("0.left")
    assert feed.text.endswith("🤖 critic (right / round 1 / x) >\n   one\n\n")


def test_a_branch_of_several_steps_stays_in_one_piece(feed: Feed) -> None:
    feed.parallel("a")
    feed.step("0.list", "list", "Sequence")
    feed.agent("0.list.0", "b", "first")
    feed.agent("0.c", "c", "third")
    feed.agent("0.list.1", "d", "second")
    feed.done("0.list")
    feed.done("0.a")
    assert re.findall(r"🤖 (.*) >", feed.text) == ["a", "b (list)", "d (list)", "c"]


# --- retries --------------------------------------------------------------------------------


def test_a_retry_voids_what_was_printed_and_says_so(feed: Feed) -> None:
    feed.start()
    feed.step("0", "a")
    feed.begin("0", "a")
    feed.say("0", "a", "half of")
    feed(E.AGENT_FAILED, step="0", agent="a", error="E", message="cut")
    feed.failed("0", "cut", will_retry=True, attempt=1, delay_s=0.0)
    feed.step("0", "a", attempt=2)
    feed.failed("0", "of no interest", will_retry=True, attempt=2, delay_s=0.0)
    feed.step("0", "a", attempt=3)
    feed.begin("0", "a")
    feed.say("0", "a", "whole")
    assert feed.text == "🤖 a >\n   half of\n   (trying again: cut)\n🤖 a >\n   whole"


def test_a_retry_drops_what_was_not_printed_without_a_word(feed: Feed) -> None:
    feed.parallel("a", "b")
    feed.say("0.b", "b", "VOID")
    feed.failed("0.b", "cut", will_retry=True)
    feed.step("0.b", "b", attempt=2)
    feed.begin("0.b", "b")
    feed.say("0.b", "b", "whole")
    feed.done("0.a")
    assert feed.text == "🤖 a >\n\n🤖 b >\n   whole"


def test_a_request_tried_again_is_told_in_its_place(feed: Feed) -> None:
    feed.parallel("a", "b")
    feed(E.AGENT_LLM_REQUEST_RETRIED, step="0.b", agent="b", message="busy", delay_s=1)
    assert "busy" not in feed.text
    feed.done("0.a")
    assert feed.text == "🤖 a >\n\n🤖 b >\n   (trying again: busy)\n"


# --- runs within runs, and beside them ------------------------------------------------------


def test_a_nested_workflow_is_printed_in_its_place(feed: Feed) -> None:
    feed.parallel("a")
    feed(E.WORKFLOW_STEP_STARTED, step="0.deep", name="inner", kind="Workflow", run="child")
    feed.agent("0.y", "y", "last")
    feed.step("0.z", "z")
    feed.begin("0.z", "z")
    feed.start("child", "w")
    feed.agent("0", "b", "inside", run="child")
    feed(E.WORKFLOW_COMPLETED, "child", "w")
    feed.done("0.deep")
    feed.done("0.a")
    assert re.findall(r"🤖 (.*) >", feed.text) == ["a", "b (deep)", "y", "z"]


def test_an_agent_that_asks_another_has_the_answer_in_the_middle(feed: Feed) -> None:
    feed.start()
    feed.step("0", "boss")
    feed.begin("0", "boss")
    feed.say("0", "boss", "let me ask")
    for n in "12":  # two at once
        feed(E.TOOL_CALL_STARTED, step="0", agent="boss", id=n, name=f"helper{n}", arguments="")
    for n in "21":
        feed(E.WORKFLOW_STARTED, f"h{n}", "w", workflow=f"helper{n}", steps=())
        feed.step("0", f"helper{n}", run=f"h{n}")
        feed.begin("0", f"helper{n}", f"h{n}")
    feed.say("0", "helper1", "one", "h1")
    feed.say("0", "helper2", "two", "h2")
    for n in "12":
        feed(E.WORKFLOW_COMPLETED, f"h{n}", "w")
        feed(E.TOOL_CALL_COMPLETED, step="0", agent="boss", id=n, name=f"helper{n}")
    feed.say("0", "boss", "so be it")
    feed(E.WORKFLOW_COMPLETED)
    assert feed.text == (
        "🤖 boss >\n   let me ask\n\n🤖 helper2 >\n   two\n\n🤖 helper1 >\n   one\n\n"
        "🤖 boss >\n   so be it\n\n"
    )


def test_agents_side_by_side_that_ask_the_same_one(feed: Feed) -> None:
    feed.parallel("a", "b")
    for branch in "ab":
        author = {"step": f"0.{branch}", "agent": branch, "id": "1"}
        feed(E.TOOL_CALL_STARTED, name="helper", arguments="", **author)
    for branch in "ab":
        feed(E.WORKFLOW_STARTED, f"h{branch}", "w", workflow="helper", steps=())
        feed.agent("0", "helper", f"for {branch}", run=f"h{branch}")
        feed(E.WORKFLOW_COMPLETED, f"h{branch}", "w")
    for branch in "ab":
        feed.agent_done(f"0.{branch}", branch)  # and they say nothing more
        feed.done(f"0.{branch}")
    assert feed.text == (
        "🤖 a >\n\n🤖 helper (a) >\n   for a\n\n🤖 b >\n\n🤖 helper (b) >\n   for b\n\n"
    )


def test_an_agent_on_its_own(feed: Feed) -> None:
    for run in ("one", "two"):
        feed.begin("", "solo", run)
        feed.say("", "solo", run, run)
    feed.agent_done("", "solo", "one")
    assert feed.text == "🤖 solo >\n   one\n\n🤖 solo >\n   two"
    feed(E.AGENT_FAILED, "two", step="", agent="solo", error="E", message="x")
    assert feed.text.endswith("two\n\n")


# --- real runs ------------------------------------------------------------------------------


def printed(runtime: Runtime, workflow: Any) -> str:
    """What a console makes of a run."""
    file = io.StringIO()
    with runtime.event_stream.subscribe(Console(file)):
        try:
            runtime.run(workflow, "go")
        except WorkflowFailed:
            pass
    return file.getvalue()


def failing_once(*texts: str) -> FunctionClient:
    """A model that breaks off after these at first, and then says "good"."""
    calls: List[int] = []

    def answer(request: Any, cancel: CancelToken) -> Iterator[Any]:
        calls.append(1)
        if len(calls) > 1:
            yield "good"
            yield Delta(finish_reason="stop")
            return
        yield from texts
        raise StreamTruncated("broke off", phase="stream", retryable=True)

    return FunctionClient(answer)


def test_a_real_workflow_of_many_shapes(runtime: Runtime) -> None:
    critic = Agent("critic", client=saying("fine ", "indeed"))
    inner = Workflow("inner", [critic, Agent("editor", client=saying("cut"))])
    side = Parallel(
        tone=critic, facts=[critic, critic], sub=inner, namer=Agent("namer", client=saying("Bob"))
    )
    text = printed(
        runtime, Workflow("w", [side, Repeat(critic, at_most=2), str.split, Map(critic, 1)])
    )
    sections = re.findall(r"🤖 (.*) >\n   (.*)\n\n", text)
    assert text == "".join(f"🤖 {name} >\n   {said}\n\n" for name, said in sections)
    names = [name for name, _ in sections]
    assert sorted(names) == sorted(
        [
            "critic (tone)",
            "critic (facts)",
            "critic (facts)",
            "critic (sub)",
            "editor (sub)",
            "namer",
            "critic (round 1)",
            "critic (round 2)",
            "critic (item 1)",
            "critic (item 2)",
        ]
    )
    place = names.index("critic (facts)")
    assert names[place + 1] == "critic (facts)"
    assert names[names.index("critic (sub)") + 1] == "editor (sub)"


def test_a_real_retry(runtime: Runtime) -> None:
    agent = Agent("a", client=failing_once("half ", "of"))
    text = printed(runtime, Workflow("w", [Step(agent, retries=1)]))
    assert text == "🤖 a >\n   half of\n   (trying again: broke off)\n🤖 a >\n   good\n\n"


def test_a_real_agent_as_a_tool(runtime: Runtime) -> None:
    def boss(request: Any, cancel: CancelToken) -> Iterator[Any]:
        if request.messages[-1].role == "tool":
            yield "so be it"
            yield Delta(finish_reason="stop")
            return
        yield "let me ask"
        yield Delta(tool_calls=(ToolCallDelta(0, "c1", "helper", '{"input": "x"}'),))
        yield Delta(finish_reason="tool_calls")

    helper = Agent("helper", client=saying("yes")).as_tool("helps")
    text = printed(runtime, Agent("boss", client=FunctionClient(boss), tools=[helper]))
    assert text == ("🤖 boss >\n   let me ask\n\n🤖 helper >\n   yes\n\n🤖 boss >\n   so be it\n\n")


def test_a_file_nobody_reads_is_told_once_and_no_run_ends_by_it() -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "gone")

    told: List[int] = []
    console = Console(Broken(), on_closed=lambda: told.append(1))
    feed = Feed(console)
    feed.parallel("a", "b")
    feed.say("0.b", "b", "x")
    feed(E.WORKFLOW_COMPLETED)
    console.line("more")
    assert console.closed
    assert told == [1]


def test_lines_of_ones_own_and_the_indent() -> None:
    file = io.StringIO()
    feed = Feed(Console(file, indent="> "))
    feed.start()
    feed.step("0", "a")
    feed.begin("0", "a")
    feed.say("0", "a", "one\n\ntwo")
    feed.console.line("mine")  # type: ignore[attr-defined]
    feed.say("0", "a", "three")
    assert file.getvalue() == "🤖 a >\n> one\n\n> two\nmine\n> three"


def test_without_headings_there_is_nothing_but_the_text() -> None:
    file = io.StringIO()
    feed = Feed(Console(file, headings=False, indent=""))
    feed.start()
    feed.step("0", "a")
    feed.begin("0", "a")
    feed.say("0", "a", "one\n\n  two")
    feed(E.WORKFLOW_COMPLETED)
    assert file.getvalue() == "one\n\n  two\n"


@pty_only
def test_a_real_run_on_a_terminal(terminal: Terminal, runtime: Runtime) -> None:
    said = [f"word{n} " for n in range(100)]
    branches = {name: Agent("critic", client=saying(*said)) for name in ("tone", "facts")}
    status = StatusLine(terminal.files[1])
    console = Console(terminal.files[0], status=status)
    with runtime.event_stream.subscribe(console):
        runtime.run(Workflow("w", [Parallel(branches)]), "go")
    console.line("the end")
    shown = re.sub(r"\s", "", terminal.screen().text)
    text = re.sub(r"\s", "", "".join(said))
    sections = sorted(re.findall(r"🤖critic\((\w+)\)>((?:word\d+)+)", shown))
    assert sections == [("facts", text), ("tone", text)]
    assert shown.endswith("theend")
