"""Events as entries of a stream, and back; events that are too large."""

from __future__ import annotations

import json

import pytest

from agentstream import EventType, LogError
from agentstream.events.model import freeze
from agentstream.events.redis.entries import Stretch, event_from, fit, stretches


def test_an_event_comes_back_from_its_entry() -> None:
    fields = [b"t", b"system_warning", b"s", b"1.5", b"d", '{"é":["\U0001f600",{}]}'.encode()]
    event = event_from("w", "above", (b"7-12", fields))
    assert (event.id, event.offset, event.position) == ("w:7", 7, 12)
    assert (event.type, event.timestamp) == (EventType.SYSTEM_WARNING, 1.5)
    assert event.parent_workflow_id == "above"
    assert event.data == {"é": ("\U0001f600", {})}
    for at, damaged in ((1, b"no_type"), (3, b"noon"), (5, b"{"), (5, b"\xff")):
        with pytest.raises(LogError, match="damaged"):
            event_from("w", None, (b"7-12", [*fields[:at], damaged, *fields[at + 1 :]]))


def test_a_commit_tells_which_events_stand_where() -> None:
    refs = [b"0", b"3:2:me:a:b", b"1", b"1:4::b"]
    found = list(stretches((b"16-0", [b"@", b"1.0", b"#", b"99", *refs])))
    assert found == [Stretch(11, 3, 2, "me", "a:b"), Stretch(13, 1, 4, "", "b")]


def test_k31_of_an_event_that_is_too_large_the_longest_texts_are_cut() -> None:
    small = freeze({"chunk": "é" * 100, "n": [1, {"deep": "x"}]})
    assert json.loads(fit(small, 1024)) == {"chunk": "é" * 100, "n": [1, {"deep": "x"}]}
    large = freeze({"output": "\U0001f600" * 5000, "name": "tea", "list": ["y" * 3000, 7]})
    found = fit(large, 2048)
    assert len(found) <= 2048
    data = json.loads(found)
    assert (data["name"], data["list"][1]) == ("tea", 7)
    assert "cut: " in data["output"]
    assert "cut: " in data["list"][0]
    many = fit(freeze({"list": list(range(5000))}), 1024)
    assert len(many) <= 1024
    assert "1024 bytes" in json.loads(many)["message"]
