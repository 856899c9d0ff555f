"""One accepted connection: bytes out, a request in, and the three ways to end it.

Knows sockets and TLS; knows neither scripts nor replies.  A wait here ends at once
when the client leaves or the server closes, and says so by raising `ScriptEnded`.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import ssl
import struct
import threading
import time
from typing import List, Optional, Set

from agentstream.testing.request import Request, read_request

__all__ = ["Link", "ScriptEnded", "Signal"]

# Linux tells of a client's FIN even while bytes of it lie unread before the FIN.
_HANGUP = getattr(select, "POLLRDHUP", 0)
_LONGEST_S = 2e6  # poll and epoll take milliseconds of 31 bits

_LINGER_0 = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


class ScriptEnded(Exception):
    """The script is over before its end.

    `outcome` is the word for how: "cut" and "reset" are carried out, the rest is
    a client or a server that has gone already.
    """

    def __init__(self, outcome: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Signal:
    """An event that a poll can wait for: once set, readable for ever, to all."""

    def __init__(self) -> None:
        self.is_set = False
        self._reader, self._writer = socket.socketpair()

    def fileno(self) -> int:
        return self._reader.fileno()

    def set(self) -> None:
        if not self.is_set:
            self.is_set = True
            self._writer.send(b"!")  # nobody ever reads it

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


class Link:
    """A connection.  One thread uses it; only `abort` may be called by others."""

    def __init__(self, sock: socket.socket, number: int, closing: Signal) -> None:
        self.id = number
        self._sock = sock
        self._closing = closing
        self._buffer = bytearray()
        # A descriptor must not be shut down by one thread while it is closed by another.
        self._lock = threading.Lock()
        sock.settimeout(None)
        with contextlib.suppress(OSError):  # on some systems, if the client has left already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handshake(self, context: ssl.SSLContext) -> None:
        """Speak TLS from here on."""
        try:
            with self._lock:
                self._check()
                self._sock = context.wrap_socket(
                    self._sock, server_side=True, do_handshake_on_connect=False
                )
            self._sock.do_handshake()
        except OSError:
            raise self._gone("tls_failed") from None

    def read_request(self) -> Optional[Request]:
        """The next request; None if the client leaves without one.  ValueError if it is none."""
        request = read_request(self._fill, self._buffer, self.id)
        self._check()
        return request

    def write(self, data: bytes) -> None:
        """One sendall."""
        try:
            self._sock.sendall(data)
        except OSError:
            raise self._gone("client_gone") from None

    def wait(self, seconds: Optional[float] = None, signal: Optional[Signal] = None) -> bool:
        """Wait for the signal; True if it came, False after `seconds` (None: no bound)."""
        self._check()
        signals = [self._closing] if signal is None else [self._closing, signal]
        ready = _ready(self._sock, signals, seconds)
        self._check()
        if self._sock.fileno() in ready:
            raise ScriptEnded("client_gone")
        return signal is not None and signal.fileno() in ready

    def end(self) -> None:
        """Close as a server does that has said all: close_notify if TLS, then FIN."""
        if isinstance(self._sock, ssl.SSLSocket):
            with contextlib.suppress(OSError, ValueError):
                self._sock.settimeout(0)  # ours goes out; the client's is not waited for
                self._sock.unwrap()
        self.cut()

    def cut(self) -> None:
        """FIN, and nothing before it.  Does nothing when closed already."""
        with self._lock:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._sock, socket.SHUT_WR)
            with contextlib.suppress(OSError):
                # What lies unread would turn the close into a reset, and lose what is under way.
                self._sock.setblocking(False)
                while socket.socket.recv(self._sock, 65536):
                    pass
            self._sock.close()

    def reset(self) -> None:
        """RST."""
        with self._lock:
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
            self._sock.close()

    def abort(self) -> None:
        """End whatever the connection's thread is doing with the socket; from any thread."""
        with self._lock, contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def _fill(self) -> bytes:
        try:
            return self._sock.recv(65536)
        except OSError:
            return b""

    def _check(self) -> None:
        if self._closing.is_set:
            raise ScriptEnded("server_closed")

    def _gone(self, outcome: str) -> ScriptEnded:
        return ScriptEnded("server_closed" if self._closing.is_set else outcome)


def _ready(sock: socket.socket, signals: List[Signal], seconds: Optional[float]) -> Set[int]:
    """The descriptors with news within `seconds`: signals that are set, a client that left."""
    if seconds is not None:
        seconds = min(max(seconds, 0.0), _LONGEST_S)
    if not _HANGUP:
        return _ready_portable(sock, signals, seconds)
    poller = select.poll()
    poller.register(sock, _HANGUP)
    for signal in signals:
        poller.register(signal, select.POLLIN)
    return {fd for fd, _ in poller.poll(None if seconds is None else seconds * 1000)}


def _ready_portable(
    sock: socket.socket, signals: List[Signal], seconds: Optional[float]
) -> Set[int]:
    """The same without POLLRDHUP; blind to a client that sent ahead and then left."""
    end = None if seconds is None else time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        for signal in signals:
            selector.register(signal, selectors.EVENT_READ)
        while True:
            timeout = None if end is None else max(0.0, end - time.monotonic())
            ready = {key.fd for key, _ in selector.select(timeout)}
            if sock.fileno() not in ready or not _has_bytes(sock):
                return ready
            selector.unregister(sock)
            ready.discard(sock.fileno())
            if ready:
                return ready


def _has_bytes(sock: socket.socket) -> bool:
    try:
        return bool(socket.socket.recv(sock, 1, socket.MSG_PEEK))
    except OSError:
        return False
