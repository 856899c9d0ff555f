"""A loopback TCP proxy that cuts, holds, and cuts after a request has been carried out."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from typing import Any, Callable, Dict, List, Optional

_CHUNK = 1 << 16


class _Pair:
    """A client's connection, and the one to the server that belongs to it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.doomed = False  # its next answer is not passed on


class TcpProxy:
    """Listens on 127.0.0.1 and relays to a port; one thread, a context manager.

    Attributes:
        port: where clients connect.
        upstream: the port that new connections go to.
        held: nothing is relayed.
        replies_held: nothing that comes back is.
        doom: called with what a client sends; true: it is passed on, and when the answer
            comes the connection is cut instead.
        cuts: how many were, for that.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.held = self.replies_held = False
        self.doom: Optional[Callable[[bytes], bool]] = None
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._wake, self._waker = socket.socketpair()
        self._commands: List[str] = []
        self._pairs: Dict[socket.socket, _Pair] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._main, name="tcp-proxy", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Cut all connections that are open."""
        self._tell("cut")

    def hold(self, *, replies: bool = False) -> None:
        """Relay nothing, as a network that swallows it; with `replies`, nothing that comes back."""
        self.held, self.replies_held = not replies, replies
        self._tell("look")

    def release(self) -> None:
        """Relay again, what was held first."""
        self.held = self.replies_held = False
        self._tell("look")

    def _tell(self, command: str) -> None:
        self._done.clear()
        self._commands.append(command)
        self._waker.send(b"!")
        assert self._done.wait(5)

    def close(self) -> None:
        self._tell("end")
        self._thread.join(5)
        for sock in (self._listener, self._wake, self._waker):
            sock.close()

    def __enter__(self) -> TcpProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the thread -------------------------------------------------------------------------

    def _main(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._wake in ready:
                    self._wake.recv(100)
                    ended = self._obey(selector)
                    self._done.set()
                    if ended:
                        return
                    continue
                for sock in ready:
                    if sock is self._listener:
                        self._accept(selector)
                    elif sock in self._pairs:
                        self._relay(selector, sock)

    def _obey(self, selector: Any) -> bool:
        commands, self._commands = self._commands, []
        if "cut" in commands or "end" in commands:
            for pair in {id(pair): pair for pair in self._pairs.values()}.values():
                self._drop(selector, pair)
        for sock, pair in self._pairs.items():
            stopped = self.held or (self.replies_held and sock is pair.server)
            if (sock in selector.get_map()) == stopped:
                if stopped:
                    selector.unregister(sock)
                else:
                    selector.register(sock, selectors.EVENT_READ)
        return "end" in commands

    def _accept(self, selector: Any) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self.upstream), 5)
        except OSError:
            client.close()
            return
        pair = _Pair(client, server)
        for sock in (client, server):
            self._pairs[sock] = pair
            if not (self.held or (self.replies_held and sock is server)):
                selector.register(sock, selectors.EVENT_READ)

    def _relay(self, selector: Any, sock: Any) -> None:
        pair = self._pairs[sock]
        try:
            data = sock.recv(_CHUNK)
            if sock is pair.client and data and self.doom is not None and self.doom(data):
                pair.doomed = True
            if not data or (sock is pair.server and pair.doomed):
                self.cuts += bool(data)
                self._drop(selector, pair)
                return
            (pair.server if sock is pair.client else pair.client).sendall(data)
        except OSError:
            self._drop(selector, pair)

    def _drop(self, selector: Any, pair: _Pair) -> None:
        for sock in (pair.client, pair.server):
            self._pairs.pop(sock, None)
            with contextlib.suppress(KeyError, ValueError):
                selector.unregister(sock)
            sock.close()
