"""What whoever writes to a terminal, a pipe or a file of text must know of it.  Keeps nothing.

An edge, below console and cli: how text gets there, and what if nobody reads it.  What
steers a terminal is stripped by `agentstream.text.strip_controls`.
"""

from __future__ import annotations

import os
from typing import Any

__all__ = ["is_terminal", "mute", "write"]


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
