"""The command line: what is given there, in files and in the environment becomes a call.

An edge.  `commands` says what can be asked for, `arguments` what that must be, `parser` what
was; a module each answers one command.  `settings` says what holds where nothing was asked,
by the `table` of settings; `command` runs it between `signals` and `exits`: what may end it
early, its exit code and the line that says why.  `output` writes, `view` shows a run,
`execute` runs one and shows it; `durable` and `resting` are about runs that can be resumed;
`talk` holds a conversation, of `turns`, typed at the `keyboard` or commands (`slash`), in `chats`;
`complete` is what Tab offers, `examine` what `doctor` looks at, `servers` whether they answer.
"""

from __future__ import annotations

import sys
from typing import List, Optional

__all__ = ["main"]


def main(arguments: Optional[List[str]] = None) -> int:
    """Run a command; returns the exit code: see `agentstream.cli.exits`."""
    given_words = sys.argv[1:] if arguments is None else arguments
    try:
        if given_words[:2] == ["completion", "--"]:
            return _complete(given_words[2:])
        from agentstream.cli.command import conduct  # noqa: PLC0415
        from agentstream.cli.parser import parse  # noqa: PLC0415

        given = parse(arguments)
        return conduct(given, leaving=arguments is None)
    except KeyboardInterrupt as stop:  # before there is anything to stop, or after
        return getattr(stop, "code", 130)


def _complete(words: List[str]) -> int:
    """Answer a shell's Tab, without what commands need; returns 0."""
    from agentstream.cli.complete import complete  # noqa: PLC0415

    if len(words) == 2:
        sys.stdout.write(complete(*words))
    return 0
