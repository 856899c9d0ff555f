"""JSON schemas and values that fit them, for hypothesis; and what a part of a value is."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Tuple

from hypothesis import strategies as st

__all__ = ["cuts", "is_part", "pairs", "written"]

_KEYS = st.text('abcé"\\\n 😀', min_size=1, max_size=4)
_TEXTS = st.text(max_size=12)
_NUMBERS = st.one_of(
    st.integers(-(10**20), 10**20), st.floats(allow_nan=False, allow_infinity=False)
)
_SCALARS = st.one_of(
    _TEXTS.map(lambda value: ({"type": "string"}, value)),
    _NUMBERS.map(lambda value: ({"type": "number"}, value)),
    st.integers().map(lambda value: ({"type": "integer"}, value)),
    st.booleans().map(lambda value: ({"type": "boolean"}, value)),
    st.just(({"type": "null"}, None)),
    st.lists(_TEXTS, min_size=1, max_size=3, unique=True).flatmap(
        lambda words: st.sampled_from(words).map(lambda word: ({"enum": words}, word))
    ),
)
Pair = Tuple[Dict[str, Any], Any]


def _array(pair: Pair, size: int) -> Pair:
    return {"type": "array", "items": pair[0]}, [pair[1]] * size


def _object(members: Dict[str, Pair], left_out: bool) -> Pair:
    required = list(members)[1:] if left_out else list(members)
    schema = {
        "type": "object",
        "properties": {name: schema for name, (schema, _) in members.items()},
        "required": required,
        "additionalProperties": False,
    }
    return schema, {name: members[name][1] for name in required}


def _choice(first: Pair, second: Pair) -> Pair:
    return {"anyOf": [second[0], first[0]]}, first[1]


def _nested(inner: Any) -> Any:
    return st.one_of(
        st.builds(_array, inner, st.integers(0, 3)),
        st.builds(_object, st.dictionaries(_KEYS, inner, max_size=4), st.booleans()),
        st.builds(_choice, inner, inner),
    )


#: A schema, and a value that fits it.
pairs = st.recursive(_SCALARS, _nested, max_leaves=8)


def written(value: Any, ascii: bool, indent: bool) -> str:
    """The value as a model may write it."""
    return json.dumps(value, ensure_ascii=ascii, indent=1 if indent else None)


def cuts(text: str, places: List[int]) -> List[str]:
    """`text` in pieces, cut at places that are taken modulo its length."""
    ends = sorted({place % (len(text) + 1) for place in places} | {len(text)})
    return [text[begin:end] for begin, end in zip([0, *ends], ends) if begin < end]


def is_part(part: Any, whole: Any) -> bool:
    """True if `part` is the beginning of `whole`: texts by their characters, arrays by their
    items, of which the last may be a part, objects by their keys; numbers must be whole."""
    if isinstance(part, str) and isinstance(whole, str):
        return whole.startswith(part)
    if isinstance(part, list) and isinstance(whole, list):
        last = len(part) - 1
        return len(part) <= len(whole) and all(
            is_part(item, whole[at]) if at == last else item == whole[at]
            for at, item in enumerate(part)
        )
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and is_part(item, whole[key]) for key, item in part.items())
    return type(part) is type(whole) and part == whole
