"""Wrapper: breaks lines at words while text streams in, a piece of a word at a time.

Pure: text goes in, what to write comes out.  Nothing is held back: a word that turns out
not to fit is wiped from the end of its line, and goes on the next one.
"""

from __future__ import annotations

import unicodedata
from typing import Any, Callable, List

from agentstream.console.terminal import can_steer, cells, columns_of

__all__ = ["Wrapper", "wrapper_for"]

#: Narrower terminals wrap by themselves: there is no room for words.
_LEAST = 20
_JOINER = "\u200d"
_FENCES = ("```", "~~~")
#: Unicode's categories of what is no beginning of a line, and of what is no end.
_CLOSING, _OPENING = ("Pe", "Pf", "Po"), ("Ps", "Pi")


def wrapper_for(file: Any, indent: str = "") -> Wrapper:
    """A wrapper for a terminal; one that changes nothing for what obeys no escape sequences."""
    steers = can_steer(file)
    return Wrapper(lambda: columns_of(file) if steers else 0, indent)


class Wrapper:
    """Wraps what is written to one terminal; whoever writes there feeds it all of it.

    Between wide characters (Chinese, Japanese, emoji), which know no spaces, a line may
    break as well, but not before what closes and not after what opens.  A word longer than a
    line, and what stands between Markdown's fences, is left to the terminal.

    Args:
        columns: tells how wide the terminal is.
        indent: what a line begins with that goes on with the one before.
    """

    def __init__(self, columns: Callable[[], int], indent: str = "") -> None:
        self._columns = columns
        self._indent = indent
        self._fenced = False
        self._begin_line()

    def _begin_line(self) -> None:
        self._head = ""  # of the line as its writer knows it, up to three characters
        self._latest = 0  # cells of the latest character that takes any
        self._begin_row("")

    def _begin_row(self, text: str) -> None:
        self._row = text  # what stands on the terminal's row
        self._column = cells(text)
        self._word = 0  # where in it the latest word begins
        self._is_full = False  # a space at its end was left out

    def feed(self, text: str) -> str:
        """What to write for `text`."""
        columns = self._columns()
        out: List[str] = []
        for char in text:
            if char == "\n":
                self._fenced ^= self._head in _FENCES
                self._begin_line()
                out.append(char)
                continue
            if len(self._head) < len(_FENCES[0]) and (self._head or char != " "):
                self._head += char
            if columns < _LEAST or self._fenced:
                out.append(char)
            else:
                out.append(self._put(char, columns))
        return "".join(out)

    def _put(self, char: str, columns: int) -> str:
        is_space = char in " \t"
        width = cells(char) if char != "\t" else 8 - self._column % 8
        if not is_space and self._begins_word(char, width):
            self._word = len(self._row)
        written = ""
        if self._is_full or self._column + width > columns:
            if is_space:
                self._is_full = True
                return ""
            written = self._break()
        self._row += char
        self._column += width
        self._latest = width or self._latest
        if is_space:
            self._word = len(self._row)
        return written + char

    def _begins_word(self, char: str, width: int) -> bool:
        """True if a line may break before a character that is no space."""
        before = self._row[-1:]
        if width == 0 or 2 not in (width, self._latest) or before in ("", _JOINER):
            return False
        if unicodedata.category(before) in _OPENING:
            return False
        return unicodedata.category(char) not in _CLOSING

    def _break(self) -> str:
        """What takes the latest word, or what comes, to a new row."""
        before, word = self._row[: self._word], self._row[self._word :]
        if self._is_full or not word:
            self._begin_row(self._indent)
            self._word = len(self._row)
            return f"\n{self._indent}"
        if not before.strip():  # it is longer than a row
            self._begin_row("")
            return ""
        self._begin_row(self._indent + word)
        self._word = len(self._indent)
        return f"\r{before.rstrip()}\x1b[K\n{self._indent}{word}"
