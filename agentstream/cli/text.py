"""What a command reads from standard input and writes to standard output."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Optional, TextIO

from agentstream.cli.endings import note
from agentstream.console.terminal import harmless, is_terminal, quiet_exit, write
from agentstream.errors import ConfigError

__all__ = ["Output", "piped_in"]

#: Bytes that may be piped in; more than that is no prompt.
_MOST = 16 * 2**20
#: Seconds after which one who waits for standard input is told so.
_PATIENCE = 2.0


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
        self._at_line_start = True
        self.closed = False

    def write(self, text: str) -> bool:
        """Write it at once; returns False if nobody reads it any more.

        Raises:
            OSError: it cannot be written: a full disk, say.
        """
        if self.closed:
            return False
        if self._is_terminal:
            text = harmless(text)
        try:
            write(self._file, text)
        except OSError as error:
            quiet_exit(self._file)
            self.closed = True
            if isinstance(error, BrokenPipeError):
                return False
            raise OSError(f"standard output: {error.strerror}") from error
        if text:
            self._at_line_start = text.endswith("\n")
        return True

    def end_line(self) -> None:
        """Begin a new line, unless at the beginning of one."""
        if not self._at_line_start:
            with contextlib.suppress(OSError):  # what ends the command is told already
                self.write("\n")


def piped_in() -> Optional[str]:
    """What is piped in; None if standard input is a terminal, or closed.

    Raises:
        ConfigError: it is not UTF-8, or too much.
    """
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return None
    _tell_who_waits()
    raw = sys.stdin.buffer.read(_MOST + 1)
    if len(raw) > _MOST:
        raise ConfigError(f"more than {_MOST >> 20} MiB were piped in: that is no prompt")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {error.start}"
        raise ConfigError(f"what was piped in is not UTF-8: {where}") from None


def _tell_who_waits() -> None:
    """Say that standard input is waited for, if it keeps us waiting."""
    import select  # noqa: PLC0415

    if os.name == "nt":  # its pipes cannot be watched
        return
    with contextlib.suppress(OSError, ValueError):
        if not select.select([sys.stdin], [], [], _PATIENCE)[0]:
            note("agentstream: waiting for standard input to end; `< /dev/null` for none")
