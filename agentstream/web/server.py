"""Serving the app with waitress: its socket, its threads, and how it stops.

Needs the extra `server`.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import socket
import threading
import time
from typing import Any, Iterable, List, Optional, Tuple

import waitress.server
from waitress import wasyncore

from agentstream import threads
from agentstream.errors import ConfigError
from agentstream.web.app import App
from agentstream.web.pushing import KEY

__all__ = ["CUT_S", "SWITCH_S", "Server", "is_loopback", "listen"]

logger = logging.getLogger("agentstream.web")

#: Seconds after which a client that stopped reading is cut.
CUT_S = 8.0
#: For `sys.setswitchinterval` in a process that does nothing but serve: hundreds of
#: threads that wait for the interpreter each wake once in that time (5 ms by default),
#: which costs more than what they have to send.
SWITCH_S = 0.02
#: Threads beyond those of the streams, for everything else.
_MORE_THREADS = 8
#: Bytes that wait for a slow client before its stream waits as well.
_MOST_WAITING = 256 * 1024
_MOST_BODY = 2**21
_LOOK_S = 1.0
#: Seconds that a connection may stay without a whole request, and between looks for such.
_IDLE_S = 15
_CLEANUP_S = 5
#: Out of descriptors: seconds until the next try to take a connection.
_EXHAUSTED_S = 0.5
#: ... and until it is said again.
_SILENT_S = 60.0
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_MOST_ACCEPTED = 64


def is_loopback(host: str) -> bool:
    """True if all of a host's addresses are this machine's own.

    Raises:
        ConfigError: the name cannot be resolved.
    """
    return all(ipaddress.ip_address(address[0]).is_loopback for _, address in _addresses(host, 0))


def _addresses(host: str, port: int) -> List[Tuple[int, Tuple[str, int]]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ConfigError(f"there is no address for the host {host!r}") from None
    # "localhost" as IPv4 first: that is what most clients try, too.
    found.sort(key=lambda info: info[0] != socket.AF_INET)
    return [(info[0], info[4]) for info in found]  # type: ignore[misc]


def listen(host: str, port: int, *, cut_after: float = CUT_S) -> socket.socket:
    """A socket that listens there; on Linux its clients are cut when they stop reading.

    Args:
        cut_after: seconds that what was sent to a client may stay untaken.

    Raises:
        ConfigError: there is no such address.
        OSError: it cannot be listened to.
    """
    family, address = _addresses(host, port)[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        option: Optional[int] = getattr(socket, "TCP_USER_TIMEOUT", None)
        if option is not None:  # the accepted sockets inherit it
            sock.setsockopt(socket.IPPROTO_TCP, option, int(cut_after * 1000))
        sock.bind(address)
        sock.listen(1024)
    except BaseException:
        sock.close()
        raise
    return sock


class _TaskPush:
    """Writes parts of waitress's answer to a request, after its headers."""

    def __init__(self) -> None:
        self._task: Any = None

    def begin(self, task: Any) -> None:
        """It has been told the status and the headers."""
        self._task = task

    def is_direct(self, size: int) -> bool:
        """True: there is no middleware here."""
        return True

    def has_room(self) -> bool:
        """True while a write waits for nobody: waitress's own waits above that mark."""
        task = self._task
        return bool(task.wrote_header and task.channel.total_outbufs_len <= _MOST_WAITING)

    def write(self, data: bytes) -> None:
        """Send it at once; what the socket does not take, waitress sends when it can.

        Not by waitress's buffer, where its loop would see it and look at all connections.

        Raises:
            ClientDisconnected: the client is gone.
        """
        channel = self._task.channel
        if self._task.chunked_response:
            data = b"%X\r\n%b\r\n" % (len(data), data)
        with channel.outbuf_lock:
            sent = 0
            if channel.connected and not channel.total_outbufs_len:
                sent = channel.send(data, do_close=False)
            if sent < len(data):
                channel.write_soon(data[sent:])

    def settle(self) -> None:
        """Nothing: waitress sends by itself what is left over."""


class Server:
    """The app on a socket; a context manager that serves while it lasts.

    Args:
        app: from `create_app`.
        sock: from `listen`; closed with the server.
        grace: seconds that a stop may take.

    Attributes:
        url: where it is, with the port it got.
    """

    def __init__(self, app: App, sock: socket.socket, *, grace: float = 5.0) -> None:
        self._app = app
        self._grace = threads.bounded(grace)
        self._stopping = False
        self._stopped = False
        host, port = sock.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._server = waitress.server.create_server(
            self._answer,
            sockets=[sock],
            threads=app.max_streams + _MORE_THREADS,
            connection_limit=app.max_streams + 500,
            backlog=1024,
            ident="agentstream",
            asyncore_use_poll=True,
            asyncore_loop_timeout=_LOOK_S,
            outbuf_high_watermark=_MOST_WAITING,
            channel_timeout=_IDLE_S,
            cleanup_interval=_CLEANUP_S,
            max_request_body_size=_MOST_BODY,
            clear_untrusted_proxy_headers=True,
        )
        self._accept_one = self._server.handle_accept
        self._server.handle_accept = self._accept
        self._take = self._server.accept
        self._server.accept = self._take_or_wait
        self._is_readable = self._server.readable
        self._server.readable = self._readable
        self._exhausted_until = 0.0
        self._silent_until = 0.0  # it has been said lately
        self._thread: Optional[threading.Thread] = None

    def _accept(self) -> None:
        # Waitress takes one connection and then looks at all it has: of a thousand that
        # come back at once, each would wait for the others' thousand looks.
        known = self._server._map
        for _ in range(_MOST_ACCEPTED):
            before = len(known)
            self._accept_one()
            if len(known) == before or before >= self._server.adj.connection_limit:
                return

    def _take_or_wait(self) -> Any:
        # The socket stays readable while there is no descriptor to take a connection with:
        # the loop would spin, and write a traceback at each turn.
        try:
            taken = self._take()
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            self._exhausted_until = time.monotonic() + _EXHAUSTED_S
            if time.monotonic() >= self._silent_until:
                self._silent_until = time.monotonic() + _SILENT_S
                logger.error("no connection can be taken: %s; trying again", error.strerror)
            return None
        return taken

    def _readable(self) -> bool:
        return bool(self._is_readable()) and time.monotonic() >= self._exhausted_until

    def _answer(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        """The app's answer; it may be written by another thread than the request's own."""
        push = environ[KEY] = _TaskPush()

        def start(*arguments: Any) -> Any:
            write = start_response(*arguments)
            push.begin(write.__self__)
            return write

        return self._app(environ, start)

    def start(self) -> Server:
        """Serve, in a thread; returns at once."""
        self._thread = threads.start_thread("serve", self._main)
        return self

    def _main(self) -> None:
        while not self._stopping:
            wasyncore.loop(timeout=_LOOK_S, map=self._server._map, use_poll=True, count=1)

    def stop(self) -> bool:
        """End the streams, told to come back, then all else, within the grace.  Idempotent.

        Returns True if nothing had to be cut off.
        """
        if self._stopped:
            return True
        self._stopped = True
        until = time.monotonic() + self._grace
        over = self._app.close(wait=self._grace)
        pause = threading.Event()
        while over and self._is_sending() and time.monotonic() < until:
            pause.wait(0.01)
        self._stopping = True
        with contextlib.suppress(OSError):
            self._server.pull_trigger()
        if self._thread is not None:
            self._thread.join(_LOOK_S + 1.0)
        for channel in list(self._server.active_channels.values()):
            channel.handle_close()  # wakes the thread that waits to send more
        self._server.task_dispatcher.shutdown(timeout=max(0.2, until - time.monotonic()))
        # After the threads: what wakes the loop they write to by number, closed or not.
        wasyncore.close_all(self._server._map, ignore_all=True)
        return over

    def _is_sending(self) -> bool:
        channels = list(self._server.active_channels.values())
        return any(channel.requests or channel.total_outbufs_len for channel in channels)

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
