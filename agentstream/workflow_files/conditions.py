"""Conditions: what a file may ask of a text before it goes on.

They are called as a `Branch` calls its predicate; `__name__` is what a drawing
shows of them.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Mapping, Optional

from agentstream.errors import ConfigError
from agentstream.events.model import freeze
from agentstream.schema.plain import plain
from agentstream.workflow_files.problems import FLAG, TEXT, Kind, Table, check_import

__all__ = ["Condition", "read_condition"]

_KINDS = ("contains", "equals", "matches", "call")
_PLAIN = Kind(
    "a text, a number, or true or false", lambda value: isinstance(value, (str, int, float))
)


class Condition:
    """A condition of a file.

    Attributes:
        kind: "contains", "equals", "matches" or "call".
        wanted: the text, value, pattern or import path.
        negated: it holds if it does not.
        key: the context's value to look at; None: the step's input.
    """

    def __init__(
        self,
        kind: str,
        wanted: Any,
        *,
        negated: bool,
        key: Optional[str],
        function: Optional[Callable[..., Any]] = None,
    ) -> None:
        self.kind = kind
        self.wanted = wanted
        self.negated = negated
        self.key = key
        self._function = function
        self._pattern = re.compile(wanted) if kind == "matches" else None
        self.__name__ = self._caption()

    def with_function(self, function: Callable[..., Any]) -> Condition:
        """This "call" with what it calls."""
        return Condition(
            self.kind, self.wanted, negated=self.negated, key=self.key, function=function
        )

    def __call__(self, input: Any, context: Mapping[str, Any]) -> bool:
        """Does it hold?  A context key that is not there counts as an empty text."""
        value = input if self.key is None else context.get(self.key, "")
        return bool(self._holds(value, context)) is not self.negated

    def _holds(self, value: Any, context: Mapping[str, Any]) -> Any:
        if self.kind == "call":
            assert self._function is not None
            return self._function(value, context)
        if self.kind == "equals":
            return _text(value).strip() == _text(self.wanted).strip()
        if self._pattern is not None:
            return self._pattern.search(_text(value))
        return self.wanted in _text(value)

    def _caption(self) -> str:
        wanted = self.wanted
        shown = json.dumps(wanted, ensure_ascii=False) if self.kind != "call" else str(wanted)
        if len(shown) > 48:
            shown = shown[:47] + "…"
        parts = ["not" if self.negated else "", self.kind if self.kind != "call" else "", shown]
        if self.key is not None:
            parts.insert(0, f"context.{self.key[:40]}")
        return " ".join(part for part in parts if part)


def _text(value: Any) -> str:
    value = plain(value)
    return value if isinstance(value, str) else json.dumps(freeze(value), ensure_ascii=False)


def read_condition(table: Table) -> Optional[Condition]:
    """The condition of a table; None if it is none."""
    kinds = [kind for kind in _KINDS if kind in table.values]
    negated = table.get("not", FLAG, False)
    key = table.get("context", TEXT)
    wanted = [table.get(kind, _PLAIN if kind == "equals" else TEXT) for kind in _KINDS]
    table.done()
    if len(kinds) != 1:
        given = f"not {' and '.join(kinds)}" if kinds else "none is there"
        table.problems.add(table.where, f"must have one of {', '.join(_KINDS)}; {given}")
        return None
    kind, value = kinds[0], wanted[_KINDS.index(kinds[0])]
    if value is None or (kind == "call" and not check_import(table, kind, value)):
        return None
    if kind in ("contains", "matches") and not value:
        table.refuse(kind, "must not be empty: it would always hold")
        return None
    if not table.accepted(kind, lambda: _check_pattern(kind, value)):
        return None
    return Condition(kind, value, negated=negated, key=key)


def _check_pattern(kind: str, value: Any) -> None:
    if kind != "matches":
        return
    try:
        re.compile(value)
    except re.error as error:
        raise ConfigError(f"must be a regular expression: {error}") from None
    except (ArithmeticError, RecursionError, MemoryError, Warning) as error:
        raise ConfigError(f"must be a regular expression: {type(error).__name__}") from None
