"""An agent's settings: what is refused, by name, and the older names of the limits."""

from __future__ import annotations

import pytest

from agentstream import Agent, ConfigError, LlamaClient, ToolLimits
from agentstream.testing import ScriptedClient
from tests.kit.tool_loop import add


@pytest.mark.parametrize(
    "settings",
    [
        {"tool_choice": "subtract"},
        {"tool_choice": {"function": {}}},
        {"approve": "yes"},
        {"tool_limits": 5},
        {"tool_limits": {"max_rounds": 5}},
    ],
    ids=str,
)
def test_settings_that_cannot_be_used(settings):
    with pytest.raises(ConfigError):
        Agent("worker", client=ScriptedClient(), tools=[add], **settings)


#: A limit that cannot be: its name, its older name, the value.
NO_LIMITS = [
    ("max_rounds", "max_rounds", 0),
    ("max_rounds", "max_rounds", True),
    ("repeat_limit", "repeat_limit", 1),
    ("repeat_memory", "repeat_memory", -1),
    ("timeout", "tool_timeout", 0),
    ("result_chars", "tool_result_limit", 99),
]


@pytest.mark.parametrize(("name", "older", "value"), NO_LIMITS)
def test_limits_that_cannot_be_used_are_named(name, older, value):
    with pytest.raises(ConfigError) as caught:
        ToolLimits(**{name: value})
    assert caught.value.setting == name
    with pytest.raises(ConfigError, match=older) as caught, pytest.warns(DeprecationWarning):
        Agent("worker", client=ScriptedClient(), **{older: value})
    assert caught.value.setting == older


def test_the_older_names_of_the_limits_still_work_and_say_what_to_write():
    older = {
        "max_rounds": 4,
        "repeat_limit": None,
        "repeat_memory": 2,
        "tool_timeout": 5.0,
        "tool_result_limit": 500,
    }
    with pytest.warns(DeprecationWarning, match=r"ToolLimits\(max_rounds=.*result_chars=") as told:
        agent = Agent("worker", client=ScriptedClient(), **older)  # type: ignore[arg-type]
    assert told[0].filename == __file__
    assert agent.tool_limits == ToolLimits(4, None, 2, 5.0, 500)
    assert {name: getattr(agent, name) for name in older} == older
    both = {"tool_limits": ToolLimits(), "max_rounds": 4}
    with pytest.raises(ConfigError, match="tool_limits"):
        Agent("worker", client=ScriptedClient(), **both)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="max_round"):
        Agent("worker", client=ScriptedClient(), max_round=4)  # type: ignore[call-arg]


def test_tool_mode_is_checked():
    with pytest.raises(ConfigError):
        LlamaClient(tool_mode="magic")
