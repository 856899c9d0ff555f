"""The arguments of every command, and their help, which fits a screen of 24 lines of 80."""

from __future__ import annotations

import argparse
import re
from typing import Any, Callable, Iterable, List, Mapping, NoReturn, Optional, Tuple

from agentstream._version import __version__
from agentstream.cli import arguments as kinds
from agentstream.cli.table import is_slip, meant, show
from agentstream.llm.settings import LLAMA_URL

__all__ = ["parse"]

_ABOUT = """\
LLM agents that stream, in plain threads.  Results go to standard output,
everything else to standard error.

  chat [PROMPT]    ask a model; what is piped in is added to the prompt
  run FILE         run a workflow file
  check FILE       say what a workflow file would do, and draw it
  tools FILE       list the tools of a workflow file's MCP servers, and try one
  runs             list the runs in a log
  follow [ID]      show a run as it goes, from a log or a server
  stop ID          stop a run that another process runs
  serve            serve a log over HTTP, with a page to watch the runs
  model            keep a small model's server up, of this machine's own
  models           list the models that a server offers

`agentstream COMMAND --help` tells more.  Settings are taken from the flags,
then from the environment (AGENTSTREAM_MODEL for --model, and so on), then
from agentstream/config.toml in your configuration folder (~/.config):
`agentstream help settings` lists them.

exit codes: 0 done, 1 failed, 2 usage error, 75 --lock is held,
            124 --deadline has passed, 129 SIGHUP, 130 Ctrl-C, 143 SIGTERM
"""
_CHAT = "Ask a model.  Without a PROMPT, or with - beside it, standard input is read.\n"
_RUN = """\
Run a workflow file (docs/workflow-files.rst).  Into a pipe goes the result.
"""
_CHECK = """\
Read a workflow file and say what `agentstream run` would do, as text and
as a Mermaid flowchart.  Runs none of it, and imports nothing it names; its
MCP servers, if it has some, are asked what they offer.
"""
_TOOLS = """\
List the tools of a file: of its MCP servers, and its own.  FILE is a workflow
file, or the JSON with "mcpServers" of many programs.  With TOOL, call that one,
as an agent would, and write its result: files:read '{"path": "a.txt"}', or
files:read path=a.txt.  Exits with 1 if it fails.
"""
_RUNS = "List the runs in a log, the newest first.\n"
_FOLLOW = """\
Show a run as it goes, from its beginning, until it ends; without ID, the
newest one.  From the log that the run is written to, or from a server
(`agentstream serve`).  Exits with 0 if the run completed, 1 if it did not.
"""
_STOP = """\
Stop a run, whichever process runs it; the beginning of its ID will do.
Exits with 0 if it was under way, 1 if not.
"""
_SERVE = """\
Serve a log of runs over HTTP, live: a page to watch them at /, their events,
a way to stop them; and to start those of the workflow FILEs, if some are
given.  Without --log, their runs are kept in memory.  Without a token it
listens on loopback only.  The token is never an argument, which others could
read: put it into a file, or into AGENTSTREAM_TOKEN.  Ctrl-C and SIGTERM end
it, with 0.  See docs/serving.rst.
"""
_MODEL = """\
Keep llama.cpp's server up, with a small model unless --model names a file: for
snippets, examples and `agentstream chat`, which look for one at port 8080.  It
answers on loopback only.  Needs pip install 'agentstream[local]'; the small
model (93 MB) is fetched once.  Ctrl-C and SIGTERM end it, with 0.
"""
_MODELS = """\
List the names of the models that a server offers, one a line, as --model and
a workflow file take them.
"""
_HELP = "Tell more of a command, or list the settings.\n"


def parse(arguments: Optional[List[str]] = None) -> argparse.Namespace:
    """The command and its settings; `command` names it, None stands for "not given".

    Raises:
        SystemExit: with 2, after a message, for what cannot be understood; with
            0 after --help and --version.
    """
    parser = _Parser(
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
    for name, usage, about, fill in _COMMANDS:
        command = commands.add_parser(
            name,
            usage=f"agentstream {name} {usage}",
            description=about,
            formatter_class=_Help,
            allow_abbrev=False,
            add_help=False,
        )
        fill(command.add_argument)
        command.add_argument("-h", "--help", action="help", help="show this")
    given, rest = parser.parse_known_args(arguments)
    command = commands.choices[given.command]
    if given.command == "chat":
        rest = _take_input(given, rest, command)
    if rest:
        command.reject(rest)
    if given.command == "help":
        _show_help(given.topic, parser, commands.choices)
    if getattr(given, "json", False) and getattr(given, "jsonl", False):
        command.error("--json or --jsonl: one of them")
    return given


def _take_input(given: argparse.Namespace, rest: List[str], chat: _Parser) -> List[str]:
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


def _show_help(topic: Optional[str], parser: _Parser, commands: Mapping[str, _Parser]) -> NoReturn:
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


class _Parser(argparse.ArgumentParser):
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
            instead = "use --token-file" if "token-file" in known else "set AGENTSTREAM_API_KEY"
            return f" (a key is never a flag, which others could read: {instead})"
        return _near(word, known, "--{}")


def _near(word: str, known: Iterable[str], written: str) -> str:
    close = meant(word, known)
    return "" if close is None else f" (did you mean {written.format(close)}?)"


class _Help(argparse.RawDescriptionHelpFormatter):
    """Narrow enough for any terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=79)


Add = Callable[..., Any]


def _chat(add: Add) -> None:
    add("prompt", metavar="PROMPT", nargs="?", type=kinds.text, help=argparse.SUPPRESS)
    _files(add)
    add("--system", metavar="TEXT", type=kinds.text, help="instructions for the model")
    add("--system-prompt", dest="system", type=kinds.text, help=argparse.SUPPRESS)  # as in Python
    add("--max-tokens", metavar="N", type=kinds.count, help="end the answer after so many")
    add("--temperature", metavar="T", type=kinds.temperature, help="0 for the likeliest answer")
    add("--effort", metavar="WORD", dest="reasoning_effort", help="of reasoning: none, low, high")
    _model(add)
    _output(add)
    _cron(add)


def _files(add: Add) -> None:
    add(
        "-a",
        "--attach",
        metavar="FILE",
        dest="files",
        action="append",
        default=[],
        type=kinds.path,
        help="a picture or PDF to ask about; may be repeated",
    )


def _set(add: Add, example: str) -> None:
    add(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=kinds.assignment,
        help=f"overrule FILE: {example}",
    )


def _run(add: Add) -> None:
    add("file", metavar="FILE", type=kinds.path, help=argparse.SUPPRESS)
    add(
        "--input",
        metavar="TEXT",
        type=kinds.text,
        help="the first step's; -: what is piped in, the default",
    )
    _set(add, "agents.writer.temperature=0")
    _files(add)
    add("--id", metavar="ID", type=kinds.text, help="the run's id; default: a new one")
    add("--once", action="store_true", help="if the run of --id is in the log: its output, and 0")
    _model(add)
    _output(add)
    _cron(add)


def _check(add: Add) -> None:
    add("file", metavar="FILE", type=kinds.path, help=argparse.SUPPRESS)
    _set(add, "agents.writer.temperature=0")
    add("--mermaid", action="store_true", help="write the flowchart only")
    add("--offline", action="store_true", help="ask no MCP server what it offers")


def _tools(add: Add) -> None:
    add("file", metavar="FILE", type=kinds.path, help=argparse.SUPPRESS)
    add("tool", metavar="TOOL", nargs="?", type=kinds.text, help=argparse.SUPPRESS)
    add("arguments", metavar="ARGUMENT", nargs="*", type=kinds.text, help=argparse.SUPPRESS)
    _set(add, "mcp.files.prefix=fs_")
    add("--deadline", metavar="TIME", type=kinds.seconds, help="stop after 600 or 10m, with 124")
    add("-v", "--verbose", action="count", default=0, help="what servers write to standard error")


def _runs(add: Add) -> None:
    add("--log", metavar="FILE", type=kinds.path, help="the log")
    add("-n", dest="limit", type=kinds.count, default=20, metavar="N", help="so many (%(default)s)")
    add("--active", action="store_true", help="only those under way")
    add("--json", action="store_true", help="as JSON, one run a line")


def _follow(add: Add) -> None:
    add("id", metavar="ID", nargs="?", type=kinds.text, help=argparse.SUPPRESS)
    add("--log", metavar="FILE", type=kinds.path, help="the log")
    add("--url", metavar="URL", type=kinds.text, help="the server, instead of a log")
    add("--token-file", metavar="FILE", type=kinds.path, help="holds the server's token")
    _output(add)
    add("--deadline", metavar="TIME", type=kinds.seconds, help="leave after so long, with 124")


def _stop(add: Add) -> None:
    add("id", metavar="ID", type=kinds.text, help=argparse.SUPPRESS)
    add("--log", metavar="FILE", type=kinds.path, help="the log")
    add(
        "--reason",
        metavar="TEXT",
        type=kinds.text,
        default="agentstream stop",
        help="what its last event says",
    )
    add(
        "--wait",
        metavar="SECONDS",
        type=kinds.seconds,
        default=10.0,
        help="wait so long for its end (%(default)g)",
    )


def _serve(add: Add) -> None:
    add("files", metavar="FILE", nargs="*", type=kinds.path, help=argparse.SUPPRESS)
    add("--log", metavar="FILE", type=kinds.path, help="the log, of a SqliteStore")
    add("--host", type=kinds.text, default="127.0.0.1", help="where to listen (%(default)s)")
    add("--port", type=kinds.port, default=8000, help="0 for any (%(default)s)")
    add("--token-file", metavar="FILE", type=kinds.path, help="holds the token")
    add(
        "--name",
        metavar="NAME",
        type=kinds.text,
        action="append",
        default=[],
        help="a Host to answer to",
    )
    add(
        "--origin",
        metavar="URL",
        type=kinds.text,
        action="append",
        default=[],
        help="what browsers call it behind a proxy, as https://example.org",
    )
    _model(add)


def _embedded(add: Add) -> None:
    add("--model", metavar="FILE", type=kinds.path, help="a GGUF file, in place of the small model")
    add("--port", type=kinds.port, default=8080, help="0 for any (%(default)s)")
    add("--context", metavar="N", type=kinds.count, default=2048, help="tokens (%(default)s)")


def _models(add: Add) -> None:
    _server(add)
    add("--json", action="store_true", help="as JSON: a list of texts")
    add("--deadline", metavar="TIME", type=kinds.seconds, help="stop after 600 or 10m, with 124")
    add("--retries", metavar="N", type=kinds.number, help="further tries of what may pass")


def _help(add: Add) -> None:
    add("topic", metavar="TOPIC", nargs="?", help=argparse.SUPPRESS)


def _model(add: Add) -> None:
    _server(add)
    add(
        "--model",
        metavar="NAME",
        type=kinds.text,
        help="the server's name for it; embedded: a GGUF file",
    )
    add("--show-requests", action="store_true", help="show what is sent, prompts and all")
    # Few need these: `agentstream help settings` lists them.
    add("--api", metavar="NAME", type=kinds.text, help=argparse.SUPPRESS)
    add("--think-tags", action="store_true", default=None, help=argparse.SUPPRESS)


def _server(add: Add) -> None:
    add(
        "--provider",
        metavar="NAME",
        type=kinds.text,
        help="llama, openai, anthropic, ollama, embedded",
    )
    add("--base-url", metavar="URL", type=kinds.text, help=f"the server; llama: {LLAMA_URL}")
    add("--insecure", action="store_true", default=None, help="do not verify its certificate")


def _output(add: Add) -> None:
    add("--json", action="store_true", help="write the result as JSON")
    add("--jsonl", action="store_true", help="write the events instead, one a line")
    add("-q", "--quiet", action="store_true", help="no status line, no notes, no word of a lock")
    add(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="say what happens; -vv: the library's log too",
    )


def _cron(add: Add) -> None:
    add("--log", metavar="FILE", type=kinds.path, help="keep the events in this file")
    add("--deadline", metavar="TIME", type=kinds.seconds, help="stop after 600 or 10m, with 124")
    add("--retries", metavar="N", type=kinds.number, help="further tries of what may pass")
    add("--lock", metavar="NAME", type=kinds.text, help="leave with 75 if another holds this lock")


#: The commands: usage, help, and what adds their kinds.
_COMMANDS: Tuple[Tuple[str, str, str, Callable[[Add], None]], ...] = (
    ("chat", "[options] [PROMPT] [-]", _CHAT, _chat),
    ("run", "[options] FILE", _RUN, _run),
    ("check", "[options] FILE", _CHECK, _check),
    ("tools", "[options] FILE [TOOL [ARGUMENT ...]]", _TOOLS, _tools),
    ("runs", "[options]", _RUNS, _runs),
    ("follow", "[options] [ID]", _FOLLOW, _follow),
    ("stop", "[options] ID", _STOP, _stop),
    ("serve", "[options] [FILE ...]", _SERVE, _serve),
    ("model", "[options]", _MODEL, _embedded),
    ("models", "[options]", _MODELS, _models),
    ("help", "[COMMAND | settings]", _HELP, _help),
)
