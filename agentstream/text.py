"""Text that can be sent, stored and shown, whatever somebody else made of it.

Surrogates, which neither UTF-8 nor SQLite takes; control characters, which a
terminal obeys; `str()` of somebody's object, which may raise or never end; and
values that are to be read as a text.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Mapping, Optional

__all__ = ["SurrogateJoiner", "as_text", "is_encodable", "part_as_text", "pattern",
           "replace_surrogates", "safe_repr", "safe_str", "strip_controls"]  # fmt: skip

if TYPE_CHECKING:
    pattern = re.compile
else:

    class pattern:
        """A regular expression that is compiled when it is first used.

        Compiling all of the library's would be a tenth of what importing it costs.
        """

        def __init__(self, *how: Any) -> None:
            self._how = how

        def __getattr__(self, name: str) -> Any:
            compiled = re.compile(*self._how)
            value = getattr(compiled, name)
            setattr(self, name, value)  # which is found without this the next time
            return value


#: C0 (but tab, newline), DEL and C1: what a terminal may take for a command.
_CONTROLS = pattern("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def is_encodable(text: str) -> bool:
    """True if UTF-8 can hold `text`: no surrogate stands in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def replace_surrogates(text: str) -> str:
    """`text` with surrogate pairs joined and each lone surrogate replaced by U+FFFD."""
    if text.isascii() or is_encodable(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class SurrogateJoiner:
    """Joins surrogate pairs that are cut over two pieces of a text.

    A high surrogate at a piece's end waits for the next piece; one that finds no
    partner becomes U+FFFD.

    Attributes:
        held: the high surrogate that waits; "" for none.
    """

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = ""

    def join(self, text: str) -> str:
        """What can go out now that `text` has come."""
        if not text and self.held:
            return ""  # an empty piece decides nothing
        text = self.held + text
        self.held = ""
        if is_encodable(text):
            return text
        if "\ud800" <= text[-1] <= "\udbff":
            self.held = text[-1]
            text = text[:-1]
        return replace_surrogates(text)

    def flush(self) -> str:
        """What was held back, since no more will come: U+FFFD or ""."""
        lost, self.held = self.held, ""
        return "\ufffd" if lost else ""


def strip_controls(text: str) -> str:
    """`text` without control characters but tab and newline."""
    return _CONTROLS.sub("", text)


def as_text(value: Any) -> str:
    """A value as a person or a model reads it.

    A text as it is; of a mapping, each value under a heading with its name; of None,
    nothing; anything else as JSON, in which what JSON lacks is written by its repr.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if not isinstance(value, Mapping):
        return _as_json(value)
    return "\n\n".join(f"## {name}\n\n{part_as_text(part)}" for name, part in value.items())


def part_as_text(value: Any) -> str:
    """`as_text` of a value that has a name; one line for a `Parallel`'s branch that failed."""
    if isinstance(value, Mapping) and set(value) == {"error", "message"}:
        return f"(failed: {value['error']}: {value['message']})"
    return as_text(value) if isinstance(value, (str, Mapping)) else _as_json(value)


def _as_json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=safe_repr)
    except (TypeError, ValueError, RecursionError):  # keys that are no texts; it contains itself
        return safe_repr(value)


def safe_str(value: object, limit: Optional[int] = None) -> str:
    """`str(value)` that cannot fail: mended, cut to `limit` characters; "" if it raises."""
    try:
        text = str(value)
    except (Exception, SystemExit):  # noqa: BLE001 - somebody else's __str__
        return ""
    text = replace_surrogates(text)
    return text if limit is None or len(text) <= limit else text[:limit] + "..."


def safe_repr(value: object, limit: Optional[int] = None) -> str:
    """As `safe_str`, of `repr(value)`; the type's name where that raises."""
    try:
        text = repr(value)
    except (Exception, SystemExit):  # noqa: BLE001 - somebody else's __repr__
        return f"<{type(value).__name__}>"
    text = replace_surrogates(text)
    return text if limit is None or len(text) <= limit else text[:limit] + "..."
