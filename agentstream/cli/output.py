"""What a command reads from standard input, and writes to standard output and standard error."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import sys
from typing import Any, Mapping, Optional, TextIO

from agentstream.console.terminal import is_terminal, mute, write
from agentstream.errors import ConfigError
from agentstream.text import replace_surrogates, strip_controls

__all__ = ["Output", "note", "note_unread", "piped_in", "say"]

#: Bytes that may be piped in; more than that is no prompt.
_MOST = 16 * 2**20
#: Seconds that standard input may say nothing.
_PATIENCE_S = 2.0
#: What JSON leaves as it is, and a terminal obeys or a reader takes for a line's end.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029]")


def say(problem: str) -> None:
    """Say on standard error why the command ends as it does."""
    note(f"agentstream: {problem}")


def note(text: str) -> None:
    """A line on standard error, if anything can be written there."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            print(strip_controls(text), file=sys.stderr, flush=True)


class Output:
    """Text for whoever reads standard output; `write` says whether anybody still does.

    Raises:
        OSError: it is closed.
    """

    def __init__(self, file: Optional[TextIO]) -> None:
        if file is None:
            raise OSError("standard output is closed")
        self._file = file
        self._is_terminal = is_terminal(file)
        self._wrapper: Any = None
        self._at_line_start = True
        self.closed = False

    def write(self, text: str) -> bool:
        """Write it at once; returns False if nobody reads it any more.

        Raises:
            OSError: it cannot be written: a full disk, say.
        """
        return self._write(strip_controls(text) if self._is_terminal else text)

    def _write(self, text: str) -> bool:
        if self.closed:
            return False
        try:
            write(self._file, text)
        except OSError as error:
            mute(self._file)
            self.closed = True
            if isinstance(error, BrokenPipeError):
                return False
            raise OSError(f"standard output: {error.strerror}") from error
        if text:
            self._at_line_start = text.endswith("\n")
        return True

    def write_text(self, text: str) -> bool:
        """As `write`, for what is read, not parsed: a terminal's lines break at words."""
        if self._is_terminal:
            text = strip_controls(text)
            if self._wrapper is None:
                from agentstream.console.wrap import wrapper_for  # noqa: PLC0415 - few need it

                self._wrapper = wrapper_for(self._file)
            return self._write(self._wrapper.feed(text))
        return self._write(text)

    def write_json(self, value: Any) -> bool:
        """Write a line of JSON, in ASCII where the file is not UTF-8: any reader takes that.

        Returns and raises as `write`.
        """
        encoding = (getattr(self._file, "encoding", None) or "utf-8").lower().replace("_", "-")
        is_utf8 = encoding in ("utf-8", "utf8")
        text = replace_surrogates(json.dumps(value, ensure_ascii=not is_utf8))
        return self.write(_UNPRINTABLE.sub(_escaped, text) + "\n")

    def write_value(self, value: Any) -> bool:
        """Write what a run came to, on a line's end: a text as it is, named texts under
        headings, anything else as JSON; of None, nothing.

        Returns and raises as `write`.
        """
        if value is None:
            return not self.closed
        if isinstance(value, str):
            written = self.write_text(value)
        elif isinstance(value, Mapping):
            written = self.write_text(
                "\n\n".join(f"## {name}\n\n{_as_text(part)}" for name, part in value.items())
            )
        else:
            return self.write_json(value)
        self.end_line()
        return written

    def end_line(self) -> None:
        """Begin a new line, unless at the beginning of one."""
        if not self._at_line_start:
            with contextlib.suppress(OSError):  # what ends the command is told already
                self.write_text("\n")


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _as_text(value: Any) -> str:
    if isinstance(value, Mapping) and set(value) == {"error", "message"}:  # a branch that failed
        return f"(failed: {value['error']}: {value['message']})"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def piped_in(*, needed: bool = True, quiet: bool = False, named: bool = False) -> Optional[str]:
    """What is piped in; None if standard input is a terminal, or closed.

    Args:
        needed: wait for it, however long that takes.  Else standard input that says
            nothing for two seconds, a pipe that somebody merely holds open, is left.
        quiet: do not say that it was left.
        named: it was asked for by name ("-"): a terminal is read, too.

    Raises:
        ConfigError: it is not UTF-8, or too much.
    """
    if sys.stdin is None or sys.stdin.closed or (sys.stdin.isatty() and not named):
        return None
    if not _says_something():
        if not needed:
            if not quiet:
                note("agentstream: nothing comes on standard input: going on without it")
            return None
        end = "Ctrl-D ends it" if sys.stdin.isatty() else "`< /dev/null` for none"
        note(f"agentstream: waiting for standard input to end; {end}")
    raw = sys.stdin.buffer.read(_MOST + 1)
    if len(raw) > _MOST:
        raise ConfigError(f"more than {_MOST >> 20} MiB were piped in: that is no prompt")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {error.start}"
        raise ConfigError(f"what was piped in is not UTF-8: {where}") from None


def note_unread(remedy: str) -> None:
    """Say that something was piped in and not read; `remedy` is how to have it read.

    Nothing of what is there for others too: the list of a shell's loop, say, which
    the shell reads on.
    """
    try:
        number = sys.stdin.fileno()
        if _unread(number) and not _is_shared(number):
            note(f"agentstream: standard input was not read: {remedy}")
    except (AttributeError, ImportError, OSError, ValueError):
        pass  # it is closed, or a system on which nobody can tell


def _unread(number: int) -> int:
    """The bytes that wait in a pipe or a file."""
    import fcntl  # noqa: PLC0415 - POSIX has it
    import termios  # noqa: PLC0415

    state = os.fstat(number)
    if stat.S_ISREG(state.st_mode):
        return state.st_size - os.lseek(number, 0, os.SEEK_CUR)
    if not stat.S_ISFIFO(state.st_mode):
        return 0
    return int.from_bytes(fcntl.ioctl(number, termios.FIONREAD, bytes(4)), sys.byteorder)


def _is_shared(number: int) -> bool:
    """True if it is the parent's standard input as well."""
    theirs = os.stat(f"/proc/{os.getppid()}/fd/0")
    ours = os.fstat(number)
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


def _says_something() -> bool:
    """False if standard input says nothing, not even that it ends, for a while."""
    import select  # noqa: PLC0415

    if os.name == "nt":  # its pipes cannot be watched
        return True
    try:
        return bool(select.select([sys.stdin], [], [], _PATIENCE_S)[0])
    except (OSError, ValueError):
        return True
