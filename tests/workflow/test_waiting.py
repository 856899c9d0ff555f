"""Wait: what it takes, and how it is drawn."""

from __future__ import annotations

from typing import Any, Callable

import pytest

import agentstream
from agentstream import ConfigError, Parallel, Repeat, Wait, Workflow
from agentstream.workflow.waiting import MISSING


def test_a_wait_has_its_time_apart_from_a_steps_timeout() -> None:
    plain, timed = Wait("approval"), Wait("approval", timeout=30, otherwise=None)
    assert (plain.name, plain.kind, plain.within()) == ("approval", "Wait", ())
    assert (plain.timeout, plain.retries, plain.wait_s) == (None, 0, None)
    assert (timed.timeout, timed.wait_s) == (None, 30)
    assert plain.otherwise is MISSING
    assert timed.otherwise is None
    assert (repr(plain), repr(MISSING)) == ("<Wait step 'approval'>", "MISSING")
    assert agentstream.Wait is Wait


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Wait(""), "name must not be empty"),
        (lambda: Wait(3), "name must be a str"),  # type: ignore[arg-type]
        (lambda: Wait("a", timeout=0), "step 'a': timeout must be a positive number"),
        (lambda: Wait("a", timeout="3"), "step 'a': timeout must be"),  # type: ignore[arg-type]
        (lambda: Wait("a", timeout=float("nan")), "step 'a': timeout must be"),
        (lambda: Wait("a", otherwise=3), "step 'a': otherwise is the output after a timeout"),
        (lambda: Wait("a", otherwise=None), "step 'a': otherwise is the output after a timeout"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(wrong: Callable[[], Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        wrong()


def test_it_is_drawn_as_a_hexagon() -> None:
    steps = [Wait("first"), Parallel(a=Wait("b", timeout=90), c=Repeat(Wait("d"), at_most=2))]
    drawn = Workflow("w", steps).to_mermaid()
    assert '    n1{{"wait for first"}}\n' in drawn
    assert '    n3{{"wait for b (90 s)"}}\n' in drawn
    assert "    start --> n1\n    n1 --> n2\n" in drawn
    assert '    n2 -->|"a"| n3\n' in drawn
