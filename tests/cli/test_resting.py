"""What is said of runs that rest: whole, in lines that can be pasted into a shell."""

from __future__ import annotations

import shlex

from agentstream.cli.log_place import LogPlace
from agentstream.cli.parser import parse
from agentstream.cli.resting import answers_told, command, in_short, lines_of, title_of
from agentstream.results import PendingCall, PendingSignal

CALL = PendingCall("c1", "pay", '{"to":\n "x"}', "0", "clerk", "approval", 86_400.0 * 365)


def test_who_answers_sees_all_of_what_is_asked():
    long = CALL._replace(arguments='{"to": "' + "y" * 500 + '"}')
    assert title_of(CALL) == 'pay {"to": "x"}'
    assert "y" * 500 in title_of(long)
    assert in_short([long, PendingSignal("goods")]).endswith("yyy..., the value 'goods'")
    unknown = CALL._replace(id="c2", why="unknown", expires_at=None)
    lines = list(lines_of("r", [CALL, unknown, PendingSignal("goods", "1", 1.0)], None))
    text = "\n".join(lines)
    assert "call c1 of agent 'clerk'; step 0; from 1970-12-" in text or "; from 1971-01-" in text
    assert "on it counts as refused" in text
    assert "it may have been made: yes makes it again" in text
    assert "on its wait is over" in text
    assert [line.strip().partition("   ")[0] for line in lines if "agentstream" in line] == [
        "agentstream approve r c1",
        "agentstream approve r c2",
        "agentstream signal r goods VALUE",
    ]


def test_commands_are_understood_as_they_are_told():
    for run in ("plain", "two words", "it's $HOME", "a;b", "ü"):
        words = shlex.split(command("approve", run, "c 1", log=LogPlace("/tmp/a b/runs.db")))
        given = parse(words[1:])
        assert (given.id, given.call, given.log) == (run, "c 1", "/tmp/a b/runs.db")


def test_answers_are_told_with_who_gave_them():
    answers = [
        {"name": "pay", "answer": "yes", "by": "ann"},
        {"name": "pay", "answer": "no", "reason": "too much"},
        {"name": "pay", "answer": "change", "by": ""},
        {"name": "pay", "answer": "expired"},
        {"name": "goods", "answer": "value", "by": "bo"},
        "odd",
    ]
    assert answers_told({"answers": answers}) == (
        "; pay: yes, by ann; pay: no (too much); pay: yes, with other arguments"
        "; pay: nobody answered in time; goods: it has come, by bo"
    )
    assert answers_told({}) == answers_told({"answers": "odd"}) == ""
