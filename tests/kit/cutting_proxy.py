"""A loopback proxy that hangs up on the client after a given number of content deltas.

Works on the bytes of a llama.cpp stream, in whatever framing; knows nothing of
clients.  With `context` it speaks TLS to them, for a server that was built without.
For tests/llm/test_real_llama.py and benchmarks/resume.py.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import ssl
import threading
import urllib.parse
from collections import deque
from typing import Deque, List, Optional

_DELTA = re.compile(rb'"delta":\{"content":"(?:[^"\\]|\\.)*"\}[^\n]*\n\n')


class CuttingProxy:
    """Listens on 127.0.0.1 and relays to `upstream`; a context manager.

    Attributes:
        url: where clients connect.
        plans: for each request to come, after how many content deltas its connection
            is cut (both ways, FIN); None or nothing for never.
        cuts: how many were carried out.
    """

    def __init__(self, upstream: str, context: Optional[ssl.SSLContext] = None) -> None:
        self._context = context
        parts = urllib.parse.urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self.plans: Deque[Optional[int]] = deque()
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._wake, self._waker = socket.socketpair()
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads: List[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, name="cutting-proxy", daemon=True)
        self._acceptor.start()

    def __enter__(self) -> CuttingProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._waker.send(b"!")
        self._acceptor.join(5)
        for thread in self._threads:
            thread.join(5)
        for sock in (self._listener, self._wake, self._waker):
            sock.close()

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._wake in ready:  # its byte stays unread, for all to see
                    return
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if self._context is not None:
                client = self._context.wrap_socket(client, server_side=True)
            with client, socket.create_connection(self._upstream) as server:
                self._relay(client, server)

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        left: Optional[int] = None
        answered = True
        tail = b""  # of the answer, from the last whole delta on
        with selectors.DefaultSelector() as selector:
            for sock in (client, server, self._wake):
                selector.register(sock, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._wake in ready:
                    return
                if client in ready:
                    data = client.recv(65536)  # a record at most, and ours fit into one
                    if not data:
                        return
                    if data.startswith(b"POST"):
                        answered = False
                    server.sendall(data)
                if server in ready:
                    data = server.recv(65536)
                    if not data:
                        return
                    if not answered:  # not before: on a stale connection the client comes again
                        answered = True
                        left, tail = (self.plans.popleft() if self.plans else None), b""
                    unsent, tail = len(tail), tail + data
                    for match in _DELTA.finditer(tail) if left is not None else ():
                        left -= 1
                        if not left:
                            client.sendall(tail[unsent : match.end()])
                            self.cuts += 1
                            return
                    found = list(_DELTA.finditer(tail))
                    if found:
                        tail = tail[found[-1].end() :]
                    client.sendall(data)
