"""SocksServer: a SOCKS 4, 4a and 5 proxy on 127.0.0.1 that takes every host for one port of this machine."""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import struct
import threading
from typing import Any, List, NamedTuple, Optional, Tuple

__all__ = ["Asked", "SocksServer"]


class Asked(NamedTuple):
    """What a client asked for."""

    version: int
    host: str
    port: int
    user: str
    by_name: bool


class SocksServer:
    """Listens until its `with` block is left.

    Args:
        target: the port that all connections are made to.
        user: (user, password) that SOCKS 5 clients must give; None lets all in.
        refuse: what a SOCKS request is answered with; 0 for a connection.
        silent: "greeting" or "request": it takes that and says nothing.
        answer: bytes that it sends in place of its first answer.
        drip: it sends its answers byte for byte.

    Attributes:
        asked: what came, in order.
        url: without a scheme: "127.0.0.1:PORT".
        open: connections that are open.
    """

    def __init__(
        self,
        target: int,
        *,
        user: Optional[Tuple[str, str]] = None,
        refuse: int = 0,
        silent: str = "",
        answer: bytes = b"",
        drip: bool = False,
    ) -> None:
        self._target = target
        self._user = user
        self._refuse = refuse
        self._silent = silent
        self._answer = answer
        self._drip = drip
        self.asked: List[Asked] = []
        self._closing = threading.Event()
        self._socks: List[socket.socket] = []
        self._threads: List[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    @property
    def open(self) -> int:
        return len(self._socks)

    def __enter__(self) -> SocksServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for sock in (self._listener, *self._socks):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5.0)
            assert not thread.is_alive()

    def _start(self, function: Any, *args: Any) -> None:
        thread = threading.Thread(target=function, args=args, name="test-socks", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._socks.append(sock)
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        try:
            if self._agree(sock):
                with socket.create_connection(("127.0.0.1", self._target)) as onward:
                    self._socks.append(onward)
                    try:
                        self._relay(sock, onward)
                    finally:
                        self._socks.remove(onward)
        except (OSError, EOFError):
            pass
        finally:
            sock.close()
            self._socks.remove(sock)

    def _agree(self, sock: socket.socket) -> bool:
        version = _read(sock, 1)[0]
        if self._answer:
            sock.sendall(self._answer)
            return False
        return self._agree_4(sock) if version == 4 else self._agree_5(sock)

    def _say(self, sock: socket.socket, data: bytes) -> None:
        for piece in [data[n : n + 1] for n in range(len(data))] if self._drip else [data]:
            sock.sendall(piece)

    def _leaves(self, sock: socket.socket, at: str) -> bool:
        """True where it is to be silent, once the client has left."""
        return self._silent == at and not sock.recv(1)

    def _agree_4(self, sock: socket.socket) -> bool:
        _, port = struct.unpack(">BH", _read(sock, 3))
        address = _read(sock, 4)
        user = _read_text(sock)
        by_name = address[:3] == b"\0\0\0" and address[3] != 0
        host = _read_text(sock) if by_name else str(ipaddress.ip_address(address))
        self.asked.append(Asked(4, host, port, user, by_name))
        if self._leaves(sock, "request"):
            return False
        self._say(sock, b"\0%c\0\0\0\0\0\0" % (self._refuse or 90))
        return not self._refuse

    def _agree_5(self, sock: socket.socket) -> bool:
        methods = _read(sock, _read(sock, 1)[0])
        if self._leaves(sock, "greeting"):
            return False
        user = ""
        if self._user is None:
            self._say(sock, b"\5\0")
        elif 2 not in methods:
            self._say(sock, b"\5\xff")
            return False
        else:
            self._say(sock, b"\5\2")
            _read(sock, 1)
            given = tuple(_read(sock, _read(sock, 1)[0]).decode() for _ in range(2))
            user = given[0]
            self._say(sock, b"\1%c" % (given != self._user))
            if given != self._user:
                return False
        _, _, _, kind = _read(sock, 4)
        if kind == 3:
            host = _read(sock, _read(sock, 1)[0]).decode()
        else:
            host = str(ipaddress.ip_address(_read(sock, 4 if kind == 1 else 16)))
        (port,) = struct.unpack(">H", _read(sock, 2))
        self.asked.append(Asked(5, host, port, user, kind == 3))
        if self._leaves(sock, "request"):
            return False
        self._say(sock, b"\5%c\0\3\4here\0\0" % self._refuse)
        return not self._refuse

    def _relay(self, one: socket.socket, other: socket.socket) -> None:
        while not self._closing.is_set():
            for sock in select.select([one, other], [], [], 0.5)[0]:
                data = sock.recv(65536)
                if not data:
                    return
                (other if sock is one else one).sendall(data)


def _read(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _read_text(sock: socket.socket) -> str:
    data = b""
    while not data.endswith(b"\0"):
        data += _read(sock, 1)
    return data[:-1].decode()
