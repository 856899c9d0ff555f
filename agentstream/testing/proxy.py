"""TCPProxy: a way to a server that can be cut, held, and cut after a request has been done."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
from typing import Any, Callable, Dict, List, Optional, Union

__all__ = ["TCPProxy"]

_CHUNK = 1 << 16
_PATIENCE = 5.0


class TCPProxy:
    """Listens on 127.0.0.1 and relays bytes to a server; a context manager.

    It knows no protocol.  The two functions below may be set and replaced at any time, by
    any thread; they are called by the proxy's own, one call at a time, with what one read
    has brought: a small request or reply as a rule, and of a large one a part.

    Args:
        upstream: the server's port, on this machine.
        context: speak TLS with clients; the server gets plain bytes.

    Attributes:
        port: where clients connect.
        upstream: the port to which new connections go.
        cut_after_request: called with what a client sends.  True: it is passed on, and when
            the server answers, the connection is cut instead: it has done what was asked,
            and nobody is told.
        cut_reply: called with what the server sends.  A number: so many bytes are passed
            on, and the connection is cut; None: all are.
        cuts: how many connections those two have cut.
        held: nothing is relayed at present.
        replies_held: nothing that the server sends is.
    """

    def __init__(self, upstream: int, *, context: Optional[ssl.SSLContext] = None) -> None:
        self.upstream = upstream
        self.held = self.replies_held = False
        self.cut_after_request: Optional[Callable[[bytes], bool]] = None
        self.cut_reply: Optional[Callable[[bytes], Optional[int]]] = None
        self.cuts = 0
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._wake, self._waker = socket.socketpair()
        self._commands: List[str] = []
        self._pairs: Dict[socket.socket, _Pair] = {}
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._main, name="tcp-proxy", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<TCPProxy from port {self.port} to {self.upstream}>"

    # --- from any thread --------------------------------------------------------------------

    def cut(self) -> None:
        """Close all connections that are open; what has not been relayed is lost."""
        self._tell("cut")

    def hold(self, *, replies: bool = False) -> None:
        """Relay nothing, as a network that swallows it; with `replies`, nothing that comes back.

        Connections are still accepted, and stay open.
        """
        self.held, self.replies_held = not replies, replies
        self._tell("look")

    def release(self) -> None:
        """Relay again, and first what was held."""
        self.held = self.replies_held = False
        self._tell("look")

    def close(self) -> None:
        """Cut everything, and accept nothing more.  Idempotent."""
        if self._thread.is_alive():
            self._tell("end")
            self._thread.join(_PATIENCE)
        for sock in (self._listener, self._wake, self._waker):
            sock.close()

    def __enter__(self) -> TCPProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tell(self, command: str) -> None:
        """Have the thread do something; returns when it is done."""
        with self._lock:
            self._done.clear()
            self._commands.append(command)
            self._waker.send(b"!")
            if not self._done.wait(_PATIENCE):
                raise RuntimeError("the proxy's thread does not answer: one of its functions waits")

    # --- the thread -------------------------------------------------------------------------

    def _main(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            ended = False
            while not ended:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._wake in ready:
                    self._wake.recv(100)
                    ended = self._obey(selector)
                    self._done.set()
                    continue
                for sock in ready:
                    if sock is self._listener:
                        self._accept(selector)
                    elif sock in self._pairs:
                        self._relay(selector, sock)

    def _obey(self, selector: Any) -> bool:
        """Do what was told; True for the end."""
        commands, self._commands = self._commands, []
        if "cut" in commands or "end" in commands:
            for pair in set(self._pairs.values()):
                self._drop(selector, pair)
        for sock, pair in self._pairs.items():
            stopped = self._stops(sock, pair)
            if (sock in selector.get_map()) == stopped:
                if stopped:
                    selector.unregister(sock)
                else:
                    selector.register(sock, selectors.EVENT_READ)
        return "end" in commands

    def _stops(self, sock: Any, pair: _Pair) -> bool:
        return self.held or (self.replies_held and sock is pair.server)

    def _accept(self, selector: Any) -> None:
        client, _ = self._listener.accept()
        try:
            client.settimeout(_PATIENCE)
            if self._context is not None:
                client = self._context.wrap_socket(client, server_side=True)
            server = socket.create_connection(("127.0.0.1", self.upstream), _PATIENCE)
        except OSError:
            client.close()
            return
        pair = _Pair(client, server)
        for sock in (client, server):
            self._pairs[sock] = pair
            if not self._stops(sock, pair):
                selector.register(sock, selectors.EVENT_READ)

    def _relay(self, selector: Any, sock: Any) -> None:
        pair = self._pairs[sock]
        try:
            data = sock.recv(_CHUNK)
            if not data:
                self._drop(selector, pair)
            elif sock is pair.client:
                if self.cut_after_request is not None and self.cut_after_request(data):
                    pair.is_doomed = True
                pair.server.sendall(data)
            else:
                self._reply(selector, pair, data)
        except OSError:
            self._drop(selector, pair)

    def _reply(self, selector: Any, pair: _Pair, data: bytes) -> None:
        most = 0 if pair.is_doomed else None
        if most is None and self.cut_reply is not None:
            most = self.cut_reply(data)
        pair.client.sendall(data if most is None else data[:most])
        if most is not None:
            self.cuts += 1
            self._drop(selector, pair)

    def _drop(self, selector: Any, pair: _Pair) -> None:
        for sock in (pair.client, pair.server):
            self._pairs.pop(sock, None)
            with contextlib.suppress(KeyError, ValueError):
                selector.unregister(sock)
            sock.close()


class _Pair:
    """A client's connection, and the one to the server that belongs to it."""

    def __init__(self, client: Union[socket.socket, ssl.SSLSocket], server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.is_doomed = False  # its next answer is not passed on
