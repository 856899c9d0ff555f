"""What whoever writes to a terminal, a pipe or a file of text must know of it.  Keeps nothing.

An edge, below console and cli: how text gets there, and what if nobody reads it.  What
steers a terminal is stripped by `agentstream.text.strip_controls`.
"""

from __future__ import annotations

import os
import unicodedata
from typing import Any

__all__ = ["can_steer", "cells", "columns_of", "is_terminal", "mute", "write"]


def is_terminal(file: Any) -> bool:
    """True if a person watches; of what was closed before we began, or is no file, False."""
    try:
        return bool(file.isatty())
    except (AttributeError, ValueError):
        return False


def write(file: Any, text: str) -> None:
    """Write it at once; what the file's encoding lacks is replaced.

    Raises:
        OSError: it cannot be written; BrokenPipeError: nobody reads it any more.
        ValueError: the file is closed.
    """
    try:
        file.write(text)
    except UnicodeEncodeError:
        encoding = getattr(file, "encoding", None) or "ascii"
        file.write(text.encode(encoding, "replace").decode(encoding))
    file.flush()


def mute(file: Any) -> None:
    """Point a file nobody reads at nowhere, so that the interpreter's last flush says nothing."""
    try:
        number = file.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):
        pass


def can_steer(file: Any) -> bool:
    """True for a terminal that obeys escape sequences."""
    if not is_terminal(file):
        return False
    if os.environ.get("TERM") == "dumb":
        return False
    return os.name != "nt" or "WT_SESSION" in os.environ  # an old console shows the sequences


def columns_of(file: Any) -> int:
    """How wide a terminal is; 80 where nobody knows."""
    try:
        return os.get_terminal_size(file.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return 80


def cells(text: str) -> int:
    """How many columns of a terminal a text takes, as far as one can know."""
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def _cells_of(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf", "Cc"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
