"""Lets any thread write the streams of gunicorn's `gthread` workers: see pushing.py.

gunicorn gives an app the connection's socket, and writes to it in the request's thread.  Here
the same bytes are sent without waiting; what the socket does not take at once, the stream's own
thread sends when it has its stream back.
"""

from __future__ import annotations

import socket
from typing import Any, Callable, Optional

from agentstream.web.pushing import KEY

__all__ = ["SocketPush", "with_push"]

_SOCKET = "gunicorn.socket"  # what websocket libraries take, too
_AT_ONCE: int = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)


def with_push(environ: Any, start_response: Callable[..., Any]) -> Callable[..., Any]:
    """`start_response` for a request, which has a `Push` from here on where there can be one."""
    sock = environ.get(_SOCKET)
    # No TLS, and none of gevent's or eventlet's, which wait in ways of their own.
    if KEY in environ or type(sock) is not socket.socket or sock.__class__.__module__ != "socket":
        return start_response
    push = environ[KEY] = SocketPush(sock)

    def start(*arguments: Any) -> Any:
        write = start_response(*arguments)
        push.begin(getattr(write, "__self__", None))
        return write

    return start


class SocketPush:
    """Writes parts of a chunked answer, or of one that ends with the connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._answer: Any = None
        self._rest = b""

    def begin(self, answer: Optional[Any]) -> None:
        """The answer has its headers; whose `write` it is, if gunicorn's own."""
        kind = type(answer)
        if (kind.__module__, kind.__name__) == ("gunicorn.http.wsgi", "Response"):
            self._answer = answer if getattr(answer, "sock", None) is self._socket else None

    def is_direct(self, size: int) -> bool:
        """See `Push`."""
        return getattr(self._answer, "sent", None) == size

    def has_room(self) -> bool:
        """See `Push`."""
        return not self._rest and getattr(self._answer, "headers_sent", False) is True

    def write(self, data: bytes) -> None:
        """See `Push`.

        Raises:
            OSError: the client is gone.
        """
        if self._answer.chunked:
            data = b"%X\r\n%b\r\n" % (len(data), data)
        try:
            sent = self._socket.send(data, _AT_ONCE)
        except BlockingIOError:
            sent = 0
        self._rest = data[sent:]

    def settle(self) -> None:
        """See `Push`; waits for the client."""
        rest, self._rest = self._rest, b""
        if rest:
            self._socket.sendall(rest)
