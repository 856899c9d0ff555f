"""The wait for one socket, whatever the number of its descriptor."""

from __future__ import annotations

import select
import socket

__all__ = ["readable", "writable"]


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
