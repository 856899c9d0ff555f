"""A schema in OpenAI's strict form."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

import pytest

from agentstream.errors import ConfigError
from agentstream.tools import Tool, tool
from tests.kit.tool_support import INTEGER, NULL, TEXT, Color


def test_the_strict_form_requires_everything_and_lets_the_optional_be_null():
    def find(query: str, limit: int = 5, color: Optional[Color] = None) -> Any:
        """Finds."""
        return query, limit, color

    made = tool(find, strict=True)
    function = made.to_openai()["function"]
    assert function["strict"] is True
    assert function["parameters"] == {
        "type": "object",
        "properties": {
            "query": TEXT,
            "limit": {"anyOf": [INTEGER, NULL]},
            "color": {"anyOf": [{"type": "string", "enum": ["red", "blue"]}, NULL]},
        },
        "required": ["query", "limit", "color"],
        "additionalProperties": False,
    }
    bound = made.bind('{"query": "x", "limit": null, "color": null}')
    assert made.call(bound) == ("x", 5, None)
    assert "strict" not in tool(find).to_openai()["function"]


def test_the_strict_form_reaches_definitions_and_keeps_one_null():
    maybe = {"anyOf": [{"type": "integer"}, NULL]}
    point = {"type": "object", "properties": {"x": maybe, "c": {"enum": ["a", None]}}}
    schema = {"properties": {"p": {"$ref": "#/$defs/P"}}, "required": ["p"], "$defs": {"P": point}}
    made = Tool("t", "", schema, lambda p: p, strict=True)
    strict = made.to_openai()["function"]["parameters"]["$defs"]["P"]
    assert strict["properties"]["x"] == maybe
    assert (strict["required"], strict["additionalProperties"]) == (["x", "c"], False)
    assert "required" not in made.parameters["$defs"]["P"]


@pytest.mark.parametrize("annotation", [dict, Dict[str, int], Any, list, Tuple[int, str]])
def test_the_strict_form_refuses_what_it_cannot_say(annotation):
    def probe(x):
        pass

    probe.__annotations__["x"] = annotation
    with pytest.raises(ConfigError, match=r"'probe': parameters\.x"):
        tool(probe, strict=True)
