"""WireServer: answers whose every byte the test chooses, on connections that stay open.

ScriptedServer frames its answers; here the test is the framing.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import tempfile
import threading
from typing import Any, Callable, Iterable, List, Optional, Union

from agentstream.cancel import CancelToken
from agentstream.llm.settings import Limits
from agentstream.llm.transport import Transport
from agentstream.testing.certificates import server_context

#: A client's certificate and its key, made for these tests and trusted by nobody else.
CLIENT_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg7z45UfLXT1wRvWmk
eLrcuQ5Hes2JSILxe1gaQgJQHzyhRANCAATgrEtOhYVS8DnYiDWCuoN65Dlb7Jj6
rJRbbDFsKSRx+mqjois7dx9L1pXhJCiBV1Fxb4wx5/KPkhpd1nROD16U
-----END PRIVATE KEY-----
"""
CLIENT_CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBsjCCAVigAwIBAgIUNKDe8KcX/Ve3l/EPc6F5tDRISTIwCgYIKoZIzj0EAwIw
IzEhMB8GA1UEAwwYYWdlbnRzdHJlYW0gdGVzdHMgY2xpZW50MCAXDTI2MTEyNzA3
NDc0MloYDzIxMjYxMTAzMDc0NzQyWjAjMSEwHwYDVQQDDBhhZ2VudHN0cmVhbSB0
ZXN0cyBjbGllbnQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATgrEtOhYVS8DnY
iDWCuoN65Dlb7Jj6rJRbbDFsKSRx+mqjois7dx9L1pXhJCiBV1Fxb4wx5/KPkhpd
1nROD16Uo2gwZjAdBgNVHQ4EFgQUJjUZx9aQc5Kp4AYZCfVRGEf4wjUwHwYDVR0j
BBgwFoAUJjUZx9aQc5Kp4AYZCfVRGEf4wjUwDwYDVR0TAQH/BAUwAwEB/zATBgNV
HSUEDDAKBggrBgEFBQcDAjAKBggqhkjOPQQDAgNIADBFAiA2c59Y91EX+GUjsPQG
3ztKa6W1Ycgmqny+f7Krw9SBawIhALCMyJ5b7LQ9Jkz7d81N/sLJGd15/g2MV58L
OCFAWr6D
-----END CERTIFICATE-----
"""

#: What is sent for a request, a sendall each; a number is a pause in seconds; None hangs up.
Answer = Iterable[Union[bytes, float, None]]


class WireServer:
    """Listens on 127.0.0.1 until its `with` block is left.

    Args:
        answer: the answer to each request, called in the connection's thread
            with the request's head and body.
        tls: speak TLS; `ca_file` is what to verify it with.

    Attributes:
        requests: the number of the connection each request came on, from 1.
        heads: each request's head.
        answered: how many requests it is done with.
    """

    def __init__(self, answer: Callable[[bytes, bytes], Answer], *, tls: bool = False) -> None:
        self._answer = answer
        self._closing = threading.Event()
        self.requests: List[int] = []
        self.heads: List[bytes] = []
        self.connections = 0
        self.answered = 0
        self._threads: List[threading.Thread] = []
        self._socks: List[socket.socket] = []
        self._undo = contextlib.ExitStack()
        self._context: Optional[ssl.SSLContext] = None
        self.ca_file = ""
        if tls:
            directory = tempfile.TemporaryDirectory(prefix="agentstream-wire-")
            self._undo.callback(directory.cleanup)
            self._context, self.ca_file = server_context(directory, False)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._socks)

    @property
    def context(self) -> ssl.SSLContext:
        """The server's side of TLS."""
        assert self._context is not None
        return self._context

    def __enter__(self) -> WireServer:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(5.0)  # which adds to the others
        for sock in list(self._socks):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5.0)
            assert not thread.is_alive()
        self._undo.close()

    def _start(self, function: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=function, args=args, name="test-wire", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socks.append(sock)
            self.connections += 1
            self._start(self._serve, sock, self.connections)

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            if self._context is not None:
                plain = sock
                sock = self._context.wrap_socket(
                    plain, server_side=True, do_handshake_on_connect=False
                )
                self._socks[self._socks.index(plain)] = sock
                sock.do_handshake()
            with sock, sock.makefile("rb") as reader:
                while not self._closing.is_set():
                    head, length = _head(reader)
                    if not head:
                        return
                    self.requests.append(number)
                    self.heads.append(head)
                    try:
                        if not self._send(sock, self._answer(head, reader.read(length))):
                            return
                    finally:
                        self.answered += 1
        except (OSError, ValueError):
            pass
        finally:
            sock.close()
            with contextlib.suppress(ValueError):
                self._socks.remove(sock)

    def _send(self, sock: socket.socket, answer: Answer) -> bool:
        """Send an answer; False if it hangs up."""
        for piece in answer:
            if piece is None:
                return False
            if isinstance(piece, float):
                self._closing.wait(piece)
            else:
                sock.sendall(piece)
        return True


def _head(reader: Any) -> Any:
    lines = []
    length = 0
    while True:
        line = reader.readline()
        if not line:
            return b"", 0
        lines.append(line)
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
        if line == b"\r\n":
            return b"".join(lines), length


# --- answers --------------------------------------------------------------------------------


def chunked(body: bytes, *, end: bytes = b"0\r\n\r\n", size: int = 65536) -> bytes:
    """A whole answer in chunks."""
    chunks = [body[n : n + size] for n in range(0, len(body), size)]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + end


def sized(body: bytes, *, length: Optional[int] = None, headers: bytes = b"") -> bytes:
    """A whole answer with a Content-Length."""
    length = len(body) if length is None else length
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (length, headers, body)


def closing(body: bytes) -> bytes:
    """An answer that ends with its connection."""
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body


def empty(status: int = 204) -> bytes:
    """An answer without a body."""
    return b"HTTP/1.1 %d Nothing\r\n\r\n" % status


# --- the client's side ----------------------------------------------------------------------


def transport_of(server: WireServer, **settings: Any) -> Transport:
    """A transport to a WireServer."""
    settings.setdefault("api_key", None)
    settings.setdefault("headers", {})
    settings.setdefault("verify", server.ca_file or True)
    settings.setdefault("limits", Limits())
    return Transport(server.url + "/answer", **settings)


def fetch(transport: Transport, body: bytes = b"{}", stop: Optional[CancelToken] = None) -> bytes:
    """The body of one answer."""
    with transport.exchange(body, stop or CancelToken()) as exchange:
        read = exchange.read(10**6)
        assert not exchange.broken, exchange.broken
        return read
