"""A schema as OpenAI's strict mode wants it (pure).

There every object is closed and requires all its properties, so what may be left
out becomes what may be null.  `Tool.bind` takes null for "not given" anyway.
"""

from __future__ import annotations

from typing import Any, Dict

from agentstream.schema.annotations import Undescribable

__all__ = ["strict_schema"]

_DROPPED = ("default", "uniqueItems", "title")


def strict_schema(schema: Any, where: str = "parameters") -> Dict[str, Any]:
    """A strict copy of `schema`; raises Undescribable where strict mode has no words for it."""
    if not isinstance(schema, dict) or not {"type", "enum", "const", "anyOf", "$ref"} & set(schema):
        raise Undescribable(f"{where}: strict mode has no schema for any value at all")
    if "prefixItems" in schema or "oneOf" in schema or "allOf" in schema:
        raise Undescribable(f"{where}: strict mode knows no prefixItems, oneOf or allOf")
    out = {key: value for key, value in schema.items() if key not in _DROPPED}
    if schema.get("type") == "object":
        out.update(_closed(schema, where))
    if "items" in schema:
        out["items"] = strict_schema(schema["items"], f"{where}[]")
    if "anyOf" in schema:
        out["anyOf"] = [strict_schema(part, where) for part in schema["anyOf"]]
    if "$defs" in schema:
        out["$defs"] = {name: strict_schema(part, name) for name, part in schema["$defs"].items()}
    return out


def _closed(schema: Dict[str, Any], where: str) -> Dict[str, Any]:
    others = schema.get("additionalProperties")
    if others not in (None, False) or "properties" not in schema:
        raise Undescribable(f"{where}: strict mode allows no free keys (dict[str, ...])")
    required = schema.get("required", ())
    properties = {}
    for name, part in schema.get("properties", {}).items():
        inner = strict_schema(part, f"{where}.{name}")
        properties[name] = inner if name in required else _or_null(inner)
    return {
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _or_null(schema: Dict[str, Any]) -> Dict[str, Any]:
    null = {"type": "null"}
    if null in schema.get("anyOf", ()):
        return schema
    said = {"description": schema["description"]} if "description" in schema else {}
    if set(schema) <= {"anyOf", "description"}:
        return {"anyOf": [*schema["anyOf"], null], **said}
    plain = {key: value for key, value in schema.items() if key != "description"}
    return {"anyOf": [plain, null], **said}
