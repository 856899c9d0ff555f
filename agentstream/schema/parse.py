"""The model's JSON text -> plain Python values that are safe to handle (pure).

Strict where `json.loads` is not: no NaN, no key given twice, bounded depth and
digits, no lone surrogates.  Line breaks and tabs may stand in strings as they are.
What the values mean is validate.py's business.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any, Dict, List, Optional, Tuple

from agentstream.text import is_encodable, pattern, replace_surrogates

__all__ = [
    "MAX_DEPTH",
    "MAX_DIGITS",
    "MAX_TRIES",
    "as_object",
    "clean",
    "find_json",
    "parse_json",
    "shown",
]

#: Arrays and objects may lie this deep in each other.
MAX_DEPTH = 64
#: Digits an integer may have; Python's own bound differs between its releases.
MAX_DIGITS = 1000

#: So many brackets of a text are tried for a value.
MAX_TRIES = 64
_OPENING = pattern(r"[{\[]")
#: The escape of a surrogate.
_SURROGATE = pattern(r"\\u[dD][89a-fA-F]")
_CONTAINERS = (dict, list)


def parse_json(text: str) -> Any:
    """The value that `text` holds.

    Lone surrogates become U+FFFD.  Raises ValueError, with a message meant for
    the model, for anything that is not plain, finite, bounded JSON.
    """
    try:
        value = json.loads(text, **_HOOKS)
    except json.JSONDecodeError as exc:
        raise ValueError(f"this is not JSON, {exc.msg} at character {exc.pos}") from None
    except RecursionError:
        raise ValueError("arrays and objects are nested too deeply") from None
    return clean(value, text)


def find_json(text: str) -> List[Any]:
    """The objects and arrays that stand in `text` between other words, as `parse_json` reads them.

    Raises ValueError, with a message meant for the model, if one of them is begun and
    does not end, or is no plain JSON: what stands within it is no value by itself.
    """
    decode = json.JSONDecoder(**_HOOKS).raw_decode
    found: List[Any] = []
    at = 0
    for _ in range(MAX_TRIES):
        start = _OPENING.search(text, at)
        if start is None:
            return found
        at = start.start()
        try:
            value, end = decode(text, at)
        except json.JSONDecodeError as exc:
            if text[at + 1 : exc.pos].strip():
                where = f"{exc.msg} at character {exc.pos}"
                raise ValueError(f"this is not JSON, {where}") from None
            at += 1  # a bracket among the words
        except RecursionError:
            raise ValueError("arrays and objects are nested too deeply") from None
        else:
            found.append(clean(value, text, at, end))
            at = end
    return found


def as_object(text: str) -> Optional[Dict[str, Any]]:
    """The object that arguments mean, also as a text that holds one; None if they mean none."""
    try:
        value = parse_json(text)
        if isinstance(value, str):
            value = parse_json(value)
    except ValueError:
        return None
    return {} if value is None else value if isinstance(value, dict) else None


def shown(text: str, limit: int = 40) -> str:
    """`text` in quotes, cut to `limit` characters, for a message."""
    cut = text if len(text) <= limit else text[:limit] + "..."
    return json.dumps(replace_surrogates(cut), ensure_ascii=False)


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"a number has more than {MAX_DIGITS} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _object(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    # Which of the two a reader (a person who approves, say) saw cannot be told.
    found = dict(pairs)
    if len(found) != len(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {shown(key)} is given twice")
            seen.add(key)
    return found


_HOOKS: Dict[str, Any] = {
    "parse_int": _integer,
    "parse_float": _float,
    "parse_constant": _constant,
    "object_pairs_hook": _object,
    "strict": False,
}


def clean(value: Any, text: str, start: int = 0, end: int = sys.maxsize) -> Any:
    """`value` with U+FFFD for lone surrogates; raises ValueError if it is nested too deeply.

    Args:
        value: the value.
        text: the JSON that it was read from, between `start` and `end`.
    """
    _check_depth(value)
    written = text[start:end]
    has_surrogates = _SURROGATE.search(written) is not None or not is_encodable(written)
    return _replaced(value) if has_surrogates else value


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        level = [
            inner
            for outer in level
            if outer.__class__ in _CONTAINERS
            for inner in (outer.values() if outer.__class__ is dict else outer)
            if inner.__class__ in _CONTAINERS
        ]
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"arrays and objects are nested more than {MAX_DEPTH} deep")


def _replaced(value: Any) -> Any:
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, list):
        return [_replaced(item) for item in value]
    if isinstance(value, dict):
        return {replace_surrogates(key): _replaced(item) for key, item in value.items()}
    return value
