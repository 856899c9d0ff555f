"""Link: what ties one attempt to its socket, and the connection classes that hand it over.

Through urllib3's own extension points: `pool_classes_by_scheme`, `ConnectionCls`.
"""

from __future__ import annotations

import ipaddress
import socket
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
        self._on_connected = on_connected
        self._duplicates: List[socket.socket] = []
        self._connection: Optional[HTTPConnection] = None
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
        """Let go of the socket.  True if it was not, and now cannot be, shut by `sever`."""
        intact = self._drop()
        return self.stop.remove_callback(self._key) and intact

    def _drop(self) -> bool:
        try:
            self._duplicates.pop().close()
        except IndexError:
            return False
        return True

    def serving(self, connection: HTTPConnection) -> None:
        """The connection that will carry the request stands."""
        if self._connection is not connection:
            self._connection = connection
            self.reused = True
            connection.sock.settimeout(None)
            self.attach(connection.sock)
        self.phase = "headers"
        self._on_connected()

    def connect(self, connection: HTTPConnection) -> socket.socket:
        """A new socket to a connection's host (or its proxy), attached before it connects.

        `connect_until` bounds all addresses together.  Each gets an even share
        of the time left, but two seconds if there are as many, so that one dead
        address does not use up the others' chance.
        """
        self._connection = connection
        host, port = connection._dns_host, connection.port
        addresses = self._resolve(host, port)
        problem: Optional[OSError] = None
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            left = self.connect_until - time.monotonic()
            if left <= 0 or self.stop.cancelled:
                break
            share = max(left / (len(addresses) - number), min(2.0, left))
            sock: Optional[socket.socket] = None
            try:
                sock = socket.socket(family, kind, protocol)
                self.attach(sock)
                for option in connection.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(None if share == threads.NEVER else share)
                sock.connect(address)
                sock.settimeout(None)  # from here on the clocks watch, not the socket
            except OSError as error:
                problem = error
                self._drop()
                if sock is not None:
                    sock.close()
                continue
            self.phase = "tls"
            return sock
        if problem is None:
            raise socket.timeout("timed out before an address was tried")
        raise problem

    def _resolve(self, host: str, port: int) -> List[Tuple[Any, ...]]:
        def lookup() -> List[Tuple[Any, ...]]:
            return list(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM))

        if is_address(host):
            return lookup()  # nothing to ask anybody for
        return threads.abandonable("resolve", lookup, self.stop)


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


class _Connection(_Linked, HTTPConnection):
    pass


class _TLSConnection(_Linked, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
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

    def build_response(self, req: PreparedRequest, resp: Any) -> StreamResponse:
        base = super().build_response(req, resp)
        response = StreamResponse()
        response.__dict__.update(base.__dict__)
        return response


def _use_our_pools(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    return True
