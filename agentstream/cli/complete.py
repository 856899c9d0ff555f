"""What may stand where the cursor is: for the scripts of `agentstream completion`.

Read off the parser, so that a new flag is completed as soon as there is one.  It runs at each
Tab: it imports no HTTP, asks no server, and never says that something is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import urllib.parse
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from agentstream.cli.commands import PROVIDERS
from agentstream.cli.parser import Parser, parsers

__all__ = ["candidates", "complete"]

#: Stands for the names of files, which a shell knows best.
FILES = ":files"
#: Runs and conversations that are offered.
_MOST = 50
_WAITING = ("suspended", "interrupted")
_ACTIVE = ("queued", "running")

#: A word that may stand there, and what it is.
Word = Tuple[str, str]


def complete(shell: str, line: str) -> str:
    """The candidates for the end of a line, one a line: the word, a tab, what it is.

    What a shell has already on its line is left out as the shell wants it: bash breaks words
    at "=" and ":", zsh's script at "=".
    """
    words, current = _split(line)
    found = candidates(words[1:], current)
    kept = 0
    if shell != "fish" and current.startswith("--") and "=" in current:
        kept = current.index("=") + 1
    if shell == "bash":
        kept = max(kept, current.rfind(":") + 1)
    return "".join(
        f"{word if word == FILES else word[kept:]}\t{' '.join(about.split())}".rstrip() + "\n"
        for word, about in found
        if word.isprintable()  # one with a line break would be two, of anybody's choosing
    )


def candidates(words: List[str], current: str) -> List[Word]:
    """What may stand in place of `current`, behind the words of a command line."""
    parser, commands = parsers()
    if not words:
        named = [(name, _first_sentence(one)) for name, one in commands.items()]
        return _beginning(current, [*named, *(_flags(parser) if current[:1] == "-" else ())])
    if words[0] not in commands:
        return []
    place = _place(commands[words[0]], words[1:])
    if place.option is not None:
        return _values(words[0], place.option, place, current, commands)
    head, sign, value = current.partition("=")
    option = commands[words[0]]._option_string_actions.get(head)
    if sign and option is not None and option.nargs != 0:
        found = _values(words[0], option, place, value, commands)
        return [(word if word == FILES else f"{head}={word}", about) for word, about in found]
    flags = _flags(commands[words[0]])
    if current.startswith("-"):
        return _beginning(current, flags)
    action = place.positional
    found = [] if action is None else _values(words[0], action, place, current, commands)
    return found or ([] if current else flags)


class _Place(NamedTuple):
    """Where the cursor is.

    Attributes:
        option: the flag whose value stands there; None for none.
        positional: the argument that stands there otherwise; None if there are enough.
        given: the values of the flags before it, by their names.
    """

    option: Optional[argparse.Action]
    positional: Optional[argparse.Action]
    given: Dict[str, str]


def _place(command: Parser, words: List[str]) -> _Place:
    positionals = [action for action in command._actions if not action.option_strings]
    option: Optional[argparse.Action] = None
    given: Dict[str, str] = {}
    count = 0
    for word in words:
        if option is not None:
            given[option.dest] = word
            option = None
            continue
        head, sign, value = word.partition("=")
        action = command._option_string_actions.get(head)
        if action is not None:
            if sign:
                given[action.dest] = value
            elif action.nargs != 0:
                option = action
        elif not word.startswith("-"):
            count += 1
    left = positionals[count:] or [one for one in positionals if one.nargs == "*"]
    return _Place(option, left[0] if left else None, given)


# --- what may stand there ---------------------------------------------------------------------


def _values(
    command: str,
    action: argparse.Action,
    place: _Place,
    current: str,
    commands: Mapping[str, Parser],
) -> List[Word]:
    """The values of a flag or an argument that begin so."""
    if action.choices:
        return _beginning(current, [(str(choice), "") for choice in action.choices])
    if action.metavar in ("FILE", "LOG") or action.dest == "file":
        return [(FILES, "")]
    if action.dest == "topic":
        return _beginning(current, [(name, "") for name in (*commands, "settings")])
    kind = _KINDS.get(action.dest)
    if kind is None:
        return []
    try:
        return _beginning(current, list(kind(command, place.given)))
    except Exception:  # noqa: BLE001 - a Tab must not write on somebody's command line
        return []


def _flags(command: Parser) -> List[Word]:
    """The long flags, and the short ones that have no long name."""
    found = []
    for action in command._actions:
        names = [name for name in action.option_strings if name.startswith("--")]
        for name in names or action.option_strings[:1]:
            found.append((name, _about(action)))
    return found


def _about(action: argparse.Action) -> str:
    if not action.help or action.help == argparse.SUPPRESS:
        return ""
    return action.help % {"default": action.default}


def _first_sentence(command: Parser) -> str:
    return re.split(r"[.:;](?=\s)", command.description or "")[0]


def _beginning(current: str, found: List[Word]) -> List[Word]:
    return [(word, about) for word, about in found if word.startswith(current)]


def _words(*words: str) -> Callable[[str, Mapping[str, str]], Iterator[Word]]:
    return lambda command, given: iter([(word, "") for word in words])


def _runs(command: str, given: Mapping[str, str]) -> Iterator[Word]:
    """The runs of the log: those under way, or those that wait, where only these can be meant."""
    from agentstream.cli.settings import find_log  # noqa: PLC0415 - only for these

    place = find_log(argparse.Namespace(log=given.get("log"), quiet=True))
    if command == "run" or place is None or not place.is_file or place.is_missing():
        return
    wanted = {"stop": _ACTIVE + _WAITING, "resume": _WAITING}
    wanted.update(approve=_WAITING, signal=_ACTIVE + _WAITING)
    with place.open(reading=True) as store:
        for state in store.runs(limit=_MOST):
            if state.status in wanted.get(command, (state.status,)):
                yield state.workflow_id, f"{state.name or ''} {state.status}"


def _conversations(command: str, given: Mapping[str, str]) -> Iterator[Word]:
    """The conversations that `chat` keeps, the latest first."""
    import sqlite3  # noqa: PLC0415 - only for these; `Conversations` would bring HTTP

    from agentstream.cli.settings import state_folder  # noqa: PLC0415 - as above

    path = os.path.join(state_folder(), "chats.db")
    url = f"file:{urllib.parse.quote(os.fsencode(path))}?mode=ro"
    with contextlib.closing(sqlite3.connect(url, uri=True, timeout=0.2)) as connection:
        found = connection.execute(
            "SELECT conversation, count(*) FROM messages GROUP BY conversation"
            " ORDER BY max(id) DESC LIMIT ?",
            (_MOST,),
        )
        for name, count in found.fetchall():
            yield name, f"{count} messages"


#: What may stand for an argument of that name.
_KINDS: Dict[str, Any] = {
    "provider": _words(*PROVIDERS),
    "fallback": _words(*PROVIDERS),
    "reasoning_effort": _words("none", "minimal", "low", "medium", "high"),
    "api": _words("auto", "responses", "chat"),
    "id": _runs,
    "conversation": _conversations,
    "forget": _conversations,
}


# --- the line ---------------------------------------------------------------------------------


def _split(line: str) -> Tuple[List[str], str]:
    """The whole words of a line up to the cursor, and the one that is begun."""
    for closing in ("", '"', "'"):
        try:
            words = shlex.split(line + closing)
        except ValueError:  # a quote is open
            continue
        if not closing and (not line or line[-1].isspace()):
            return words, ""
        return words[:-1], words[-1] if words else ""
    return line.split(), ""
