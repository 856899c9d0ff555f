"""Messages as a person types or pastes them at a terminal, and the ones typed before.

Lines are edited by readline where Python has it.  A paste is one message: readline tells it
from typing (bracketed paste); where it does not, lines that are there at once belong together.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

from agentstream.cli.output import note
from agentstream.text import replace_surrogates

__all__ = ["Keyboard", "Typed"]

#: What begins and ends a message of several lines.
_QUOTES = '"""'
_PROMPT, _MORE = "> ", "... "
#: Seconds within which the lines of a paste follow each other.
_PASTE_S = 0.05
#: Messages that the history offers, and as many again until the file is shortened.
_REMEMBERED = 1000
#: Alt-Enter and pastes, in GNU readline's words; libedit takes neither.
_BINDINGS = ("set enable-bracketed-paste on", r'"\e\C-m": "\C-v\C-j"', "tab: complete")


class Typed(NamedTuple):
    """What was typed.

    Attributes:
        text: the message, or the command without what is behind its line.
        is_command: it is one line that begins with "/".  What has several lines is a message.
    """

    text: str
    is_command: bool


class Keyboard:
    """Reads messages from standard input, which is a terminal.

    Args:
        history: the file of what was typed before; None: nothing is read or kept.
        words: the commands; Tab completes them.
    """

    def __init__(self, history: Optional[str], words: Sequence[str] = ()) -> None:
        self._words = list(words)
        self._held: Optional[str] = None  # a line that was read, and is yet to be given out
        self._history = None if history is None else _History(history)
        self._readline = _readline()
        self._knows_pastes = self._readline is not None and _tells_pastes(self._readline)
        if self._readline is not None:
            self._set_up(self._readline)

    def _set_up(self, readline: Any) -> None:
        readline.set_auto_history(False)  # it has a message's lines one by one
        for binding in _BINDINGS if "libedit" not in (readline.__doc__ or "") else ():
            readline.parse_and_bind(binding)
        readline.set_completer_delims(" \n")
        readline.set_completer(self._complete)
        for text in () if self._history is None else self._history.read():
            readline.add_history(text)

    def _complete(self, begun: str, number: int) -> Optional[str]:
        found = [word for word in self._words if begun.startswith("/") and word.startswith(begun)]
        return found[number] if number < len(found) else None

    def read(self) -> Typed:
        """Wait for a message or a command; one that is only blanks is neither.

        Raises:
            EOFError: Ctrl-D: there is nothing more to come.
        """
        while True:
            text, is_paste = self._first()
            one_line = "\n" not in text
            if text.startswith(_QUOTES) and not is_paste:
                text, one_line = self._block(text[len(_QUOTES) :]), False
            if not text.strip():
                continue
            self._remember(text)
            if one_line and text.startswith("//"):
                return Typed(text[1:], False)
            return Typed(text, one_line and text.startswith("/"))

    def _first(self) -> Tuple[str, bool]:
        """A line, with those that belong to it; and True if readline says that it is a paste."""
        if self._held is not None:
            held, self._held = self._held, None
            return held, False
        # While an answer arrived nobody could tell a paste from typing.
        joins = not self._knows_pastes or _more_is_there(0.0)
        lines = [self._line(_PROMPT)]
        with contextlib.suppress(EOFError):
            while joins and self._held is None and _more_is_there(_PASTE_S):
                line = self._line("")
                if line.partition(" ")[0] in self._words:
                    self._held = line
                else:
                    lines.append(line)
        return "\n".join(lines), "\n" in lines[0]

    def _block(self, text: str) -> str:
        """What stands up to the closing quotes; Ctrl-D closes them too."""
        with contextlib.suppress(EOFError):
            while not text.rstrip().endswith(_QUOTES):
                text += "\n" + self._line(_MORE)
        text = text.rstrip()
        return text[: -len(_QUOTES) if text.endswith(_QUOTES) else None].strip("\n")

    def _line(self, prompt: str) -> str:
        while True:
            try:
                return replace_surrogates(input(prompt))
            except UnicodeDecodeError:
                note("agentstream: that was not UTF-8: type it again")

    def _remember(self, text: str) -> None:
        if self._readline is not None:
            self._readline.add_history(text)
        if self._history is not None:
            self._history.add(text)


def _readline() -> Any:
    """Python's readline; None where it has none."""
    try:
        import readline  # noqa: PLC0415 - some Pythons lack it, and it changes input()
    except ImportError:
        return None
    return readline


def _tells_pastes(readline: Any) -> bool:
    """True if a paste comes as one line, newlines within: GNU readline 7, on a real terminal."""
    version = getattr(readline, "_READLINE_RUNTIME_VERSION", 0)
    is_gnu = "libedit" not in (readline.__doc__ or "") and version >= 0x0700
    return is_gnu and os.environ.get("TERM", "dumb") != "dumb"


def _more_is_there(seconds: float) -> bool:
    """True if a line waits, or comes within so many seconds: nobody types that fast."""
    import select  # noqa: PLC0415

    if os.name == "nt":  # its consoles cannot be watched
        return False
    return bool(select.select([sys.stdin], [], [], seconds)[0])


class _History:
    """A file of messages, one a line as JSON, for its owner only."""

    def __init__(self, path: str) -> None:
        self._path: Optional[str] = path

    def read(self) -> List[str]:
        """The latest messages, the oldest of them first."""
        try:
            with open(self._path or os.devnull, encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            return self._give_up(error)
        found = [text for text in map(_decoded, lines) if text]
        if len(lines) > 2 * _REMEMBERED:
            self._shorten(found[-_REMEMBERED:])
        return found[-_REMEMBERED:]

    def add(self, text: str) -> None:
        """Add a message; what cannot be written is told once."""
        if self._path is not None:
            try:
                os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
                self._write(self._path, [text], os.O_APPEND)
            except OSError as error:
                self._give_up(error)

    def _shorten(self, texts: List[str]) -> None:
        unfinished = f"{self._path}.{os.getpid()}.tmp"
        with contextlib.suppress(OSError):  # it stays as long as it is
            self._write(unfinished, texts, os.O_TRUNC)
            os.replace(unfinished, self._path or unfinished)

    def _write(self, path: str, texts: List[str], how: int) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write("".join(json.dumps(text) + "\n" for text in texts))

    def _give_up(self, error: OSError) -> List[str]:
        note(f"agentstream: warning: what is typed is not remembered: {error}")
        self._path = None
        return []


def _decoded(line: str) -> str:
    try:
        text = json.loads(line)
    except ValueError:
        return ""
    return text if isinstance(text, str) else ""
