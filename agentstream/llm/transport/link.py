"""Link: what ties one request to its socket, so that another thread can shut it."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, List, Mapping, Optional, Tuple

from agentstream import threads
from agentstream.cancel import CancelToken
from agentstream.llm.transport.poll import writable
from agentstream.llm.transport.socks import proxy_of, request_connection
from agentstream.llm.transport.urls import is_address

if TYPE_CHECKING:
    from urllib3.connection import HTTPConnection

__all__ = ["Link", "current"]

#: What a non-blocking connect says before it is done.
_UNDER_WAY = {errno.EINPROGRESS, errno.EALREADY, errno.EWOULDBLOCK}


class Link:
    """What ties one attempt to its socket, and lets other threads cut the tie.

    `sever` shuts the socket down wherever the attempt is: in connect, in the
    TLS handshake, before the headers, in the body.  It works on a duplicate of
    the descriptor, so it can hit no socket but this one, and taking the
    duplicate out of the list is atomic: whoever takes it, uses it.
    """

    def __init__(
        self,
        stop: CancelToken,
        connect_until: float,
        on_connected: Callable[[], object],
        *,
        fresh: bool = False,
    ) -> None:
        self.stop = stop
        #: No connection that has served before will do.
        self.fresh = fresh
        self.connect_until = connect_until
        #: A connection that had served before is used again.
        self.reused = False
        #: "connect", "tls" or "headers".
        self.phase = "connect"
        #: The request may have reached the server.
        self.sent = False
        #: Bytes of an answer have come, though not a whole head.
        self.answered = False
        #: What has come answers no request of ours.
        self.foreign = False
        self._on_connected = on_connected
        self._duplicates: List[socket.socket] = []
        self._connection: Optional[HTTPConnection] = None
        self._severed = False
        self._intact = False
        self._key = stop.add_callback(self.sever)

    def attach(self, sock: socket.socket) -> None:
        """Take hold of the attempt's socket."""
        self._drop()
        descriptor = socket.dup(sock.fileno())
        self._duplicates.append(
            socket.socket(sock.family, sock.type, sock.proto, fileno=descriptor)
        )
        if self.stop.cancelled:  # too early for `sever` to find it
            self.sever()

    def sever(self) -> None:
        """Shut the socket down, both ways; the reading thread will close it."""
        self._severed = True
        while self._duplicates:
            try:
                duplicate = self._duplicates.pop()
            except IndexError:  # the reading thread was quicker
                return
            try:
                duplicate.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # not connected yet, or the other end was quicker
            duplicate.close()

    def release(self) -> bool:
        """Let go of the socket.  Idempotent.

        True if it was not, and now cannot be, shut by `sever`.
        """
        if self.stop.remove_callback(self._key) and not self._severed:
            self._intact = True
        self._drop()
        self._connection = None  # it holds this link: no cycle is left to the collector
        return self._intact

    def _drop(self) -> None:
        try:
            self._duplicates.pop().close()
        except IndexError:
            pass

    def serving(self, connection: HTTPConnection) -> None:
        """The connection that will carry the request stands."""
        if self._connection is not connection:
            self._connection = connection
            connection._link = self  # type: ignore[attr-defined]
            self.reused = True
            connection.sock.settimeout(None)
            self.attach(connection.sock)
        self.phase = "headers"
        self._on_connected()

    def connect(
        self, connection: HTTPConnection, place: Optional[Tuple[str, int]] = None
    ) -> socket.socket:
        """A new socket to a connection's host (or to `place`), attached before it connects.

        `connect_until` bounds all addresses together.  Each gets an even share
        of the time left, or two seconds where half of it is as much, so that
        one dead address does not use up the others' chance.
        """
        self._connection = connection
        connection._link = self  # type: ignore[attr-defined]
        addresses = self.resolve(*(place or (connection._dns_host, connection.port)))
        problem: Optional[OSError] = None
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            left = self.connect_until - time.monotonic()
            if left <= 0 or self.stop.cancelled:
                break
            share = max(left / (len(addresses) - number), min(2.0, left / 2))
            sock: Optional[socket.socket] = None
            try:
                sock = socket.socket(family, kind, protocol)
                self.attach(sock)
                for option in connection.socket_options or ():
                    sock.setsockopt(*option)
                self._establish(sock, address, time.monotonic() + share)
                sock.settimeout(None)  # from here on the clocks watch, not the socket
            except OSError as error:
                problem = error
                self._drop()
                if sock is not None:
                    sock.close()
                continue
            self.phase = "tls"
            return sock
        if time.monotonic() >= self.connect_until - 0.01:
            # The socket's timeout was quicker than the clock, which has the last word.
            self.stop.wait(1.0)
        if problem is None:
            raise socket.timeout("timed out before an address was tried")
        raise problem

    def _establish(self, sock: socket.socket, address: Any, until: float) -> None:
        # Not sock.connect(): a `sever` that came just before it would find nothing
        # to shut, and nothing would wake it.  Begun first and looked at afterwards,
        # the connect is either shut by `sever` or not waited for.
        sock.setblocking(False)
        problem = sock.connect_ex(address)
        while problem in _UNDER_WAY:
            left = until - time.monotonic()
            if left <= 0 or self.stop.cancelled:
                raise socket.timeout("timed out")
            # In slices, for systems where a shutdown does not wake a connect.
            if writable(sock, min(left, 0.02)):
                problem = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if problem:
            raise OSError(problem, os.strerror(problem))
        if self.stop.cancelled:  # `sever` may have come too early to shut anything
            raise socket.timeout("stopped")

    def connect_by_socks(
        self, connection: HTTPConnection, options: Mapping[str, Any]
    ) -> socket.socket:
        """A new socket that a SOCKS proxy has connected to a connection's host."""
        sock = self.connect(connection, proxy_of(options))
        self.phase = "connect"
        try:
            host, port = connection._dns_host, connection.port
            request_connection(sock, options, host, port, self.resolve)
        except BaseException:
            self._drop()
            sock.close()
            raise
        self.phase = "tls"
        return sock

    def resolve(self, host: str, port: int) -> List[Tuple[Any, ...]]:
        """The addresses of a host, as `socket.getaddrinfo` gives them; `stop` ends the wait."""

        def lookup() -> List[Tuple[Any, ...]]:
            return list(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM))

        if is_address(host):
            return lookup()  # nothing to ask anybody for
        try:
            return threads.abandonable("resolve", lookup, self.stop)
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, f"no thread to look the name up in ({error})") from None


class _Current(threading.local):
    """The link of the attempt that this thread is making."""

    link: Optional[Link] = None


current = _Current()
