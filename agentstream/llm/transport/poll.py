"""What a socket has to say, without reading from it; whatever the number of its descriptor."""

from __future__ import annotations

import io
import select
import socket
import ssl
from typing import Optional

__all__ = ["has_bytes", "readable", "writable"]


def has_bytes(reader: io.BufferedReader, sock: socket.socket) -> Optional[bool]:
    """True if `reader`, which reads from `sock`, gives a byte at once; None at the end.

    Looks into its buffer, the records that TLS has opened, and the socket.
    Leaves `sock` non-blocking.

    Raises:
        OSError: the connection is broken.
    """
    sock.settimeout(0)
    try:
        if reader.peek(1):
            return True
        # No byte: of a plain socket that may say "not yet" as well as "never more", and
        # what came since is told from the end by a second look.
        if not isinstance(sock, ssl.SSLSocket) and not readable(sock, 0):
            return False
        return True if reader.peek(1) else None
    except (ssl.SSLWantReadError, BlockingIOError):
        return False


def readable(sock: socket.socket, seconds: float) -> bool:
    """True once `sock` has bytes, an end or an error; False after `seconds`."""
    if hasattr(select, "poll"):  # select() cannot take descriptors above 1023
        return _poll(sock, select.POLLIN, seconds)
    return bool(select.select([sock], [], [], seconds)[0])


def writable(sock: socket.socket, seconds: float) -> bool:
    """True once `sock` takes bytes, or its connect has failed; False after `seconds`."""
    if hasattr(select, "poll"):
        return _poll(sock, select.POLLOUT, seconds)
    return any(select.select([], [sock], [sock], seconds)[1:])


def _poll(sock: socket.socket, events: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(sock, events)
    return bool(poll.poll(seconds * 1000))
