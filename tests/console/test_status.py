"""The status line: who streams, how much, how fast; and terminals of every kind."""

from __future__ import annotations

import io
import os
import re
import threading
import time
from typing import List

import pytest

from agentstream.console import Console
from agentstream.console.status import StatusLine, cells
from tests.kit.screens import E, Feed, Terminal, pty_only
from tests.kit.support import wait_until


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
    terminal.screen()
    took = time.monotonic() - began
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
