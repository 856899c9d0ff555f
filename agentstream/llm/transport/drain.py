"""The end of a whole answer: its connection is made fit for the next request, or closed."""

from __future__ import annotations

import socket
import ssl
import time

from agentstream import threads
from agentstream.llm.transport.body import READ
from agentstream.llm.transport.link import Link
from agentstream.llm.transport.poll import readable
from agentstream.llm.transport.problems import LOW_LEVEL
from agentstream.llm.transport.response import StreamResponse

__all__ = ["drain"]


def drain(response: StreamResponse, link: Link) -> None:
    """End a whole answer: leave its connection fit for the next request, or close it.

    What a server sends after `[DONE]` is at most the end of the body.  If that
    is not here within a millisecond, a thread waits for it, 100 ms and 64 KiB
    at the most, and the caller goes on.
    """
    if not link.release():
        response.close()
        return
    connection = getattr(response.raw, "connection", None)
    sock = getattr(connection, "sock", None)
    if sock is None or _body_is_over(response):
        response.close()  # gives the connection back, or there is none to give
        return
    if _something_there(response, sock, 0.001):
        _drain(response, sock)
        return
    try:
        threads.start_thread("drain", _drain_later, response, sock)
    except RuntimeError:
        response.close()


def _drain_later(response: StreamResponse, sock: socket.socket) -> None:
    if _something_there(response, sock, 0.1):
        _drain(response, sock)
    else:
        response.close()


def _drain(response: StreamResponse, sock: socket.socket) -> None:
    until = time.monotonic() + 0.1
    left = READ
    try:
        while left > 0:
            sock.settimeout(max(until - time.monotonic(), 0.001))
            data = response.read_body() if response.read_body is not None else b""
            if not data:
                break
            left -= len(data)
    except LOW_LEVEL:
        pass
    response.close()  # closes what is not over; of what is, urllib3 has the connection back


def _body_is_over(response: StreamResponse) -> bool:
    body = getattr(response.raw, "_fp", None)
    return body is None or bool(getattr(body, "isclosed", lambda: True)())


def _something_there(response: StreamResponse, sock: socket.socket, seconds: float) -> bool:
    """True if bytes of the response can be read without blocking, now or within `seconds`."""
    reader = getattr(getattr(response.raw, "_fp", None), "fp", None)
    if reader is None:
        return False
    try:
        sock.settimeout(0)
        for wait in (0.0, seconds):
            if wait and not readable(sock, wait):
                return False
            try:
                if reader.peek(1):
                    return True
            except (ssl.SSLWantReadError, BlockingIOError):
                continue
    except LOW_LEVEL:
        pass
    return False
