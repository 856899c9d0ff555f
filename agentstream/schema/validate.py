"""A JSON value against a JSON schema (pure): the one validator of tools and answers.

Knows the part of draft 2020-12 that function calling uses and ignores the rest.
In its lenient mode it mends what models are known to get wrong.  It knows no
Python types but those of JSON; making dates or dataclasses is describe.py's.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Dict, List, Optional, Union

from agentstream.schema.parse import MAX_DIGITS, parse_json
from agentstream.schema.problems import NAMES, Invalid, Problem, came, expected

__all__ = ["Validator", "dangling", "matches", "resolve", "same"]

_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_MISSED = object()
#: So many problems of one array are looked for.
_ENOUGH = 20
#: Keywords that hold values, not schemas.
_VALUES = ("enum", "const", "default", "examples")


def matches(value: Any, schema: Any) -> bool:
    """Does `value` fit as it is?  `schema` refers to nothing outside itself."""
    try:
        Validator(schema, lenient=False).check(value)
    except Invalid:
        return False
    return True


def same(left: Any, right: Any) -> bool:
    """Equal as JSON has it: true is not 1, but 1.0 is."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


def resolve(root: Any, reference: str) -> Any:
    """The schema that a local `$ref` ("#/$defs/Point") names; LookupError if there is none."""
    if reference != "#" and not reference.startswith("#/"):
        raise LookupError(reference)
    found = root
    for part in reference.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(key)] if isinstance(found, list) else found[key]
        except (LookupError, TypeError, ValueError):
            raise LookupError(reference) from None
    return found


def dangling(root: Any) -> Optional[str]:
    """A `$ref` within `root` that names nothing in it; None if there is none."""
    left = [root]
    while left:
        part = left.pop()
        if isinstance(part, list):
            left.extend(part)
        elif isinstance(part, dict):
            reference = part.get("$ref")
            if isinstance(reference, str):
                try:
                    resolve(root, reference)
                except LookupError:
                    return reference
            left += [part[key] for key in part if key not in _VALUES]
    return None


class Validator:
    """Checks values against one schema.

    Args:
        root: the schema; `$ref` is looked up in it.
        lenient: mend what is nearly right (see `Tool.bind`).
        steps: how many schemas may be tried before giving up; it bounds what a
            value can cost under a schema that branches.
    """

    def __init__(self, root: Any, *, lenient: bool = True, steps: int = 1_000_000) -> None:
        self._root = root
        self._lenient = lenient
        self._steps = steps

    def check(self, value: Any) -> Any:
        """The value, mended where lenient; raises Invalid.  `value` itself is not changed."""
        try:
            return self._check(value, self._root)
        except RecursionError:
            raise Invalid.because("is nested too deeply") from None

    def _check(self, value: Any, schema: Any) -> Any:
        self._steps -= 1
        if self._steps < 0:
            raise Invalid.because("is too complicated to check")
        if schema is False:
            raise Invalid.because("is not allowed here")
        if not isinstance(schema, dict):
            return value
        if isinstance(schema.get("$ref"), str):
            value = self._check(value, _target(self._root, schema["$ref"]))
        if "type" in schema:
            value = self._typed(value, schema)
        if isinstance(schema.get("enum"), list):
            value = _one_of(value, schema["enum"])
        if "const" in schema:
            value = _one_of(value, [schema["const"]])
        for part in _list(schema, "allOf"):
            value = self._check(value, part)
        for keyword in ("anyOf", "oneOf"):
            if _list(schema, keyword):
                value = self._branches(value, _list(schema, keyword), keyword == "oneOf")
        if isinstance(value, str):
            _check_text(value, schema)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            _check_number(value, schema)
        elif isinstance(value, list):
            value = self._array(value, schema)
        elif isinstance(value, dict):
            value = self._object(value, schema)
        return value

    def _typed(self, value: Any, schema: Dict[str, Any]) -> Any:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        known = [kind for kind in kinds if isinstance(kind, str) and kind in NAMES]
        if len(known) < len(kinds):  # a type of some later draft
            return value
        for kind in known:
            if _is(value, kind):
                return int(value) if kind == "integer" else value
        if self._lenient:
            for kind in known:
                mended = _mend(value, kind)
                if mended is not _MISSED:
                    return mended
        raise Invalid.because(f"must be {expected(schema)}, not {came(value)}")

    def _branches(self, value: Any, branches: List[Any], exclusive: bool) -> Any:
        lenient, fits = self._lenient, []
        self._lenient = False
        try:
            for branch in branches:
                try:
                    fits.append(self._check(value, branch))
                except Invalid:
                    continue
                if not exclusive:
                    break
        finally:
            self._lenient = lenient
        if exclusive and len(fits) > 1:
            raise Invalid.because("fits more than one of the forms it may have")
        return fits[0] if fits else self._nearest(value, branches)

    def _nearest(self, value: Any, branches: List[Any]) -> Any:
        """The first form that `value` can be mended into; else the most telling Invalid."""
        failures = []
        # Strict work is not done twice: nested forms would double it at every level.
        for branch in branches if self._lenient else ():
            try:
                return self._check(value, branch)
            except Invalid as exc:
                failures.append(exc)
        for failure in failures:
            if failure.deep():
                raise failure
        plain = [self._plain(branch) for branch in branches]
        wanted = " or ".join(dict.fromkeys(expected(branch) for branch in plain))
        raise Invalid.because(f"must be {wanted}, not {came(value)}")

    def _plain(self, schema: Any) -> Any:
        if isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
            return _target(self._root, schema["$ref"])
        return schema

    def _array(self, value: List[Any], schema: Dict[str, Any]) -> List[Any]:
        _check_size(len(value), schema, "Items", "item")
        if schema.get("uniqueItems") is True and _repeats(value):
            raise Invalid.because("must not hold the same item twice")
        items = schema.get("items")
        prefix = _list(schema, "prefixItems")
        if isinstance(items, list):  # how drafts before 2020-12 wrote prefixItems
            prefix, items = items, schema.get("additionalItems")
        out: List[Any] = []
        problems: List[Problem] = []
        for at, item in enumerate(value):
            try:
                out.append(self._check(item, prefix[at] if at < len(prefix) else items))
            except Invalid as exc:
                problems.extend(exc.under(at).problems)
                if len(problems) >= _ENOUGH:
                    break
        if problems:
            raise Invalid(*problems)
        return out

    def _object(self, value: Dict[str, Any], schema: Dict[str, Any]) -> Dict[str, Any]:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        required = _list(schema, "required")
        required = [name for name in required if isinstance(name, str)]
        _check_size(len(value), schema, "Properties", "key")
        problems = [Problem((name,), "is missing") for name in required if name not in value]
        out = {}
        for key, item in value.items():
            try:
                checked = self._property(key, item, schema, properties, key in required)
            except Invalid as exc:
                problems.extend(exc.under(key).problems)
                continue
            if checked is not _MISSED:
                out[key] = checked
        if problems:
            raise Invalid(*problems)
        return out

    def _property(
        self, key: str, item: Any, schema: Dict[str, Any], known: Dict[str, Any], required: bool
    ) -> Any:
        if key in known:
            try:
                return self._check(item, known[key])
            except Invalid:
                # Models say null for "not given"; so it is taken where nothing is needed.
                if item is None and self._lenient and not required:
                    return _MISSED
                raise
        patterns = schema.get("patternProperties")
        if isinstance(patterns, dict):
            for pattern, part in patterns.items():
                if _found(pattern, key):
                    return self._check(item, part)
        others = schema.get("additionalProperties")
        if others is False:
            names = ", ".join(list(known)[:20]) or "none"
            raise Invalid.because(f"is unknown; known here: {names}")
        return self._check(item, others)


def _repeats(items: List[Any]) -> bool:
    return len({json.dumps(item, sort_keys=True) for item in items}) < len(items)


def _target(root: Any, reference: str) -> Any:
    try:
        return resolve(root, reference)
    except LookupError:
        return True


def _list(schema: Dict[str, Any], keyword: str) -> List[Any]:
    found = schema.get(keyword)
    return found if isinstance(found, list) else []


def _is(value: Any, kind: str) -> bool:
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "null":
        return value is None
    if kind == "integer":
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return whole and not isinstance(value, bool)
    if kind == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, {"string": str, "array": list, "object": dict}[kind])


def _mend(value: Any, kind: str) -> Any:
    """What the model meant by a string where `kind` is wanted; `_MISSED` if that is not clear."""
    if not isinstance(value, str) or kind == "string":
        return _MISSED
    text = value.strip()
    if kind == "boolean":
        return {"true": True, "false": False}.get(text.lower(), _MISSED)
    if kind == "null":
        return None if text.lower() in ("null", "none") else _MISSED
    if kind in ("integer", "number"):
        number = _number(text)
        if number is None or not _is(number, kind):
            return _MISSED
        return int(number) if kind == "integer" else number
    if text[:1] != ("[" if kind == "array" else "{"):
        return _MISSED
    try:
        return parse_json(text)
    except ValueError:
        return _MISSED


def _number(text: str) -> Union[int, float, None]:
    if len(text) > MAX_DIGITS or _NUMBER.fullmatch(text) is None:
        return None
    number = float(text) if any(mark in text for mark in ".eE") else int(text)
    return number if isinstance(number, int) or math.isfinite(number) else None


def _one_of(value: Any, allowed: List[Any]) -> Any:
    for candidate in allowed:
        if same(value, candidate):
            return candidate
    raise Invalid.because(f"must be {expected({'enum': allowed})}, not {came(value)}")


def _check_text(value: str, schema: Dict[str, Any]) -> None:
    _check_size(len(value), schema, "Length", "character")
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and not _found(pattern, value):
        raise Invalid.because(f"must match the pattern {pattern}")


def _check_number(value: Union[int, float], schema: Dict[str, Any]) -> None:
    low, high = _bound(schema, "minimum"), _bound(schema, "maximum")
    above, below = _bound(schema, "exclusiveMinimum"), _bound(schema, "exclusiveMaximum")
    step = _bound(schema, "multipleOf")
    if low is not None and value < low:
        raise Invalid.because(f"must be at least {low}, not {came(value)}")
    if high is not None and value > high:
        raise Invalid.because(f"must be at most {high}, not {came(value)}")
    if above is not None and value <= above:
        raise Invalid.because(f"must be more than {above}, not {came(value)}")
    if below is not None and value >= below:
        raise Invalid.because(f"must be less than {below}, not {came(value)}")
    if step is not None and step > 0 and not _divides(step, value):
        raise Invalid.because(f"must be a multiple of {step}, not {came(value)}")


def _divides(step: Union[int, float], value: Union[int, float]) -> bool:
    if isinstance(step, int) and isinstance(value, int):
        return value % step == 0
    try:
        parts = value / step
    except OverflowError:
        return False
    # 0.3 is a multiple of 0.1, whatever binary fractions say.
    return math.isfinite(parts) and math.isclose(parts, round(parts), rel_tol=1e-9, abs_tol=1e-9)


def _check_size(size: int, schema: Dict[str, Any], what: str, unit: str) -> None:
    low, high = _bound(schema, "min" + what), _bound(schema, "max" + what)
    if low is not None and size < low:
        raise Invalid.because(f"must have at least {low} {unit}(s), not {size}")
    if high is not None and size > high:
        raise Invalid.because(f"must have at most {high} {unit}(s), not {size}")


def _bound(schema: Dict[str, Any], keyword: str) -> Union[int, float, None]:
    found = schema.get(keyword)
    return found if isinstance(found, (int, float)) and not isinstance(found, bool) else None


def _found(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:  # another dialect's: nothing can be said
        return True
