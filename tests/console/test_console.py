"""The console: text kept together per step while many stream; the status line; real terminals."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
import threading
import time
import unicodedata
from typing import Any, Callable, Iterator, List, Optional

import pytest

from agentstream import Agent, EventType, Parallel, Repeat, Runtime, Step, Workflow
from agentstream.cancel import CancelToken
from agentstream.console import Console
from agentstream.console.outline import Outline
from agentstream.console.status import StatusLine, _Tally, cells
from agentstream.errors import StreamTruncated, WorkflowFailed
from agentstream.events.model import Event
from agentstream.llm.messages import Delta, ToolCallDelta
from tests.kit.support import FunctionClient, Task, saying, wait_until

E = EventType


class Feed:
    """A console into a text, and the events to feed it by hand."""

    def __init__(self, console: Optional[Callable[[Event], object]] = None) -> None:
        self.file = io.StringIO()
        self.console = console or Console(self.file)
        self.now = 1000.0

    @property
    def text(self) -> str:
        return self.file.getvalue()

    def __call__(
        self, kind: EventType, run: str = "w", parent: Optional[str] = None, /, **data: Any
    ) -> None:
        self.console(Event("id", 1, 1, kind, run, parent, self.now, data))

    def start(self, run: str = "w", parent: Optional[str] = None) -> None:
        self(E.WORKFLOW_STARTED, run, parent, workflow=run, steps=())

    def step(self, label: str, name: str, kind: str = "Agent", run: str = "w", **data: Any) -> None:
        self(E.WORKFLOW_STEP_STARTED, run, step=label, name=name, kind=kind, **data)

    def done(self, label: str, name: str = "", run: str = "w") -> None:
        self(E.WORKFLOW_STEP_COMPLETED, run, step=label, name=name, kind="")

    def failed(self, label: str, message: str, run: str = "w", **data: Any) -> None:
        self(E.WORKFLOW_STEP_FAILED, run, step=label, message=message, error="E", **data)

    def begin(self, label: str, agent: str, run: str = "w") -> None:
        self(E.AGENT_PROCESSING, run, step=label, agent=agent)

    def say(self, label: str, agent: str, text: str, run: str = "w") -> None:
        self(E.AGENT_LLM_STREAM_CHUNK, run, step=label, agent=agent, chunk=text)

    def agent_done(self, label: str, agent: str, run: str = "w") -> None:
        self(E.AGENT_COMPLETED, run, step=label, agent=agent)

    def agent(self, label: str, agent: str, text: str, run: str = "w") -> None:
        """An agent's step from its beginning to its end."""
        self.step(label, agent, run=run)
        self.begin(label, agent, run)
        self.say(label, agent, text, run)
        self.agent_done(label, agent, run)
        self.done(label, agent, run)

    def parallel(self, *branches: str, agent: str = "") -> None:
        """A Parallel as step 0, whose branches' agents have all begun."""
        self.start()
        self.step("0", "parallel", "Parallel")
        for branch in branches:
            self.step(f"0.{branch}", branch)
            self.begin(f"0.{branch}", agent or branch)


@pytest.fixture
def feed() -> Feed:
    return Feed()


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


def test_a_branch_that_fails_releases_its_turn(feed: Feed) -> None:
    feed.parallel("a", "b")
    feed.say("0.a", "a", "half")
    feed.say("0.b", "b", "whole")
    feed(E.AGENT_FAILED, step="0.a", agent="a", error="E", message="x")
    feed.failed("0.a", "x")
    assert feed.text == "🤖 a >\n   half\n\n🤖 b >\n   whole"
    feed(E.WORKFLOW_CANCELLED)  # and no word of b's end
    assert feed.text.endswith("whole\n\n")


def test_a_failed_container_releases_what_is_in_it(feed: Feed) -> None:
    feed.parallel("a", "b")
    feed.say("0.b", "b", "kept")
    feed.failed("0", "time is over")
    feed.agent("1", "c", "next")
    assert re.findall(r"🤖 (.*) >", feed.text) == ["a", "b", "c"]
    assert "kept" in feed.text


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


def test_a_container_that_is_retried_voids_all_within(feed: Feed) -> None:
    feed.parallel("a", "b", "c")
    feed.say("0.a", "a", "seen")
    feed.say("0.b", "b", "VOID")
    feed.failed("0.b", "cut")
    feed.failed("0", "cut", will_retry=True)
    assert feed.text == "🤖 a >\n   seen\n   (trying again: cut)\n"
    feed.step("0", "parallel", "Parallel", attempt=2)
    for branch in "bac":
        feed.agent(f"0.{branch}", branch, branch * 3)
    feed.done("0")
    assert "VOID" not in feed.text
    assert re.findall(r"🤖 (.*) >", feed.text) == ["a", "b", "a", "c"]
    feed.agent("1", "d", "on")
    assert feed.text.endswith("🤖 d >\n   on\n\n")


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


def test_runs_at_once_do_not_mix(feed: Feed) -> None:
    for run in ("w", "v"):
        feed.start(run)
        feed.step("0", "a", run=run)
        feed.begin("0", "a", run)
    for n in range(3):
        for run in ("v", "w"):
            feed.say("0", "a", f"{run}{n} ", run)
    feed(E.WORKFLOW_COMPLETED, "v")
    assert feed.text == "🤖 a >\n   w0 w1 w2 "
    feed(E.WORKFLOW_COMPLETED, "w")
    assert feed.text == "🤖 a >\n   w0 w1 w2 \n\n🤖 a >\n   v0 v1 v2 \n\n"


def test_a_run_that_falls_silent_gives_up_its_turn(feed: Feed) -> None:
    for run in ("dead", "w"):
        feed.start(run)
        feed.step("0", run, run=run)
        feed.begin("0", run, run)
        feed.say("0", run, "one", run)
    feed.now += 29
    feed.say("0", "w", " two", "w")
    assert "w >" not in feed.text
    feed.now += 2
    feed.say("0", "w", " three", "w")
    assert feed.text == "🤖 dead >\n   one\n\n🤖 w >\n   one two three"
    feed.say("0", "dead", " more", "dead")  # it lives, and waits for its turn
    feed(E.WORKFLOW_COMPLETED, "w")
    assert feed.text.endswith("three\n\n🤖 dead >\n    more")


def test_a_run_that_outlives_its_own_holds_nobody_up(feed: Feed) -> None:
    feed.parallel("a")
    feed.start("child", "w")
    feed.step("0", "late", run="child")
    feed.begin("0", "late", "child")
    feed.agent("1", "b", "kept")
    feed(E.WORKFLOW_FAILED)
    assert re.findall(r"🤖 (.*) >", feed.text) == ["a", "late (a)", "b"]
    feed.say("0", "late", "on", "child")
    assert feed.text.endswith("🤖 late >\n   on")
    feed(E.WORKFLOW_CANCELLED, "child", "w")
    feed.start("next")
    feed.agent("0", "n", "x", run="next")
    assert feed.text.endswith("🤖 n >\n   x\n\n")


def test_an_agent_on_its_own(feed: Feed) -> None:
    for run in ("one", "two"):
        feed.begin("", "solo", run)
        feed.say("", "solo", run, run)
    feed.agent_done("", "solo", "one")
    assert feed.text == "🤖 solo >\n   one\n\n🤖 solo >\n   two"
    feed(E.AGENT_FAILED, "two", step="", agent="solo", error="E", message="x")
    assert feed.text.endswith("two\n\n")


def test_what_began_before_we_came(feed: Feed) -> None:
    feed.say("1.facts", "a", "x")
    feed.say("2.then", "b", "y")
    feed.done("1.facts")
    assert re.findall(r"🤖 (.*) >", feed.text) == ["a (facts)", "b"]


def test_missed_events_are_told_and_hold_nobody_up(feed: Feed) -> None:
    feed.parallel("a", "b")
    feed.say("0.b", "b", "kept")
    feed(E.EVENTS_MISSED, "", first=5, last=8)
    assert feed.text == "🤖 a >\n\n🤖 b >\n   kept\n\n   (4 events are missing here)\n"
    feed.say("0.b", "b", "on")
    assert feed.text.endswith("🤖 b >\n   on") or feed.text.endswith("🤖 b (b) >\n   on")


def test_nothing_is_kept_of_what_is_over(feed: Feed) -> None:
    for n in range(50):
        feed.start(f"r{n}")
        feed.agent("0", "a", "x", run=f"r{n}")
        feed(E.WORKFLOW_COMPLETED, f"r{n}")
    outline = feed.console._outline  # type: ignore[attr-defined]
    assert not outline.root.parts
    assert not outline._runs


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
    text = printed(runtime, Workflow("w", [side, Repeat(critic, at_most=2), lambda x: x.upper()]))
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


# --- files of every kind --------------------------------------------------------------------


def test_an_encoding_without_emoji() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="")
    feed = Feed(Console(file))
    feed.parallel("ü")
    feed.say("0.ü", "ü", "Grüße")
    assert file.buffer.getvalue() == b"? ? >\n   Gr??e"  # type: ignore[attr-defined]


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


# --- the status line ------------------------------------------------------------------------


class Screen:
    """As much of a terminal as it takes: what would be seen of the bytes sent to it."""

    def __init__(self, columns: int, rows: int = 6) -> None:
        self.columns, self.rows = columns, rows
        self.cells = [[" "] * columns for _ in range(rows)]
        self.scrolled: List[str] = []
        self.row = self.column = 0
        self.saved = (0, 0)

    def feed(self, text: str) -> Screen:
        pattern = r"\x1b\[(\d*)([A-Za-z])|\x1b([78D])|([^\x1b])"
        assert re.sub(pattern, "", text) == "", "unknown sequences"
        for count, command, short, char in re.findall(pattern, text, re.DOTALL):
            if char:
                self.put(char)
            elif short:
                self.short(short)
            else:
                self.command(command, count)
        return self

    def put(self, char: str) -> None:
        if char == "\r":
            self.column = 0
        elif char == "\n":  # the terminal's driver has made it CR LF
            self.down()
        elif not unicodedata.combining(char):
            width = min(2 if unicodedata.east_asian_width(char) in "WF" else 1, self.columns)
            if self.column + width > self.columns:  # only now: a full line waits
                self.column = 0
                self.down()
            self.cells[self.row][self.column] = char
            if width == 2:
                self.cells[self.row][self.column + 1] = ""
            self.column += width

    def down(self) -> None:
        if self.row == self.rows - 1:
            self.scrolled.append("".join(self.cells.pop(0)).rstrip())
            self.cells.append([" "] * self.columns)
        else:
            self.row += 1

    def short(self, command: str) -> None:
        if command == "7":
            self.saved = (self.row, self.column)
        elif command == "8":
            self.row, self.column = self.saved
        else:
            self.down()

    def command(self, command: str, count: str) -> None:
        assert self.column < self.columns or command in "mx", "where the cursor is nobody knows"
        if command == "A":
            self.row = max(0, self.row - 1)
        elif command in "KJ":
            self.cells[self.row][self.column :] = [" "] * (self.columns - self.column)
            for below in range(self.row + 1, self.rows) if command == "J" else ():
                self.cells[below] = [" "] * self.columns
        else:
            assert command in "mx"

    @property
    def lines(self) -> List[str]:
        return [*self.scrolled, *("".join(row).rstrip() for row in self.cells)]

    @property
    def text(self) -> str:
        return "\n".join(self.lines).rstrip()


pty_only = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals of POSIX")


class Terminal:
    """A pseudo-terminal; `files` are two text files on it, as standard output and error are."""

    def __init__(self, columns: int) -> None:
        import fcntl
        import pty
        import struct
        import termios

        self.columns = columns
        self._master, worker = pty.openpty()
        fcntl.ioctl(worker, termios.TIOCSWINSZ, struct.pack("HHHH", 6, columns, 0, 0))
        self.files = [open(os.dup(worker), "w", encoding="utf-8") for _ in range(2)]
        os.close(worker)
        self.sent = b""
        self._reader = Task(self._read)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # as Linux tells the end
                return
            if not data:
                return
            self.sent += data

    def screen(self) -> Screen:
        """What is seen; waits until it is still."""
        mark = f"\x1b[{len(self.sent)}x"  # says nothing to a screen
        self.files[0].write(mark)
        self.files[0].flush()
        wait_until(lambda: mark.encode() in self.sent)
        return Screen(self.columns).feed(self.sent.decode())

    def close(self) -> str:
        for file in self.files:
            file.close()
        self._reader.result()
        os.close(self._master)
        return self.sent.decode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, request: Any) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal(getattr(request, "param", 60))
    yield terminal
    if not terminal.files[0].closed:
        terminal.close()


def drawn(status: StatusLine, terminal: Terminal) -> List[str]:
    """The screen's lines once the status is up to date."""
    status._drawn_at = 0.0
    status.draw()
    return terminal.screen().text.split("\n")


@pty_only
def test_text_streams_and_the_status_stands_below(terminal: Terminal) -> None:
    status = StatusLine(terminal.files[1])
    feed = Feed(Console(terminal.files[0], status=status))
    feed.parallel("a", "b")
    above, last = drawn(status, terminal)
    assert above == "🤖 a >"
    assert re.fullmatch(r"⏳ a, b · 0\.\d s", last)
    said = ""
    for n in range(40):  # over many lines, and the bottom of the screen
        feed.now += 0.1
        feed.say("0.b", "b", "x")
        feed.say("0.a", "a", f"word{n} ")
        said += f"word{n} "
        *above, last = drawn(status, terminal)
        assert "".join(above).replace(" ", "") == f"🤖a>{said}".replace(" ", "")
        assert last.startswith(f"⏳ a, b · {2 * n + 2} tokens · ")
    feed(E.WORKFLOW_COMPLETED)
    text = terminal.screen().text
    assert "⏳" not in text
    assert text.endswith("🤖 b >\n   " + "x" * 40)
    assert "20.0 tokens/s" in terminal.sent.decode()


@pty_only
@pytest.mark.parametrize("terminal", [1, 2, 3, 5, 9, 17], indirect=True)
def test_a_very_narrow_terminal_and_wide_characters(terminal: Terminal) -> None:
    status = StatusLine(terminal.files[1])
    feed = Feed(Console(terminal.files[0], status=status))
    feed.parallel("漢字のエージェント", "b")
    said = ""
    for n in range(60):
        piece = ("漢字", "e\u0301", "abc", "x", "🤖", " ")[n % 6]
        feed.say("0.漢字のエージェント", "漢字のエージェント", piece)
        said += piece
        lines = drawn(status, terminal)
        if "⏳" in lines[-1]:
            assert cells(lines.pop()) < terminal.columns
        assert "⏳" not in "".join(lines)
    feed(E.WORKFLOW_CANCELLED)
    shown = re.sub(r"\s", "", "".join(terminal.screen().text))
    assert shown == re.sub(r"\s|\u0301", "", f"🤖漢字のエージェント>{said}🤖b>")


@pty_only
def test_it_is_drawn_ten_times_a_second_at_most_and_ticks_by_itself(terminal: Terminal) -> None:
    status = StatusLine(terminal.files[1])
    feed = Feed(Console(terminal.files[0], status=status))
    began = time.monotonic()
    feed.parallel("a")
    for _ in range(500):
        feed.say("0.a", "a", "x")
    took = time.monotonic() - began
    terminal.screen()
    # Each of the lines that the text fills, and the heading, may have it drawn once more.
    assert 1 <= terminal.sent.count("⏳".encode()) <= took / 0.1 + 11
    before = terminal.sent.count("⏳".encode())
    wait_until(lambda: terminal.sent.count("⏳".encode()) > before)  # for the time that passes
    feed(E.WORKFLOW_COMPLETED)
    wait_until(lambda: "agentstream-status" not in [t.name for t in threading.enumerate()])


@pty_only
def test_without_colours_and_in_ascii(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    with open(os.dup(terminal.files[1].fileno()), "w", encoding="ascii") as file:
        with StatusLine(file) as status:
            feed = Feed(status)
            feed.parallel("grün\x1b[2J", "b")
            feed.step("0.f", "sum_up", "Function")
            (line,) = drawn(status, terminal)
            assert re.fullmatch(r"\* gr\?n \[2J, b, sum_up \| 0\.\d s", line)
        assert terminal.screen().text == ""
    assert not re.search(rb"\x1b\[[\d;]*m", terminal.sent)


@pty_only
def test_a_long_list_of_names_leaves_room_for_the_figures(terminal: Terminal) -> None:
    with StatusLine(terminal.files[1]) as status:
        feed = Feed(status)
        feed.parallel(*(f"agent number {n}" for n in range(9)))
        feed.say("0.agent number 1", "agent number 1", "x")
        (line,) = drawn(status, terminal)
        assert re.fullmatch(r"⏳ agent number 0, agent.*… · 1 token · 0\.\d s", line)
        assert cells(line) <= 59


@pty_only
def test_text_on_a_terminal_cannot_steer_it(terminal: Terminal) -> None:
    feed = Feed(Console(terminal.files[0]))
    feed.parallel("a\x1b[1m")
    feed.say("0.a\x1b[1m", "a\x1b[1m", "x\x1b[2J\x9b3A\x07\r\ny\tz")
    assert terminal.screen().lines[:3] == ["🤖 a[1m >", "   x[2J3A", "   y\tz"]


def test_the_servers_count_takes_the_place_of_the_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("TERM", raising=False)
    file = Tty()
    status = StatusLine(file)
    console = Console(io.StringIO(), status=status)
    feed = Feed(lambda event: (status(event), console(event)))  # told twice, counted once
    feed.parallel("a")
    feed.say("0.a", "a", "x")
    feed(E.AGENT_LLM_REQUEST_COMPLETED, step="0.a", agent="a", usage={"completion_tokens": 41})
    feed(E.AGENT_LLM_REQUEST_STARTED, step="0.a", agent="a")
    feed.say("0.a", "a", "x")
    status._drawn_at = 0.0
    status.draw()
    assert " 42 tokens " in file.getvalue()
    status.close()
    assert file.getvalue().endswith("\r\x1b[K")


@pty_only
def test_agents_on_their_own_come_and_go(terminal: Terminal) -> None:
    with StatusLine(terminal.files[1]) as status:
        feed = Feed(status)
        for name in ("one", "two"):
            feed.begin("", name, name)
        assert drawn(status, terminal)[0].startswith("⏳ one, two · ")
        feed(E.AGENT_FAILED, "one", step="", agent="one", error="E", message="x")
        assert drawn(status, terminal)[0].startswith("⏳ two · ")
        feed.agent_done("", "two", "two")
        assert terminal.screen().text == ""


def test_on_a_file_it_does_nothing() -> None:
    file = io.StringIO()
    status = StatusLine(file)
    feed = Feed(Console(io.StringIO(), status=status))
    feed.parallel("a")
    feed(E.WORKFLOW_COMPLETED)
    status.close()
    assert file.getvalue() == ""


@pty_only
def test_the_text_goes_into_a_file_and_the_status_to_the_terminal(terminal: Terminal) -> None:
    status = StatusLine(terminal.files[1])
    file = io.StringIO()
    feed = Feed(Console(file, status=status))
    feed.parallel("a")
    feed.say("0.a", "a", "mid line")
    assert drawn(status, terminal)[0].startswith("⏳ a · 1 token · ")
    feed(E.WORKFLOW_FAILED)
    assert terminal.screen().text == ""
    assert "mid line" in file.getvalue()


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


@pytest.mark.parametrize("odd", [None, 7, [], {"a": 1}, True, "0"])
def test_events_of_a_users_own_are_shown_or_left_out(odd: Any) -> None:
    keys = ("step", "agent", "chunk", "usage", "id", "name", "run", "message", "first", "last")
    data = dict.fromkeys((*keys, "workflow", "kind", "will_retry"), odd)
    outline, tally = Outline(), _Tally()
    for number, kind in enumerate(EventType, 1):
        for own in (data, {}, {**data, "step": "0"}, {**data, "step": "", "agent": "a"}):
            event = Event(f"run:{number}", number, None, kind, "run", None, 1.0, own)
            outline.add(event)
            tally.add(event)
