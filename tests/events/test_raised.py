"""What a callback raises: one traceback for each kind of error, then counts."""

from __future__ import annotations

import logging
from typing import List

import pytest

from agentstream.events.raised import Raised


def logged_by(raised: Raised, caplog: pytest.LogCaptureFixture, values: List[object]) -> List[str]:
    """Have `int` fail with these; what is logged: "!" and a kind's first message, or a count."""
    caplog.clear()
    with caplog.at_level(logging.ERROR, "agentstream"):
        for number, value in enumerate(values):
            try:
                int(value)  # type: ignore[call-overload]
            except (TypeError, ValueError) as error:
                raised.add(error, number)
        raised.end()
    return [f"{'!' if r.exc_info else ''}{r.getMessage()}" for r in caplog.records]


def test_each_kind_has_one_traceback_and_then_a_count(caplog: pytest.LogCaptureFixture) -> None:
    raised = Raised()
    lines = logged_by(raised, caplog, ["x", None, *["y"] * 104, None])
    assert raised.count == 107
    assert lines[:2] == [f"!a subscriber's callback raised on {n}" for n in (0, 1)]
    counts = [line.rsplit(" ", 2)[1] for line in lines[2:]]
    assert counts == ["10", "100", "105", "2"]
    assert all(f" at {__file__}:" in line for line in lines[2:])


def test_what_has_been_told_is_not_told_again(caplog: pytest.LogCaptureFixture) -> None:
    raised = Raised()
    assert logged_by(raised, caplog, ["x"]) == ["!a subscriber's callback raised on 0"]
    assert logged_by(raised, caplog, []) == []


def test_kinds_without_end_are_told_together(caplog: pytest.LogCaptureFixture) -> None:
    raised = Raised()
    with caplog.at_level(logging.ERROR, "agentstream"):
        for number in range(300):
            raised.add(type(f"Error{number}", (Exception,), {})(), number)
    assert raised.count == 300
    assert len([r for r in caplog.records if r.exc_info]) == 101
    assert caplog.records[-1].getMessage().endswith("has raised other errors 100 times")
