"""pydantic's models, known by their methods alone: pydantic is never imported.

A model brings its own schema and its own checks.  Here its schema is made to
stand alone (no `$ref`), and what it refuses becomes an Invalid.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

from agentstream.schema.problems import Invalid, Key, Problem
from agentstream.schema.validate import resolve

__all__ = ["SelfReference", "field_of", "inlined", "validated"]

_ONE = ("items", "additionalProperties", "not", "contains", "propertyNames", "additionalItems")
_MANY = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("properties", "patternProperties")


class SelfReference(ValueError):
    """A schema contains itself, so it cannot be written out."""


class GivenField(NamedTuple):
    """What a parameter's `Field(...)` says of its default.

    Attributes:
        info: the field itself, for its bounds and its description.
        required: there is no default.
        make: makes the default; None where there is none.
    """

    info: Any
    required: bool
    make: Optional[Callable[[], Any]]


def field_of(default: Any) -> Optional[GivenField]:
    """The `Field(...)` that stands where a default is written; None if it is none."""
    if not callable(getattr(default, "is_required", None)) or isinstance(default, type):
        return None
    if not hasattr(default, "metadata") or not hasattr(default, "default_factory"):
        return None
    if default.is_required():
        return GivenField(default, True, None)
    return GivenField(default, False, default.default_factory or (lambda: default.default))


def inlined(root: Dict[str, Any]) -> Dict[str, Any]:
    """A copy of `root` with every local `$ref` replaced by what it names.

    Raises SelfReference for a recursive schema, LookupError for a `$ref` that
    names nothing.
    """
    out = _inline(root, root, ())
    return out if isinstance(out, dict) else {}


def validated(model: Any, value: Any) -> Any:
    """An instance of `model` made of a JSON value; raises Invalid."""
    try:
        # As JSON, where it can: a strict model takes a date or an enum from JSON only.
        if hasattr(model, "model_validate_json"):
            return model.model_validate_json(json.dumps(value))
        return model.model_validate(value)
    except Exception as exc:
        raise _invalid(exc) from exc


def _inline(schema: Any, root: Dict[str, Any], within: Tuple[str, ...]) -> Any:
    if not isinstance(schema, dict):
        return schema
    reference = schema.get("$ref")
    if isinstance(reference, str):
        if reference in within:
            raise SelfReference(reference)
        target = _inline(resolve(root, reference), root, (*within, reference))
        siblings = {key: part for key, part in schema.items() if key != "$ref"}
        return {**(target if isinstance(target, dict) else {}), **_inline(siblings, root, within)}
    out: Dict[str, Any] = {}
    for key, part in schema.items():
        if key in ("$defs", "definitions", "discriminator"):  # the last one points into $defs
            continue
        if key in _MANY and isinstance(part, list):
            out[key] = [_inline(item, root, within) for item in part]
        elif key in _NAMED and isinstance(part, dict):
            out[key] = {name: _inline(item, root, within) for name, item in part.items()}
        elif key in _ONE:
            out[key] = _inline(part, root, within)
        else:
            out[key] = part
    return out


def _invalid(exc: Exception) -> Invalid:
    """What a ValidationError lists, place by place; any other exception's text."""
    try:
        listed = exc.errors()  # type: ignore[attr-defined]
        problems = [Problem(_path(one["loc"]), f"is refused: {one['msg']}") for one in listed]
    except Exception:  # noqa: BLE001  # no ValidationError, or not one as we know them
        problems = []
    return Invalid(*problems) if problems else Invalid.refused(exc)


def _path(parts: Any) -> Tuple[Key, ...]:
    return tuple(part if isinstance(part, int) else str(part) for part in parts)
