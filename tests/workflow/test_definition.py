"""Workflow and Step: what they refuse, and how they show themselves."""

from __future__ import annotations

from typing import Any

import pytest

from agentstream import Agent, Workflow
from agentstream.errors import ConfigError
from tests.kit.support import saying
from tests.kit.workflow_runs import two_steps


@pytest.mark.parametrize(
    "wrong",
    [
        ("", [Agent("a", client=saying("x"))]),
        ("w", []),
        ("w", Agent("a", client=saying("x"))),
        ("w", ["agent"]),
        ("w", None),
        (None, [Agent("a", client=saying("x"))]),
    ],
)
def test_a_workflow_refuses_what_cannot_work(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        Workflow(*wrong)


def test_a_workflow_shows_its_steps() -> None:
    assert repr(two_steps()) == "<Workflow 'shout': upper -> loud>"
