"""Adapter: the connections, pools and responses of a session.

Through the extension points of both libraries: `HTTPAdapter.build_response`,
urllib3's `pool_classes_by_scheme` and `ConnectionCls`.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any, Dict, Optional

from requests.adapters import HTTPAdapter
from requests.models import PreparedRequest
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from agentstream import threads
from agentstream.cancel import CancelToken
from agentstream.llm.transport.head import HTTPResponse, Unasked
from agentstream.llm.transport.link import Link, current
from agentstream.llm.transport.poll import readable
from agentstream.llm.transport.response import StreamResponse
from agentstream.text import strip_controls

if TYPE_CHECKING:
    from urllib3.poolmanager import PoolManager

__all__ = ["Adapter"]


class _Linked:
    """What both connection classes add: their socket belongs to the thread's current link."""

    response_class: type = HTTPResponse

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
            if link.reused and readable(self.sock, 0):
                raise Unasked  # they came since the pool looked
            link.sent = True
        super().request(*args, **kwargs)  # type: ignore[misc]


class _BySocks:
    """What both connection classes add where a SOCKS proxy stands between."""

    def __init__(self, *args: Any, _socks_options: Dict[str, Any], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._socks_options = _socks_options

    def _new_conn(self: Any) -> socket.socket:
        link: Optional[Link] = current.link
        if link is not None:
            return link.connect_by_socks(self, self._socks_options)
        link = Link(CancelToken(), threads.NEVER, lambda: None)  # as in _Linked
        try:
            return link.connect_by_socks(self, self._socks_options)
        finally:
            link.release()


class _LinkedPool:
    """What both pools add: a connection has the link of the call it serves, of no other."""

    def _get_conn(self, timeout: Any = None) -> Any:
        conn = super()._get_conn(timeout)  # type: ignore[misc]
        if current.link is not None and current.link.fresh:
            conn.close()  # it will connect anew
        return conn

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


class _Pool(_LinkedPool, HTTPConnectionPool):
    ConnectionCls: type = _Connection


class _TLSPool(_LinkedPool, HTTPSConnectionPool):
    ConnectionCls: type = _TLSConnection

    def _validate_conn(self, conn: Any) -> None:
        # As urllib3's, without its warning on every request: insecure() has warned, once.
        if conn.is_closed:
            conn.connect()


class _SocksConnection(_BySocks, _Connection):
    pass


class _SocksTLSConnection(_BySocks, _TLSConnection):
    pass


class _SocksPool(_Pool):
    ConnectionCls = _SocksConnection


class _SocksTLSPool(_TLSPool):
    ConnectionCls = _SocksTLSConnection


class Adapter(HTTPAdapter):
    """requests' adapter over these pools; its responses are StreamResponses.

    Args:
        context: what TLS is spoken with, in place of any `verify`; None for requests' own.
        size: connections that a pool keeps.
    """

    def __init__(self, context: Optional[ssl.SSLContext], size: int) -> None:
        self._context = context
        super().__init__(pool_connections=2, pool_maxsize=size)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)  # type: ignore[no-untyped-call,unused-ignore]
        _use_our_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        manager = super().proxy_manager_for(  # type: ignore[no-untyped-call,unused-ignore]
            proxy, **proxy_kwargs
        )
        if proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = {"http": _SocksPool, "https": _SocksTLSPool}
        else:
            _use_our_pools(manager)
        return manager

    def build_connection_pool_key_attributes(
        self, request: PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        if self._context is not None:
            given = {"cert_file": pool.get("cert_file"), "key_file": pool.get("key_file")}
            pool = {"ssl_context": self._context, **given}  # type: ignore[typeddict-item]
        return host, pool

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        if self._context is None:
            super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call,unused-ignore]

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
        headers = {name: _shown(value) for name, value in base.headers.items()}
        response.headers = CaseInsensitiveDict(headers)
        return response


def _shown(value: str) -> str:
    """A header's value as an error may show it: one line, without control characters."""
    return " ".join(strip_controls(value).split()) if not value.isprintable() else value


def _use_our_pools(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
