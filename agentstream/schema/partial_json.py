"""A string out of JSON that is still arriving: its text, as far as it can be known (pure).

`StringDecoder` reads the inside of one string, `StringField` finds a top-level
key's string in an object.  Pieces may be cut anywhere.  Nothing here knows what
the JSON is for.
"""

from __future__ import annotations

import re
from typing import Optional, Tuple

__all__ = ["StringDecoder", "StringField"]

_PLAIN = re.compile(r'[^"\\]*')
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HEX = frozenset("0123456789abcdefABCDEF")
_REPLACEMENT = "\ufffd"


class StringDecoder:
    """The text of a JSON string whose opening quote has been read.

    Surrogate pairs are joined, wherever they are cut; a half that stays alone
    becomes U+FFFD.  An escape that JSON does not know is taken for the character
    itself.

    Attributes:
        done: the closing quote has been read.
    """

    def __init__(self) -> None:
        self.done = False
        self._escape = ""  # an escape's beginning: its backslash, and up to five more
        self._high = ""  # the first half of a pair

    def feed(self, text: str, start: int = 0) -> Tuple[str, int]:
        """Read on from `start`: the text that became known, and where reading ended."""
        out = []
        at = start
        while at < len(text) and not self.done:
            if len(self._escape) > 1 and text[at] not in _HEX:  # no escape after all
                self._escape = ""
                out.append(self._plain(_REPLACEMENT))
                continue
            if self._escape:
                out.append(self._in_escape(text[at]))
                at += 1
                continue
            match = _PLAIN.match(text, at)
            assert match is not None
            if match.end() > at:
                out.append(self._plain(match.group()))
                at = match.end()
            elif text[at] == '"':
                self.done = True
                out.append(self.flush())
                at += 1
            else:
                self._escape = "\\"
                at += 1
        return "".join(out), at

    def flush(self) -> str:
        """What is held back and will not be completed: U+FFFD for half a pair, else nothing."""
        half, self._high, self._escape = self._high, "", ""
        return _REPLACEMENT if half else ""

    def _in_escape(self, char: str) -> str:
        if self._escape == "\\" and char != "u":
            self._escape = ""
            return self._plain(_ESCAPES.get(char, char))
        self._escape += char
        if len(self._escape) < 6:
            return ""
        unit, self._escape = chr(int(self._escape[2:], 16)), ""
        return self._plain(unit)

    def _plain(self, text: str) -> str:
        """`text`, with the surrogates in it joined to pairs."""
        if text.isascii() and not self._high:
            return text
        text = self._high + text
        self._high = ""
        if "\ud800" <= text[-1] <= "\udbff":
            text, self._high = text[:-1], text[-1]
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return text


class StringField:
    """The text of one top-level key's string in a JSON object that arrives in pieces.

    Args:
        key: the key.

    Attributes:
        found: the key's string has begun.
        done: it has ended, or the object has.
        plain: what arrives is no object at all; `feed` gives nothing.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.found = False
        self.done = False
        self.plain = False
        self._depth = 0
        self._string: Optional[StringDecoder] = None  # the string being read
        self._text = ""  # of that, where it may be a key
        self._name = ""  # the last key at the top
        self._value = False  # a value comes next, not a key

    def feed(self, text: str) -> str:
        """Take the next piece; returns the text of the string that became known."""
        out = []
        at = 0
        while at < len(text) and not self.done and not self.plain:
            if self._string is not None:
                piece, at = self._string.feed(text, at)
                if self.found:
                    out.append(piece)
                elif self._depth == 1 and not self._value:
                    self._text += piece
                if self._string.done:
                    self._end_string()
                continue
            self._structure(text[at])
            at += 1
        return "".join(out)

    def flush(self) -> str:
        """The end of what arrives: see `StringDecoder.flush`."""
        return self._string.flush() if self._string is not None and self.found else ""

    def _end_string(self) -> None:
        self._string = None
        if self.found:
            self.done = True
        elif self._depth == 1 and not self._value:
            self._name, self._text = self._text, ""

    def _structure(self, char: str) -> None:
        if char == '"':
            self._string = StringDecoder()
            self.found = self._depth == 1 and self._value and self._name == self.key
        elif char in "{[":
            self.plain = self._depth == 0 and char == "["
            self._depth += 1
            self._value = self._value or self._depth > 1
        elif char in "}]":
            self._depth -= 1
            self.done = self._depth <= 0
        elif self._depth == 1 and char in ":,":
            self._value = char == ":"
        if self._depth == 0 and not self.done and not char.isspace():
            self.plain = True
