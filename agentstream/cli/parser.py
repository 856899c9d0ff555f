"""The command line, parsed: which command, and what it is given; one line says what is wrong."""

from __future__ import annotations

import argparse
import re
from typing import Iterable, List, Mapping, NoReturn, Optional, Tuple

from agentstream._version import __version__
from agentstream.cli import arguments as kinds
from agentstream.cli.commands import COMMANDS
from agentstream.cli.table import is_slip, meant, show

__all__ = ["Parser", "parse", "parsers"]

_ABOUT = """\
LLM agents that stream, in plain threads.  Results go to standard output,
everything else to standard error.

  chat [PROMPT]    ask a model; without a PROMPT, a conversation
  run FILE         run a workflow file
  check FILE       say what a workflow file would do, and draw it
  tools FILE       list the tools of a workflow file's MCP servers, and try one
  runs             list the runs in a log
  follow [ID]      show a run as it goes, from a log or a server
  stop ID          stop a run that another process runs
  resume ID        go on with a run that was interrupted, or has its answer
  approve ID       answer a run that asks whether it may make a tool call
  signal ID NAME   send a run the value that it waits for
  serve            serve a log over HTTP, with a page to watch the runs
  model, models    keep a small model's server up; list those of a server
  doctor           say what would be used, and whether it works

`agentstream COMMAND --help` tells more, `agentstream help settings` what can be
set where, `agentstream completion bash` (zsh, fish) lets the Tab key do so.

exit codes: 0 done, 1 failed, 2 usage error, 3 waits for an answer, 75 busy
            124 --deadline has passed, 129 SIGHUP, 130 Ctrl-C, 143 SIGTERM
"""


def parse(arguments: Optional[List[str]] = None) -> argparse.Namespace:
    """The command and its settings; `command` names it, None stands for "not given".

    Raises:
        SystemExit: with 2, after a message, for what cannot be understood; with
            0 after --help and --version.
    """
    parser, commands = parsers()
    given, rest = parser.parse_known_args(arguments)
    command = commands[given.command]
    if given.command == "chat":
        rest = _take_input(given, rest, command)
        _check_chat(given, command)
    if rest:
        command.reject(rest)
    if given.command == "help":
        _show_help(given.topic, parser, commands)
    if getattr(given, "json", False) and getattr(given, "jsonl", False):
        command.error("--json or --jsonl: one of them")
    _check_resumption(given, command)
    return given


def parsers() -> Tuple[Parser, Mapping[str, Parser]]:
    """The parser of the command line, and those of the commands by name."""
    parser = Parser(
        prog="agentstream",
        usage="agentstream COMMAND [options]",
        description=_ABOUT,
        formatter_class=_Help,
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
    parser.add_argument(
        "--version",
        action="version",
        version=f"agentstream {__version__}",
        help=argparse.SUPPRESS,
    )
    commands = parser.add_subparsers(
        dest="command",
        required=True,
        metavar="COMMAND",
        help=argparse.SUPPRESS,
        prog="agentstream",
    )
    for name, usage, about, fill in COMMANDS:
        command = commands.add_parser(
            name,
            usage=f"agentstream {name} {usage}",
            description=about,
            formatter_class=_Help,
            allow_abbrev=False,
            add_help=False,
        )
        options = command.add_argument_group()  # without a heading
        fill(options.add_argument)
        options.add_argument("-h", "--help", action="help", help="show this")
    return parser, commands.choices


def _check_chat(given: argparse.Namespace, chat: Parser) -> None:
    named = {"-c": given.last, "--conversation": given.conversation is not None}
    named.update({"--list": given.list, "--forget": given.forget is not None})
    found = [flag for flag, is_given in named.items() if is_given]
    if len(found) > 1:
        chat.error(f"{' or '.join(found)}: one of them")
    if (given.list or given.forget is not None) and (given.prompt is not None or given.stdin):
        chat.error(f"{found[0]} asks no model: leave the PROMPT out")


def _check_resumption(given: argparse.Namespace, command: Parser) -> None:
    if given.command == "run" and given.resume is not None and (given.once or given.id is not None):
        command.error("--resume ID stands for --id and --once: it begins that run, or goes on")
    if given.command == "resume" and (given.id is None) == (not given.watch):
        command.error("ID, or --watch FILE: one of them")
    if given.command == "resume" and given.watch:
        for name in ("json", "jsonl", "force"):
            if getattr(given, name):
                command.error(f"--{name} is for one run, not for --watch")
    if given.command == "approve" and given.no is not None and given.arguments is not None:
        command.error("--no or --arguments: one of them")


def _take_input(given: argparse.Namespace, rest: List[str], chat: Parser) -> List[str]:
    """Set `given.stdin` if "-" stands among the arguments; returns what is left of `rest`."""
    left = [word for word in rest if word != "-"]
    given.stdin = given.prompt == "-" or len(left) < len(rest)
    if given.prompt == "-":
        given.prompt = None
        if left and not left[0].startswith("-"):  # `chat - PROMPT`
            try:
                given.prompt = kinds.text(left.pop(0))
            except argparse.ArgumentTypeError as error:
                chat.error(f"argument PROMPT: {error}")
    return left


def _show_help(topic: Optional[str], parser: Parser, commands: Mapping[str, Parser]) -> NoReturn:
    """Print what there is to say of a topic, and end with 0."""
    if topic is None:
        parser.print_help()
    elif topic in commands:
        commands[topic].print_help()
    elif topic == "settings":
        from agentstream.cli.settings import config_file  # noqa: PLC0415 - only here

        print(show(str(config_file())), end="")
    else:
        near = _near(topic, [*commands, "settings"], "`{}`")
        parser.error(f"there is no help on {topic[:40]!r}{near}")
    parser.exit(0)


#: What a flag that stands for a secret ends in.
_SECRET = ("key", "apikey", "token", "secret", "password", "passwd", "bearer", "credentials")


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, and what may have been meant."""

    def error(self, message: str) -> NoReturn:
        command = re.match("argument COMMAND: invalid choice: '([^']*)'", message)
        if command:
            known = next(a.choices for a in self._actions if a.dest == "command")
            message = command[0] + _near(command[1], known or (), "`{}`")
        self.exit(2, f"agentstream: {message}; `{self.prog} --help` says what there is\n")

    def reject(self, rest: List[str]) -> NoReturn:
        """End with what is too much; no value is told, which may be a key."""
        flags = [word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"]
        if not flags:
            self.error("too many arguments: a text of several words is to be quoted")
        self.error(f"unknown: {', '.join(flag + self._advice(flag) for flag in flags)}")

    def _advice(self, flag: str) -> str:
        """What to write in place of a flag that there is not; "" if nobody can tell."""
        known = [name[2:] for name in self._option_string_actions if name.startswith("--")]
        word = flag.strip("-").replace("_", "-")
        if len(word) == 1:
            return ""
        if word.lower().rpartition("-")[2] in _SECRET and not is_slip(word, known):
            return f" (a key is never a flag, which others could read: {_instead(word, known)})"
        return _near(word, known, "--{}")


def _instead(word: str, known: Iterable[str]) -> str:
    """What to use in place of a flag that stands for a secret."""
    if "pass" in word.lower() and "log-password-file" in known:
        return "use --log-password-file"
    return "use --token-file" if "token-file" in known else "set AGENTSTREAM_API_KEY"


def _near(word: str, known: Iterable[str], written: str) -> str:
    close = meant(word, known)
    return "" if close is None else f" (did you mean {written.format(close)}?)"


class _Help(argparse.RawDescriptionHelpFormatter):
    """Narrow enough for any terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=79)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """`-a, --attach FILE`, as Python 3.13 has it, on each Python."""
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"
