"""What is wrong with a value, where, and in words that a model can act on (pure).

Only words and places.  The checks that find the problems are in validate.py.
"""

from __future__ import annotations

import json
from typing import Any, List, NamedTuple, Optional, Tuple, Union

from agentstream.schema.parse import shown
from agentstream.text import safe_str

__all__ = ["NAMES", "Invalid", "Key", "Problem", "came", "expected"]

Key = Union[str, int]

#: The types of JSON schema, in words.
NAMES = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "an array",
    "object": "an object",
    "null": "null",
}


class Problem(NamedTuple):
    """One thing that is wrong: where, and what to say after "must" or as a sentence."""

    path: Tuple[Key, ...]
    text: str

    def where(self) -> str:
        """The path as a model reads it: `point.x` or `tags[2]`."""
        out = ""
        for key in self.path:
            name = key if isinstance(key, int) else (key if len(key) <= 40 else key[:40] + "...")
            out += f"[{name}]" if isinstance(key, int) else (f".{name}" if out else str(name))
        return out


class Invalid(Exception):
    """A value does not fit.

    Attributes:
        problems: what is wrong, one or more.
        value: of an answer, the JSON value as it came.
    """

    problems: Tuple[Problem, ...]
    value: Any = None

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(problem.text for problem in problems))
        self.problems = problems

    @classmethod
    def because(cls, text: str, path: Tuple[Key, ...] = ()) -> Invalid:
        """An Invalid with one problem."""
        return cls(Problem(path, text))

    @classmethod
    def refused(cls, exc: Exception) -> Invalid:
        """An Invalid for what the caller's own type raised when it was made."""
        text = safe_str(exc, 300) or type(exc).__name__
        return cls.because(f"is refused: {text}")

    def under(self, key: Key) -> Invalid:
        """The same, seen from the container that holds the value at `key`."""
        return Invalid(*(Problem((key, *path), text) for path, text in self.problems))

    def deep(self) -> bool:
        """True where the trouble lies inside the value, not in its kind."""
        return any(problem.path for problem in self.problems)


def expected(schema: Any) -> str:
    """What a schema wants, in a few words."""
    if not isinstance(schema, dict):
        return "something else"
    allowed: Optional[List[Any]] = schema.get("enum")
    if "const" in schema:
        allowed = [schema["const"]]
    if isinstance(allowed, list):
        names = [json.dumps(item, ensure_ascii=False) for item in allowed[:20]]
        more = "" if len(allowed) <= 20 else f" or one of {len(allowed) - 20} more"
        return ("" if len(names) == 1 else "one of ") + ", ".join(names) + more
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    named = [NAMES[kind] for kind in kinds if isinstance(kind, str) and kind in NAMES]
    forms = schema.get("anyOf") or schema.get("oneOf")
    nested = [expected(part) for part in forms] if isinstance(forms, list) else []
    return " or ".join(named or nested) or "something else"


def came(value: Any) -> str:
    """What a JSON value is, in a few words."""
    if isinstance(value, str):
        return f"the string {shown(value)}"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"an array of {len(value)} item(s)"
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a very large integer"
    return json.dumps(value)
