"""agentstream serve: a log of runs over HTTP, live, with a page to watch them on."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, List

from agentstream.cli.exits import DONE, FAILED
from agentstream.cli.output import Output, say
from agentstream.cli.settings import log_of, token
from agentstream.cli.signals import next_stop, stops
from agentstream.errors import ConfigError

if TYPE_CHECKING:
    import argparse

__all__ = ["serve"]


def serve(given: argparse.Namespace) -> int:
    """Serve until a signal ends it; returns the exit code."""
    try:
        from agentstream.web import server  # noqa: PLC0415 - the extra may be missing
        from agentstream.web.app import create_app  # noqa: PLC0415
        from agentstream.web.auth import origin_of  # noqa: PLC0415
    except ImportError as error:
        say(f"{error.name} is missing: pip install 'agentstream[server]'")
        return FAILED
    from agentstream.events.sqlite import SqliteStore  # noqa: PLC0415

    secret = token(given.token_file)
    if secret is None and not server.is_loopback(given.host):
        raise ConfigError(
            f"without a token it listens on loopback only, not on {given.host}: "
            "use --token-file, or set AGENTSTREAM_TOKEN"
        )
    origins = [origin_of(text) for text in given.origin]
    log = log_of(given, new=True)
    is_new = not os.path.exists(log)
    try:
        sock = server.listen(given.host, given.port)
    except OSError as error:
        raise OSError(f"cannot listen at {given.host}:{given.port}: {error.strerror}") from None
    try:
        app = create_app(
            SqliteStore(log), secret, hosts=_hosts(given.host, given.name), origins=origins
        )
    except BaseException:
        sock.close()
        raise
    sys.setswitchinterval(server.SWITCH_S)
    with stops() as signals, server.Server(app, sock) as serving:
        Output(sys.stdout).write(f"{log}{', a new log,' * is_new} is served at {serving.url}\n")
        next_stop(signals)
    return DONE


def _hosts(host: str, names: List[str]) -> List[str]:
    """The Host names to answer to: what it listens at; of all addresses, any address."""
    return [*names, "0.0.0.0" if host in ("", "::", "0.0.0.0") else host]
