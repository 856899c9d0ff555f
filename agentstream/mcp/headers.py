"""What HTTP's headers repeat of a request: its method, its name, chosen arguments.  Pure.

MCP 2026-07-28, "Streamable HTTP", sections "Standard Request Headers" and "Custom
Headers from Tool Parameters".
"""

from __future__ import annotations

import base64
import re
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

__all__ = ["InvalidAnnotation", "annotated_arguments", "argument_headers", "standard_headers"]

#: Methods whose name or URI goes into a header: from which parameter.
_NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}

_KEY = "x-mcp-header"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PLAIN = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_MARKED = re.compile(r"=\?base64\?.*\?=", re.DOTALL)
_TYPES = ("integer", "string", "boolean")
#: Keywords of JSON Schema 2020-12 that hold schemas: one, a list, or a table of them.
_ONE = {
    *("items", "contains", "additionalProperties", "propertyNames", "not", "if", "then", "else"),
    *("unevaluatedItems", "unevaluatedProperties", "contentSchema"),
}
_LISTS = {"allOf", "anyOf", "oneOf", "prefixItems"}
_TABLES = {"patternProperties", "dependentSchemas", "$defs", "definitions"}

#: The names of properties that lead from the root to a value.
Place = Tuple[str, ...]


class InvalidAnnotation(ValueError):
    """A schema's `x-mcp-header` breaks a rule, so that its tool must not be used."""


def standard_headers(method: str, params: Mapping[str, Any], version: str) -> Dict[str, str]:
    """The headers that every request of a modern version has."""
    headers = {"MCP-Protocol-Version": version, "Mcp-Method": method}
    if method in _NAMED:
        headers["Mcp-Name"] = encoded(str(params.get(_NAMED[method], "")))
    return headers


def encoded(value: str) -> str:
    """A text as a header can hold it: as it is, or its UTF-8 as Base64 between marks."""
    if _PLAIN.fullmatch(value) and not _MARKED.fullmatch(value):
        return value
    packed = base64.b64encode(value.encode("utf-8", "replace")).decode()
    return f"=?base64?{packed}?="


def annotated_arguments(schema: Any) -> Dict[Place, str]:
    """{place of an argument: name of its header} of a tool's schema.

    Raises:
        InvalidAnnotation: one breaks a rule; the text says which.
    """
    found: Dict[Place, str] = {}
    names: Dict[str, Place] = {}
    for place, part in _schemas(schema):
        if _KEY not in part:
            continue
        if not place:
            raise InvalidAnnotation(f"{_KEY} stands where no argument can be read")
        name, where = part[_KEY], ".".join(place)
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise InvalidAnnotation(f"{where}: {_KEY} is no header's name")
        if part.get("type") not in _TYPES:
            raise InvalidAnnotation(f"{where}: {_KEY} is for {', '.join(_TYPES)} only")
        if name.lower() in names:
            other = ".".join(names[name.lower()])
            raise InvalidAnnotation(f"{where}: {_KEY} {name!r} is that of {other} too")
        names[name.lower()] = place
        found[place] = f"Mcp-Param-{name}"
    return found


def _schemas(root: Any) -> Iterator[Tuple[Optional[Place], Dict[str, Any]]]:
    """Every schema within one, with its place; None where a chain of properties does not lead."""
    left: List[Tuple[Optional[Place], Any]] = [((), root)]
    while left:
        place, part = left.pop()
        if not isinstance(part, dict):
            continue
        yield place, part
        for key, value in part.items():
            if key == "properties" and isinstance(value, dict):
                for name, inner in value.items():
                    left.append((None if place is None else (*place, name), inner))
            elif key in _ONE:
                left.append((None, value))
            elif key in _LISTS and isinstance(value, list):
                left += [(None, inner) for inner in value]
            elif key in _TABLES and isinstance(value, dict):
                left += [(None, inner) for inner in value.values()]


def argument_headers(
    annotated: Mapping[Place, str], arguments: Mapping[str, Any]
) -> Dict[str, str]:
    """The headers of a call; an argument that is not there, or null, has none."""
    headers = {}
    for place, name in annotated.items():
        value: Any = arguments
        for key in place:
            value = value.get(key) if isinstance(value, Mapping) else None
        text = _text(value)
        if text is not None:
            headers[name] = encoded(text)
    return headers


def _text(value: Any) -> Optional[str]:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, (str, int)) else None
