"""The keys that a schema knows: through references, choices and open objects."""

from __future__ import annotations

from typing import Any, Dict

from agentstream.schema.known import ANYTHING, known_of

POINT: Dict[str, Any] = {
    "type": "object",
    "properties": {"x": {"type": "integer"}},
    "additionalProperties": False,
}


def pruned(schema: Dict[str, Any], value: Any, *, closed: bool = False) -> Any:
    return known_of(schema, closed=closed).pruned(value)


def test_unknown_keys_go_wherever_they_are():
    schema = {"type": "array", "items": {"anyOf": [{"type": "null"}, POINT]}}
    assert pruned(schema, [None, {"x": 1, "y": 2}, 3]) == [None, {"x": 1}, 3]
    table = {"type": "object", "additionalProperties": POINT}
    assert pruned(table, {"a": {"y": 1}, "b": {"x": 1}}) == {"a": {}, "b": {"x": 1}}
    pair = {"type": "array", "prefixItems": [POINT, {"type": "string"}]}
    assert pruned(pair, [{"y": 1}, "a"]) == [{}, "a"]


def test_a_choice_knows_the_keys_of_all_its_forms():
    other = {**POINT, "properties": {"x": POINT, "z": {}}}
    schema = {"anyOf": [POINT, other]}
    assert pruned(schema, {"x": {"x": 1, "q": 2}, "z": {"any": 1}, "w": 0}) == {
        "x": {"x": 1},
        "z": {"any": 1},
    }
    assert pruned({"anyOf": [POINT, {"type": "object"}]}, {"w": 0}) == {"w": 0}
    assert pruned({"anyOf": [POINT, {}]}, {"w": 0}) == {"w": 0}


def test_an_object_that_says_nothing_of_others_is_open_unless_it_is_to_be_closed():
    schema = {"type": "object", "properties": {"x": {}}}
    assert pruned(schema, {"x": 1, "y": 2}) == {"x": 1, "y": 2}
    assert pruned(schema, {"x": 1, "y": 2}, closed=True) == {"x": 1}
    assert known_of({"type": "object"}, closed=True).under("any") is not None


def test_references_and_recursion():
    schema = {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
                "additionalProperties": False,
            }
        },
    }
    value = {"kids": [{"kids": [{"w": 1}], "w": 2}], "w": 3}
    assert pruned(schema, value) == {"kids": [{"kids": [{}]}]}
    assert pruned({"$ref": "#/nowhere"}, {"w": 1}) == {"w": 1}


def test_what_has_nothing_to_lose_is_itself():
    value = {"a": [1, {"b": 2}]}
    assert ANYTHING.pruned(value) is value
    assert pruned({"type": "array", "items": {"type": "string"}}, value) is value
    assert known_of(POINT, closed=False).under("y") is None
