"""What the model is told of arguments that do not fit: all of it, and short."""

from __future__ import annotations

import json
from typing import Literal

import pytest

from agentstream.errors import ToolError
from agentstream.tools import tool


@tool
def get_weather(city: str, days: int = 1, unit: Literal["C", "F"] = "C") -> str:
    """Weather of a city."""
    return f"{city} {days} {unit}"


def test_s09_unknown_and_missing_keys_are_all_named_and_nothing_is_called():
    with pytest.raises(ToolError) as caught:
        get_weather.bind('{"location": "Rome", "days": "x"}')
    text = str(caught.value)
    assert '"city" is missing' in text
    assert '"location" is unknown; known here: city, days, unit' in text
    assert '"days" must be an integer' in text


def test_s09_many_problems_make_a_short_message():
    with pytest.raises(ToolError) as caught:
        get_weather.bind(json.dumps({f"k{n}" * 50: n for n in range(1000)}))
    assert "and 996 more problems" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_five_problems_are_all_told():
    with pytest.raises(ToolError) as caught:
        get_weather.bind('{"a": 1, "b": 1, "c": 1, "d": 1}')
    assert "more problems" not in str(caught.value)
    assert all(f'"{name}" is unknown' in str(caught.value) for name in "abcd")
