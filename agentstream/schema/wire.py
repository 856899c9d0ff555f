"""A schema as a server takes it: without what it refuses, which is said in words instead (pure).

`OPENAI` is the strict mode of Chat Completions and Responses, `MESSAGES` Anthropic's,
`GRAMMAR` llama.cpp's and Ollama's, which make a grammar of a schema.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, FrozenSet, Mapping, NamedTuple

from agentstream.schema.annotations import Undescribable
from agentstream.schema.strict import strict_schema

__all__ = ["GRAMMAR", "MESSAGES", "OPENAI", "Wire", "reduced"]

Schema = Dict[str, Any]

_FORMATS = frozenset({"date-time", "date", "time", "duration", "uuid", "email", "hostname", "ipv4",
                      "ipv6"})  # fmt: skip
_SIZES = frozenset({"minLength", "maxLength", "minProperties", "maxProperties", "uniqueItems"})
_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
#: How a description says what a schema may not.
_WORDS = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "minProperties": "at least {} keys",
    "maxProperties": "at most {} keys",
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "pattern": "matching {}",
    "format": "a {}",
}
_ONE = ("items", "additionalProperties", "not", "contains")
_MANY = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("properties", "$defs", "definitions")


class Wire(NamedTuple):
    """What a server takes of a schema.

    Attributes:
        refused: keywords that it refuses.
        formats: values of `format` that it takes; None for all.
        anchored: a `pattern` must begin with "^" and end with "$".
        simple: `anyOf` stands for `oneOf`.
        form: the last change; raises `Undescribable` for what the server has no words for.
    """

    refused: FrozenSet[str]
    formats: Any
    anchored: bool
    simple: bool
    form: Callable[[Schema], Schema]


def reduced(schema: Mapping[str, Any], wire: Wire) -> Schema:
    """A copy of `schema` as `wire` takes it; raises `Undescribable` if there is none."""
    return wire.form(_mapped(schema, lambda part: _said(part, wire)))


def _mapped(schema: Any, change: Callable[[Schema], Schema]) -> Any:
    """A copy, each schema within it changed."""
    if not isinstance(schema, Mapping):
        return schema
    out = dict(schema)
    for key in _ONE:
        if key in out:
            out[key] = _mapped(out[key], change)
    for key in _MANY:
        if isinstance(out.get(key), list):
            out[key] = [_mapped(part, change) for part in out[key]]
    for key in _NAMED:
        if isinstance(out.get(key), Mapping):
            out[key] = {name: _mapped(part, change) for name, part in out[key].items()}
    return change(out)


def _said(schema: Schema, wire: Wire) -> Schema:
    """One schema without what the wire refuses of it, told in its description."""
    if wire.simple:
        schema = _simple(schema)
    gone = [key for key in schema if _refuses(wire, key, schema[key])]
    if not gone:
        return schema
    words = [_WORDS[key].format(schema[key]) for key in gone if key in _WORDS]
    out = {key: value for key, value in schema.items() if key not in gone}
    said = ", ".join(words)
    if said:
        before = out.get("description")
        out["description"] = f"{before} ({said})" if before else said
    return out


def _simple(schema: Schema) -> Schema:
    """One schema with `anyOf` for `oneOf`, and without an `allOf` of a single part."""
    if "oneOf" in schema and "anyOf" not in schema:
        schema = {("anyOf" if key == "oneOf" else key): part for key, part in schema.items()}
    parts = schema.get("allOf")
    if isinstance(parts, list) and len(parts) == 1 and isinstance(parts[0], dict):
        schema = {**parts[0], **{key: part for key, part in schema.items() if key != "allOf"}}
    return schema


def _refuses(wire: Wire, keyword: str, value: Any) -> bool:
    if keyword == "format" and wire.formats is not None:
        return value not in wire.formats
    if keyword == "pattern" and wire.anchored:
        return not (str(value).startswith("^") and str(value).endswith("$"))
    if keyword == "minItems" and value in (0, 1):
        return False
    return keyword in wire.refused


def _closed(schema: Schema) -> Schema:
    """As Messages has it: every object closed, no forms but `anyOf`."""

    def close(part: Schema) -> Schema:
        if "prefixItems" in part or "oneOf" in part or "patternProperties" in part:
            raise Undescribable("Messages knows no prefixItems, oneOf or patternProperties")
        if not part or not {"type", "enum", "const", "anyOf", "allOf", "$ref"} & set(part):
            raise Undescribable("Messages has no schema for any value at all")
        if part.get("type") != "object":
            return part
        if part.get("additionalProperties") not in (None, False) or "properties" not in part:
            raise Undescribable("Messages allows no free keys")
        return {**part, "additionalProperties": False}

    out: Schema = _mapped(schema, close)
    return out


OPENAI = Wire(_SIZES, _FORMATS, False, True, strict_schema)
MESSAGES = Wire(
    _SIZES | _BOUNDS | {"minItems", "maxItems"}, _FORMATS | {"uri"}, False, True, _closed
)
GRAMMAR = Wire(frozenset(), None, True, False, lambda schema: schema)
