"""The model's JSON text -> values: several spellings of nothing, bad JSON, surrogates, long integers."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest

from agentstream.errors import ToolError
from agentstream.schema.parse import MAX_DEPTH, MAX_DIGITS
from agentstream.tools import tool
from tests.kit.tool_support import bound, taking


@tool
def get_weather(city: str, days: int = 1, unit: Literal["C", "F"] = "C") -> str:
    """Weather of a city."""
    return f"{city} {days} {unit}"


@tool
def ping() -> str:
    """Answers."""
    return "pong"


@pytest.mark.parametrize("text", ["", "  \n", "null", "{}", '"{}"'])
def test_no_arguments_have_several_spellings(text):
    assert ping.bind(text) == {}
    with pytest.raises(ToolError, match='"city" is missing'):
        get_weather.bind(text)


def test_arguments_encoded_twice_are_read():
    assert get_weather.bind(json.dumps('{"city": "Rome"}')) == {"city": "Rome"}


MALFORMED = [
    ('{"city": ', "this is not JSON"),
    ("{'city': 'Rome'}", "this is not JSON"),
    ('{"city": "Rome"} extra', "this is not JSON"),
    ("\ufeff{}", "this is not JSON"),
    ("[]", "the JSON must be an object, not an array"),
    ('"Rome"', 'must be an object, not the string "Rome"'),
    ("5", "must be an object, not 5"),
    ('{"city": NaN}', "NaN is not a JSON number"),
    ('{"city": -Infinity}', "Infinity is not a JSON number"),
    ('{"city": 1e999}', "a number is too large"),
    ('{"city": ' + "9" * 5000 + "}", f"more than {MAX_DIGITS} digits"),
    ('{"city": ' + "[" * 100_000, "nested too deeply|not JSON"),
    ('{"city": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested"),
    ('{"city": ' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}", "nested"),
    ('{"city": "a", "city": "b"}', 'the key "city" is given twice'),
    ('{"days": 1, "city": "a", "city": "b"}', 'the key "city" is given twice'),
    ('{"city": {"a": 1, "a": 1}}', 'the key "a" is given twice'),
]


@pytest.mark.parametrize(("text", "says"), MALFORMED, ids=range(len(MALFORMED)))
def test_p08_p11_bad_json_is_a_toolerror_that_says_what_to_send(text, says):
    with pytest.raises(ToolError, match=says) as caught:
        get_weather.bind(text)
    assert 'the keys "city", "days" (optional), "unit" (optional).' in str(caught.value)
    assert len(str(caught.value)) < 400


def test_p08_lone_surrogates_are_replaced_in_values_and_keys():
    values = taking(Any).bind('{"x": {"a\\ud800": "b\\udc00", "c": "\\ud83d\\ude00"}}')["x"]
    assert values == {"a\ufffd": "b\ufffd", "c": "\U0001f600"}
    assert taking(str).bind('{"x": "\ud800"}') == {"x": "\ufffd"}


def test_p08_a_long_integer_that_is_allowed_keeps_its_digits():
    digits = "9" * MAX_DIGITS
    assert bound(int, digits) == int(digits)
    with pytest.raises(ToolError, match="very large integer"):
        bound(str, digits)


def test_text_that_is_no_text_is_refused():
    with pytest.raises(ToolError, match="text"):
        get_weather.bind(None)
