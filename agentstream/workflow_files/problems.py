"""Problems: what is wrong with a file, all of it; Table: one table of it, key by key.

Pure.  A message names the file, the table and the key; it shows names that the
file gives to things, never what is written in them: that may be a secret.
"""

from __future__ import annotations

import datetime
import difflib
import itertools
import json
import math
import re
from functools import partial
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple, Union

from agentstream import checks
from agentstream.errors import ConfigError

__all__ = [
    "FLAG",
    "JSON_TABLE",
    "NUMBER",
    "TABLE",
    "TEXT",
    "TEXTS",
    "TEXT_OR_TABLE",
    "TEXT_OR_TEXTS",
    "TIME",
    "WHOLE",
    "Kind",
    "Path",
    "Problems",
    "Table",
    "check_import",
    "missing",
    "told",
]

#: Where in a file: keys, and for an item of a list its number, from 1.
Path = Tuple[Union[str, int], ...]

_NAMED = ("agents", "clients", "tools", "mcp")
_IMPORT = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_MOST = 40  # problems that one error tells
_MOST_PARTS = 12  # keys of a place
_LONG = 400  # characters of one of them
_UNKNOWN = "unknown key"
_SUGGESTIONS = 100  # looking for what was meant takes time


class Problems:
    """What was found so far; those of a file's nested files go into the same list.

    Attributes:
        lines, warnings: a text each.
    """

    def __init__(self, file: str, overrides: Iterable[Path] = (), root: Optional[Problems] = None):
        self._file = _printable(file)
        self._overrides = tuple(overrides)
        self.lines: List[str] = root.lines if root else []
        self.warnings: List[str] = root.warnings if root else []

    def add(self, where: Path, text: str) -> None:
        """Something that is wrong.  A misspelt table comes first: others follow from it."""
        place = 0 if len(where) == 1 and text.startswith(_UNKNOWN) else len(self.lines)
        self.lines.insert(place, self._line(where, text))

    def warn(self, where: Path, text: str) -> None:
        """Something that is odd."""
        self.warnings.append(self._line(where, text))

    def _line(self, where: Path, text: str) -> str:
        for override in self._overrides:
            if where[: len(override)] == override:
                text += f" (--set {dotted(override)})"
                break
        place = f"{_shown(where)}: " if where else ""
        line = f"{self._file}: {place}{_printable(text)}"
        return line if len(line) <= _LONG else line[: _LONG - 1] + "…"

    def missing(self, kind: str, name: str, known: Iterable[str]) -> str:
        """`missing`, without a suggestion where there are too many to make."""
        return missing(kind, name, known, suggest=len(self.lines) < _SUGGESTIONS)

    def raise_them(self) -> None:
        """Raise a ConfigError with a line for each, if there are any."""
        if self.lines:
            more = len(self.lines) - _MOST
            rest = [f"{self._file}: and {more} more problems"] if more > 0 else []
            raise ConfigError("\n".join([*self.lines[:_MOST], *rest]))


def _shown(where: Path) -> str:
    """[agents.greeter] temperature; [[steps]] 2 parallel.facts.agent; name."""
    if where[0] in _NAMED and len(where) > 1:
        table, rest = f"[{dotted(where[:2])}]", where[2:]
    elif where[0] == "steps" and len(where) > 1:
        table, rest = f"[[steps]] {where[1]}", where[2:]
    elif where[0] == "context" and len(where) > 1:
        table, rest = "[context]", where[1:]
    else:
        return dotted(where)
    if len(rest) > _MOST_PARTS:
        rest = (*rest[:6], "...", *rest[-4:])
    return f"{table} {dotted(rest)}" if rest else table


def dotted(path: Path) -> str:
    """A path as TOML writes it: agents.greeter, context."my key"."""
    return ".".join(_key(part) for part in path)


def _key(part: Union[str, int]) -> str:
    text = str(part)
    if _BARE.fullmatch(text) or text == "...":
        return text
    return json.dumps(text[:60], ensure_ascii=False)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def missing(kind: str, name: str, known: Iterable[str], *, suggest: bool = True) -> str:
    """No such thing; perhaps another was meant; those are there."""
    names = list(itertools.islice(known, 200))
    close = difflib.get_close_matches(name[:60], names, 1) if suggest else []
    text = f"there is no {kind} {_quoted(name)}"
    if close:
        text += f"; did you mean {_quoted(close[0])}?"
    if not names:
        return f"{text}: there are none"
    shown = ", ".join(_printable(n[:40]) for n in names[:10]) + (", ..." if names[10:] else "")
    return f"{text} There is: {shown}" if close else f"{text}; there is: {shown}"


def _quoted(name: str) -> str:
    return repr(name if len(name) <= 60 else name[:59] + "…")


# --- values ---------------------------------------------------------------------------------


class Kind(NamedTuple):
    """A kind of value: what it is called, and what fits.

    `off`: false stands for no limit.  `read`: what is meant by a value that fits; None: itself.
    """

    said: str
    fits: Callable[[Any], bool]
    off: bool = False
    read: Optional[Callable[[Any], Any]] = None

    def or_false(self) -> Kind:
        """This kind, or false."""
        return self._replace(said=f"{self.said}, or false", off=True)


def _is_whole(value: Any) -> bool:
    return checks.is_whole(value) and abs(value) < 2**63


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_time(value: Any) -> bool:
    return checks.is_number(value) or (_is_text(value) and checks.parse_time(value) is not None)


def _seconds(value: Any) -> Any:
    return checks.parse_time(value) if isinstance(value, str) else value


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return isinstance(value, dict)


TEXT = Kind("a text", _is_text)
NUMBER = Kind("a number", checks.is_number)
TIME = Kind('a number of seconds, or "90s", "10m", "2h"', _is_time, read=_seconds)
WHOLE = Kind("a whole number", _is_whole)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
TABLE = Kind("a table", _is_table)
TEXTS = Kind("a list of texts", _is_texts)
JSON_TABLE = Kind("a table of what JSON knows (no dates, no nan)", _is_json)
TEXT_OR_TEXTS = Kind("a text or a list of texts", lambda v: _is_text(v) or _is_texts(v))
TEXT_OR_TABLE = Kind("a text or a table", lambda v: _is_text(v) or _is_json(v))


_CALLED: Tuple[Tuple[type, str], ...] = (
    (str, "a text"),
    (int, "a whole number"),
    (dict, "a table"),
    (list, "a list"),
    (datetime.date, "a date"),
    (datetime.time, "a time"),
)


def told(value: Any) -> str:
    """What a value is, without the value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "a number" if math.isfinite(value) else "inf or nan"
    return next((said for kind, said in _CALLED if isinstance(value, kind)), "this")


class Table:
    """One table of a file: whatever is asked for is checked; what is not asked for is unknown.

    Attributes:
        where: its place.
        values: what it holds.
    """

    def __init__(self, problems: Problems, where: Path, value: Any) -> None:
        self.problems = problems
        self.where = where
        self.values: Dict[str, Any] = value if isinstance(value, dict) else {}
        self._asked: Dict[str, None] = {}
        if not isinstance(value, dict):
            problems.add(where, f"must be a table, not {told(value)}")

    def get(self, key: str, kind: Kind, default: Any = None) -> Any:
        """The value of a key; the default if it is not there or, which is reported, does not fit.

        A `kind` with `off` gives None for false.
        """
        self._asked[key] = None
        if key not in self.values:
            return default
        value = self.values[key]
        if kind.off and value is False:
            return None
        if kind.fits(value):
            return value if kind.read is None else kind.read(value)
        self.refuse(key, f"must be {kind.said}, not {told(value)}")
        return default

    def need(self, key: str, kind: Kind) -> Any:
        """As `get`; that it is not there is reported too."""
        if key not in self.values:
            self.refuse(key, f"is missing: it must be {kind.said}")
        return self.get(key, kind)

    def table(self, key: str) -> Table:
        """A table within; empty if it is not there."""
        self._asked[key] = None
        return Table(self.problems, (*self.where, key), self.values.get(key, {}))

    def raw(self, key: str) -> Any:
        """The value of a key, unchecked."""
        self._asked[key] = None
        return self.values.get(key)

    def settings(self, kinds: Dict[str, Kind], accepts: Callable[..., object]) -> Dict[str, Any]:
        """Those of `kinds` that are there and fit, and that `accepts(**{key: value})` takes."""
        found: Dict[str, Any] = {}
        absent = object()
        for key, kind in kinds.items():
            value = self.get(key, kind, absent)
            if value is absent:
                continue
            if self.accepted(key, partial(accepts, **{key: value}), off=kind.off):
                found[key] = value
        return found

    def accepted(self, key: str, make: Callable[[], object], *, off: bool = False) -> bool:
        """False, and reported, if `make()` raises a ConfigError."""
        try:
            make()
        except ConfigError as error:
            self.refuse(key, error.reason + ("; false is for no limit" if off else ""))
            return False
        return True

    def refuse(self, key: str, text: str) -> None:
        """Report what is wrong with a key."""
        self._asked[key] = None
        self.problems.add((*self.where, key), text)

    def done(self, misplaced: Optional[Dict[str, str]] = None) -> None:
        """Report the keys that nobody asked for; `misplaced` says more of some."""
        for key in self.values:
            if key in self._asked:
                continue
            text = (misplaced or {}).get(key)
            if text is None:
                text = _UNKNOWN
                if len(self.problems.lines) < _SUGGESTIONS:
                    close = difflib.get_close_matches(key[:60], list(self._asked), 1)
                    if close:
                        text += f"; did you mean {close[0]!r}?"
                    else:
                        text += f"; there is: {', '.join(self._asked)}"
            self.problems.add((*self.where, key), text)


def check_import(table: Table, key: str, value: Any) -> bool:
    """False, and reported, if `value` is not "module:name"."""
    if isinstance(value, str) and _IMPORT.fullmatch(value):
        return True
    given = told(value) if not isinstance(value, str) else repr(value[:60])
    table.refuse(key, f'must be "module:name", like "mytools:get_weather", not {given}')
    return False
