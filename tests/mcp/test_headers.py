"""What HTTP's headers repeat of a request, by the specification's own examples and beyond."""

from __future__ import annotations

import base64
from typing import Any, Dict

import pytest

from agentstream.mcp.headers import (
    InvalidAnnotation,
    annotated_arguments,
    argument_headers,
    encoded,
    standard_headers,
)

#: The table of MCP 2026-07-28, "Value Encoding".
EXAMPLES = {
    "us-west1": "us-west1",
    "Hello, 世界": "=?base64?SGVsbG8sIOS4lueVjA==?=",
    " padded ": "=?base64?IHBhZGRlZCA=?=",
    "line1\nline2": "=?base64?bGluZTEKbGluZTI=?=",
    "=?base64?literal?=": "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=",
}


def test_values_are_encoded_as_the_specification_shows() -> None:
    assert {value: encoded(value) for value in EXAMPLES} == EXAMPLES


@pytest.mark.parametrize("value", ["", " ", "\t", "a\r\nX-Evil: 1", "\x7f", "a b", "é", "\ud800"])
def test_no_value_can_leave_its_header(value: str) -> None:
    sent = encoded(value)
    assert sent
    assert all(" " <= character <= "~" for character in sent)
    if sent.startswith("=?base64?"):
        assert base64.b64decode(sent[9:-2], validate=True) == value.encode("utf-8", "replace")
    else:
        assert sent == value


def test_the_headers_of_each_method() -> None:
    always = {"MCP-Protocol-Version": "v", "Mcp-Method": "tools/list"}
    assert standard_headers("tools/list", {"name": "x"}, "v") == always
    for method, key in (("tools/call", "name"), ("prompts/get", "name"), ("resources/read", "uri")):
        assert standard_headers(method, {key: "file:///ä"}, "v")["Mcp-Name"].startswith("=?base64?")


def of(**properties: Any) -> Dict[str, Any]:
    return {"type": "object", "properties": properties}


def marked(name: Any, kind: Any = "string") -> Dict[str, Any]:
    return {"type": kind, "x-mcp-header": name}


def test_marked_arguments_of_every_type_and_depth() -> None:
    schema = of(
        region=marked("Region"),
        deep=of(er=of(count=marked("Count", "integer"))),
        flag=marked("Flag", "boolean"),
        default={"type": "string", "default": {"x-mcp-header": "is data"}},
    )
    places = annotated_arguments(schema)
    assert places == {
        ("region",): "Mcp-Param-Region",
        ("deep", "er", "count"): "Mcp-Param-Count",
        ("flag",): "Mcp-Param-Flag",
    }
    given = {"region": "eu", "deep": {"er": {"count": 7}}, "flag": False}
    sent = {"Mcp-Param-Region": "eu", "Mcp-Param-Count": "7", "Mcp-Param-Flag": "false"}
    assert argument_headers(places, given) == sent
    assert argument_headers(places, {"deep": {"er": {"count": 7.0}}}) == {"Mcp-Param-Count": "7"}
    for nothing in ({}, {"region": None}, {"deep": "no object"}, {"deep": {"er": []}}):
        assert argument_headers(places, nothing) == {}


@pytest.mark.parametrize(
    "schema",
    [
        of(a=marked("")),
        of(a=marked("My Region")),
        of(a=marked("Region:")),
        of(a=marked("R\r\nX")),
        of(a=marked("é")),
        of(a=marked(5)),
        of(a=marked("A", "number")),
        of(a=marked("A", "object")),
        of(a=marked("A", ["string", "null"])),
        of(a={"x-mcp-header": "A"}),
        of(a=marked("Same"), b=marked("same")),
        {**of(), "x-mcp-header": "Root", "type": "string"},
        of(a={"type": "array", "items": marked("A")}),
        of(a={"anyOf": [marked("A")]}),
        {**of(), "$defs": {"a": marked("A")}},
        of(a={"not": of(b=marked("B"))}),
        {**of(), "allOf": [{"if": of(b=marked("B"))}]},
        {**of(), "patternProperties": {"x": marked("X")}},
    ],
)
def test_a_mark_that_breaks_a_rule(schema: Any) -> None:
    with pytest.raises(InvalidAnnotation):
        annotated_arguments(schema)


def test_a_schema_of_any_depth_or_none_at_all() -> None:
    deep: Any = {}
    for _ in range(5_000):
        deep = {"properties": {"a": deep}}
    assert annotated_arguments(deep) == {}
    for odd in (None, True, [], "x", {"properties": 5, "allOf": {}, "$defs": []}):
        assert annotated_arguments(odd) == {}
