"""Link: what ties one attempt to its socket, and the connection classes that hand it over.

Through urllib3's own extension points: `pool_classes_by_scheme`, `ConnectionCls`.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import select
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Tuple

from requests.adapters import HTTPAdapter
from requests.models import PreparedRequest
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from agentstream import threads
from agentstream.cancel import CancelToken
from agentstream.llm.transport.response import StreamResponse

if TYPE_CHECKING:
    from urllib3.poolmanager import PoolManager

__all__ = ["Adapter", "Link", "current", "is_address"]

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
        self, stop: CancelToken, connect_until: float, on_connected: Callable[[], object]
    ) -> None:
        self.stop = stop
        self.connect_until = connect_until
        #: A connection that had served before is used again.
        self.reused = False
        #: "connect", "tls" or "headers".
        self.phase = "connect"
        #: The request may have reached the server.
        self.sent = False
        #: Bytes of an answer have come, though not a whole status line.
        self.answered = False
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

    def connect(self, connection: HTTPConnection) -> socket.socket:
        """A new socket to a connection's host (or its proxy), attached before it connects.

        `connect_until` bounds all addresses together.  Each gets an even share
        of the time left, or two seconds where half of it is as much, so that
        one dead address does not use up the others' chance.
        """
        self._connection = connection
        connection._link = self  # type: ignore[attr-defined]
        host, port = connection._dns_host, connection.port
        addresses = self._resolve(host, port)
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
            if _is_decided(sock, min(left, 0.02)):
                problem = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if problem:
            raise OSError(problem, os.strerror(problem))
        if self.stop.cancelled:  # `sever` may have come too early to shut anything
            raise socket.timeout("stopped")

    def _resolve(self, host: str, port: int) -> List[Tuple[Any, ...]]:
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


class _Linked:
    """What both connection classes add: their socket belongs to the thread's current link."""

    def _new_conn(self: Any) -> socket.socket:
        link = current.link
        if link is None:  # a connection that somebody else's code opens through our session
            sock: socket.socket = super()._new_conn()  # type: ignore[misc]
            return sock
        return link.connect(self)

    def request(self: Any, *args: Any, **kwargs: Any) -> None:
        link = current.link
        if link is not None:
            if self.sock is None:
                self.connect()  # here rather than inside, so that the clocks know
            link.serving(self)
            link.sent = True
        super().request(*args, **kwargs)  # type: ignore[misc]


class _Releasing:
    """What both pools add: a connection comes back without the link of the call it served.

    urllib3 takes it back as soon as the body has been read to its end, which
    may be long before the call is over: a cancel must not find it there.
    """

    def _put_conn(self: Any, conn: Any) -> None:
        link = None if conn is None else conn.__dict__.pop("_link", None)
        if link is not None and not link.release():
            conn.close()
        super()._put_conn(conn)  # type: ignore[misc]


class _Connection(_Linked, HTTPConnection):
    pass


class _TLSConnection(_Linked, HTTPSConnection):
    def connect(self) -> None:
        try:
            super().connect()
        except BaseException as error:
            # A socket that was reset just before its handshake, by `sever` for
            # one, is left open by ssl: only the traceback still knows of it.
            trace = error.__traceback__
            while trace is not None:
                left = trace.tb_frame.f_locals.get("self")
                if isinstance(left, ssl.SSLSocket):
                    left.close()
                trace = trace.tb_next
            raise


class _Pool(_Releasing, HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(_Releasing, HTTPSConnectionPool):
    ConnectionCls = _TLSConnection

    def _validate_conn(self, conn: Any) -> None:
        # As urllib3's, without its warning on every request: insecure() has warned, once.
        if conn.is_closed:
            conn.connect()


class Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)  # type: ignore[no-untyped-call,unused-ignore]
        _use_our_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        manager = super().proxy_manager_for(  # type: ignore[no-untyped-call,unused-ignore]
            proxy, **proxy_kwargs
        )
        if not proxy.lower().startswith("socks"):
            _use_our_pools(manager)
        return manager

    def close_pools(self) -> None:
        """Close every pool with its idle connections."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - it cannot be iterated
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()

    def build_response(self, req: PreparedRequest, resp: Any) -> StreamResponse:
        base = super().build_response(req, resp)
        response = StreamResponse()
        response.__dict__.update(base.__dict__)
        return response


def _use_our_pools(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}


def _is_decided(sock: socket.socket, seconds: float) -> bool:
    """True once a connect under way has come to an end, good or bad; False after `seconds`."""
    if hasattr(select, "poll"):  # select() cannot take descriptors above 1023
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        return bool(poll.poll(seconds * 1000))
    return any(select.select([], [sock], [sock], seconds)[1:])


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    return True
