"""Schemas as servers take them: nothing that they refuse, and what that said in words."""

from __future__ import annotations

from typing import Any, Dict

import pytest

from agentstream.schema.annotations import Undescribable
from agentstream.schema.wire import GRAMMAR, MESSAGES, OPENAI, reduced

SCHEMA: Dict[str, Any] = {
    "type": "object",
    "properties": {
        "n": {"type": "integer", "minimum": 1, "maximum": 5, "description": "Stars"},
        "s": {"type": "string", "minLength": 2, "pattern": "a+", "format": "path"},
        "l": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2},
    },
    "required": ["n", "s", "l"],
    "additionalProperties": False,
}


def test_openai_takes_bounds_of_numbers_and_arrays_but_not_of_texts():
    found = reduced(SCHEMA, OPENAI)["properties"]
    assert found["n"] == SCHEMA["properties"]["n"]
    said = {"type": "string", "pattern": "a+", "description": "at least 2 characters, a path"}
    assert found["s"] == said
    assert found["l"]["maxItems"] == 2
    assert found["l"]["items"] == {"type": "string", "description": "at most 3 characters"}


def test_a_choice_is_written_one_way():
    """As pydantic writes a union with a discriminator, and a field with a default."""
    cat = {"type": "object", "properties": {"kind": {"const": "cat"}}, "required": ["kind"]}
    schema = {"anyOf": [{"oneOf": [cat]}, {"allOf": [cat], "description": "a cat"}]}
    for wire in (OPENAI, MESSAGES):
        first, second = reduced(schema, wire)["anyOf"]
        assert list(first) == ["anyOf"] and second["description"] == "a cat"
        assert second["properties"] == cat["properties"] and "allOf" not in second


def test_messages_takes_no_bounds_and_closes_objects():
    open_ = {key: part for key, part in SCHEMA.items() if key != "additionalProperties"}
    found = reduced(open_, MESSAGES)
    assert found["additionalProperties"] is False
    n = {"type": "integer", "description": "Stars (at least 1, at most 5)"}
    assert found["properties"]["n"] == n
    assert "maxItems" not in found["properties"]["l"]
    few = {"type": "array", "minItems": 1, "items": {"type": "null"}}
    assert reduced(few, MESSAGES) == few


def test_a_grammar_takes_all_but_patterns_without_anchors():
    found = reduced(SCHEMA, GRAMMAR)["properties"]
    assert found["s"]["minLength"] == 2 and found["s"]["description"] == "matching a+"
    anchored = {"type": "string", "pattern": "^a+$"}
    assert reduced(anchored, GRAMMAR) == anchored
    assert SCHEMA["properties"]["s"]["pattern"] == "a+"  # the caller's stays as it is


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "array", "prefixItems": [{"type": "null"}], "items": {"type": "null"}},
        {"type": "object", "properties": {"any": {}}, "required": ["any"]},
        {"type": "object", "patternProperties": {"a": {"type": "null"}}},
    ],
)
def test_what_has_no_words_is_told(schema: Dict[str, Any]):
    for wire in (OPENAI, MESSAGES):
        with pytest.raises(Undescribable):
            reduced(schema, wire)
    assert reduced(schema, GRAMMAR) == schema
