"""The command line: what is given there, in files and in the environment becomes a call.

An edge.  parser.py says what can be asked for, a file each answers one or a few
of the commands, settings.py says what holds where nothing was asked, endings.py
how a command ends: its exit code and the one line that says why.
"""

from __future__ import annotations

from typing import List, Optional

__all__ = ["main"]


def main(arguments: Optional[List[str]] = None) -> int:
    """Run a command; returns the exit code: see `agentstream.cli.endings`."""
    try:
        from agentstream.cli.endings import conduct  # noqa: PLC0415
        from agentstream.cli.parser import parse  # noqa: PLC0415

        given = parse(arguments)
        return conduct(given, leaving=arguments is None)
    except KeyboardInterrupt as stop:  # before there is anything to stop, or after
        return getattr(stop, "code", 130)
