"""The command line: what is given there, in files and in the environment becomes a call.

An edge: it reads arguments, prints, and turns errors into one sentence and an
exit code, 2 for what was asked wrongly and 1 for what did not work.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import sys
from typing import Any, List, Optional

from agentstream._version import __version__
from agentstream.errors import AgentStreamError, ConfigError

__all__ = ["main"]

_WRONG, _FAILED = 2, 1
_TOKEN = "AGENTSTREAM_TOKEN"
_ABOUT_SERVE = (
    "Serve a log of runs over HTTP, live: a page to watch them at /, their events "
    "as Server-Sent Events, a way to stop them. Runs of any process that writes to "
    "the log are shown."
)
_AFTER_SERVE = (
    f"The token is never an argument, which others could read: put it into a file, "
    f"or into the environment as {_TOKEN}. Requests bring it as "
    "'Authorization: Bearer TOKEN'; the page asks for it. Without one the server "
    "is on loopback only."
)


def main(arguments: Optional[List[str]] = None) -> int:
    """Run a command; returns the exit code."""
    given = _parser().parse_args(arguments)
    try:
        code: int = given.run(given)
    except ConfigError as error:
        return _say(error, _WRONG)
    except (AgentStreamError, OSError) as error:
        return _say(error, _FAILED)
    return code


def _say(problem: object, code: int) -> int:
    print(f"agentstream: {problem}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agentstream", description="LLM agents that stream, in plain threads."
    )
    parser.add_argument("--version", action="version", version=f"agentstream {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    serve = commands.add_parser(
        "serve",
        allow_abbrev=False,  # no --token that would be a file's name
        help="serve a log of runs over HTTP, with a page to watch them",
        description=_ABOUT_SERVE,
        epilog=_AFTER_SERVE,
    )
    serve.set_defaults(run=_serve)
    serve.add_argument("--log", metavar="FILE", required=True, help="the log, of a SqliteStore")
    serve.add_argument("--host", default="127.0.0.1", help="where to listen (%(default)s)")
    serve.add_argument("--port", type=_port, default=8000, help="0 for any (%(default)s)")
    serve.add_argument("--token-file", metavar="FILE", help="holds the token")
    serve.add_argument(
        "--name", metavar="NAME", action="append", default=[], help="a Host to answer to"
    )
    return parser


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return int(text)


def _serve(given: Any) -> int:
    try:
        from agentstream.web import serve  # noqa: PLC0415 - the extra may be missing
        from agentstream.web.app import create_app  # noqa: PLC0415
    except ImportError as error:
        missing = f"{error.name} is missing: pip install 'agentstream[server]'"
        return _say(missing, _FAILED)
    from agentstream.events.sqlite import SqliteStore  # noqa: PLC0415

    token = _token(given.token_file)
    if token is None and not serve.is_loopback(given.host):
        raise ConfigError(
            f"without a token it listens on loopback only, not on {given.host}: "
            f"use --token-file, or set {_TOKEN}"
        )
    sock = serve.listen(given.host, given.port)
    try:
        app = create_app(SqliteStore(given.log), token, hosts=_hosts(given.host, given.name))
    except BaseException:
        sock.close()
        raise
    sys.setswitchinterval(serve.SWITCH_S)
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()  # a handler may put there at any time
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: _stop(signals, number))
    with serve.Server(app, sock) as server:
        print(f"{given.log} is served at {server.url}", flush=True)
        signals.get()
    return 0


def _stop(signals: queue.SimpleQueue[int], number: int) -> None:
    signals.put(number)
    signal.signal(number, signal.SIG_DFL)  # the second time it is meant at once


def _token(path: Optional[str]) -> Optional[str]:
    if path is None:
        return os.environ.get(_TOKEN) or None
    try:
        with open(path, encoding="utf-8") as file:
            token = file.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token file {path} cannot be read: {error}") from None
    if not token:
        raise ConfigError(f"the token file {path} is empty")
    return token


def _hosts(host: str, names: List[str]) -> List[str]:
    """The Host names to answer to: what it listens at; of all addresses, any address."""
    return [*names, "0.0.0.0" if host in ("", "::", "0.0.0.0") else host]
