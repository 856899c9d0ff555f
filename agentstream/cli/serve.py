"""agentstream serve: a log of runs over HTTP, live, with a page to watch them on."""

from __future__ import annotations

import queue
import signal
import sys
from typing import Any, List

from agentstream.cli.endings import DONE, FAILED, say
from agentstream.cli.settings import setting, token
from agentstream.errors import ConfigError

__all__ = ["serve"]


def serve(given: Any) -> int:
    """Serve until a signal ends it; returns the exit code."""
    try:
        from agentstream.web import serve  # noqa: PLC0415 - the extra may be missing
        from agentstream.web.app import create_app  # noqa: PLC0415
    except ImportError as error:
        say(f"{error.name} is missing: pip install 'agentstream[server]'")
        return FAILED
    from agentstream.events.sqlite import SqliteStore  # noqa: PLC0415

    secret = token(given.token_file)
    if secret is None and not serve.is_loopback(given.host):
        raise ConfigError(
            f"without a token it listens on loopback only, not on {given.host}: "
            "use --token-file, or set AGENTSTREAM_TOKEN"
        )
    log = setting(given, "log")
    if log is None:
        raise ConfigError("which log? use --log FILE, or set AGENTSTREAM_LOG")
    sock = serve.listen(given.host, given.port)
    try:
        app = create_app(SqliteStore(log), secret, hosts=_hosts(given.host, given.name))
    except BaseException:
        sock.close()
        raise
    sys.setswitchinterval(serve.SWITCH_S)
    # To be stopped is how a server ends: by its own handlers, with 0.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()  # a handler may put there at any time
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: _stop(signals, number))
    with serve.Server(app, sock) as server:
        print(f"{log} is served at {server.url}", flush=True)
        signals.get()
    return DONE


def _stop(signals: queue.SimpleQueue[int], number: int) -> None:
    signals.put(number)
    signal.signal(number, signal.SIG_DFL)  # the second time it is meant at once


def _hosts(host: str, names: List[str]) -> List[str]:
    """The Host names to answer to: what it listens at; of all addresses, any address."""
    return [*names, "0.0.0.0" if host in ("", "::", "0.0.0.0") else host]
