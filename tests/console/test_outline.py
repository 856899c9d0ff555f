"""The order to print in: runs in runs, beside each other, silent ones, and what is forgotten."""

from __future__ import annotations

import re
from typing import Any

import pytest

from agentstream import EventType
from agentstream.console.outline import Outline
from agentstream.console.status import _Tally
from agentstream.events.model import Event
from tests.kit.screens import E, Feed


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


@pytest.mark.parametrize("odd", [None, 7, [], {"a": 1}, True, "0"])
def test_events_of_a_users_own_are_shown_or_left_out(odd: Any) -> None:
    keys = (
        "step",
        "agent",
        "chunk",
        "usage",
        "id",
        "name",
        "run",
        "message",
        "first",
        "last",
        "pending",
        "status",
    )
    data = dict.fromkeys((*keys, "workflow", "kind", "will_retry"), odd)
    outline, tally = Outline(), _Tally()
    for number, kind in enumerate(EventType, 1):
        for own in (data, {}, {**data, "step": "0"}, {**data, "step": "", "agent": "a"}):
            event = Event(f"run:{number}", number, None, kind, "run", None, 1.0, own)
            outline.add(event)
            tally.add(event)


def test_an_answer_that_is_asked_for_again_is_remarked_on(feed: Feed) -> None:
    problems = [{"path": ["items", 0, "price"], "text": "is missing"}, {"path": [], "text": "no"}]
    feed.say("0", "a", "{}")
    feed(E.AGENT_OUTPUT_INVALID, step="0", agent="a", problems=problems, will_retry=True)
    assert "(asking again: items[0].price is missing; the answer no)" in feed.text
    feed(E.AGENT_OUTPUT_INVALID, step="0", agent="a", problems="odd", will_retry=False)
    assert feed.text.count("asking again") == 1


def test_a_run_that_rests_holds_nobody_up_and_goes_on_with_what_it_says_then(feed: Feed) -> None:
    feed.start()
    feed.step("0", "a")
    feed.say("0", "a", "half")
    feed(E.WORKFLOW_SUSPENDED, status="suspended", pending=[{"name": "pay"}, {"name": "goods"}])
    feed.start("v")
    feed.step("0", "b", run="v")
    feed.agent("0", "b", "other", "v")
    feed(E.WORKFLOW_COMPLETED, "v")
    feed(E.WORKFLOW_RESUMED, step="0", completed=[], answers=[])
    feed.step("0", "a")
    feed.agent("0", "a", "whole")
    feed(E.WORKFLOW_SUSPENDED, status="interrupted", reason="Ctrl-C", pending=[])
    assert re.findall(r"🤖 (.*) >|\((.*)\)", feed.text) == [
        ("a", ""),
        ("", "suspended: it waits for pay, goods"),
        ("b", ""),
        ("", "resumed"),
        ("a", ""),
        ("", "interrupted: Ctrl-C"),
    ]


def test_what_rests_is_not_under_way() -> None:
    tally = _Tally()
    for kind, data, under_way in (
        (E.WORKFLOW_STARTED, {}, {"w"}),
        (E.WORKFLOW_SUSPENDED, {"pending": []}, set()),
        (E.WORKFLOW_RESUMED, {"step": None}, {"w"}),
        (E.WORKFLOW_COMPLETED, {}, set()),
    ):
        tally.add(Event("w:1", 1, None, kind, "w", None, 1.0, data))
        assert tally.runs == under_way
