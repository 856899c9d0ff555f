"""ToxicProxy: a loopback TCP proxy that spoils connections at random, for the soak.

The eight faults that toxiproxy has: latency, jitter, bandwidth, slow_close,
timeout, reset_peer, slicer, limit_data.  Which of them a connection gets is drawn
from the seed and the connection's number.  Knows bytes and sockets, no HTTP.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections import Counter
from typing import Dict, FrozenSet, Optional

__all__ = ["TOXICS", "ToxicConnection", "ToxicProxy"]

TOXICS = (
    "latency",
    "jitter",
    "bandwidth",
    "slow_close",
    "timeout",
    "reset_peer",
    "slicer",
    "limit_data",
)

_TAIL = 65536
_LINGER_0 = struct.pack("ii", 1, 0)


class ToxicConnection:
    """One connection through the proxy, and what was done to it.

    Attributes:
        toxics: the faults it was given.
        fired: those that did something.
        tail: the last 64 KiB that were sent to the client.
        ended: how the client's side ended: "fin", "reset", or "" while it has not.
    """

    def __init__(self, proxy: ToxicProxy, client: socket.socket, number: int) -> None:
        rng = random.Random(f"{proxy.seed}:toxics:{number}")
        self.toxics: FrozenSet[str] = frozenset(t for t in TOXICS if rng.random() < proxy.rate)
        self.fired: set[str] = set()
        self.tail = bytearray()
        self.ended = ""
        self._proxy = proxy
        self._client = client
        self._gone = threading.Event()
        self._left = 2
        self._lock = threading.Lock()
        self._reset = False
        self._silent = False
        self.latency = rng.uniform(0.005, 0.2)
        self.jitter = rng.uniform(0.01, 0.15)
        self.rate = rng.choice([1500, 4000, 20000])
        self.slow_close = rng.uniform(0.05, 1.5)
        self.slice = rng.choice([1, 7, 40])
        self.limit = rng.randint(0, 6000)
        # A time or an amount after which it strikes.
        self.strike_at = time.monotonic() + rng.choice(
            [0.0, rng.uniform(0.0, 0.1), rng.uniform(0.1, 2.0)]
        )
        self.closes_after = rng.choice([None, rng.uniform(0.2, 3.0)])
        self._rng = rng
        self._server = socket.create_connection(("127.0.0.1", proxy.upstream))
        self.port: int = self._server.getsockname()[1]
        for sock in (client, self._server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # --- client to server -------------------------------------------------------------------

    def up(self) -> None:
        try:
            while True:
                data = self._client.recv(16384)
                if not data:
                    break
                if not self._silent:
                    self._server.sendall(data)
        except OSError:
            pass
        finally:
            self._gone.set()
            with contextlib.suppress(OSError):
                self._server.shutdown(socket.SHUT_RDWR)
            self._leave()

    # --- server to client -------------------------------------------------------------------

    def down(self) -> None:
        how = "fin"
        try:
            how = self._pump()
        except OSError:
            pass
        finally:
            self.ended = self.ended or how
            self._reset = how == "reset"
            with contextlib.suppress(OSError):
                # SHUT_RD only wakes `up`, so that the close, with no linger, is the reset.
                self._client.shutdown(socket.SHUT_RD if self._reset else socket.SHUT_WR)
            with contextlib.suppress(OSError):
                self._server.shutdown(socket.SHUT_RDWR)
            self._leave()

    def _pump(self) -> str:
        """Pass on what the server sends; returns how the client's side is to end."""
        sent = 0
        while True:
            data = self._receive()
            if data is None:
                return self._strike()
            if not data:
                if "slow_close" in self.toxics:
                    self._fire("slow_close")
                    self._gone.wait(self.slow_close)
                return "fin"
            if "limit_data" in self.toxics and sent + len(data) >= self.limit:
                self._fire("limit_data")
                self._send(data[: self.limit - sent])
                return "fin"
            sent += len(data)
            self._delay()
            self._deliver(data)
            if "bandwidth" in self.toxics:
                self._fire("bandwidth")
                self._gone.wait(len(data) / self.rate)

    def _receive(self) -> Optional[bytes]:
        """What the server sends; None when it is time to strike."""
        if not self.toxics & {"timeout", "reset_peer"}:
            self._server.settimeout(None)
            return self._server.recv(16384)
        left = self.strike_at - time.monotonic()
        if left <= 0:
            return None
        self._server.settimeout(left)
        try:
            return self._server.recv(16384)
        except socket.timeout:
            return None

    def _strike(self) -> str:
        if "reset_peer" in self.toxics:
            self._fire("reset_peer")
            return "reset"
        self._fire("timeout")
        self._silent = True
        # Not for ever: what the client's clocks do not end within half a minute is broken.
        self._gone.wait(30.0 if self.closes_after is None else self.closes_after)
        return "fin"

    def _delay(self) -> None:
        seconds = 0.0
        if "latency" in self.toxics:
            self._fire("latency")
            seconds += self.latency
        if "jitter" in self.toxics:
            self._fire("jitter")
            seconds += self._rng.uniform(0.0, self.jitter)
        if seconds:
            self._gone.wait(seconds)

    def _deliver(self, data: bytes) -> None:
        if "slicer" not in self.toxics:
            self._send(data)
            return
        self._fire("slicer")
        budget = 200  # segments: they cost the machine, not the library
        size = max(self.slice, len(data) // budget)
        for start in range(0, len(data), size):
            self._send(data[start : start + size])
            if start % (8 * size) == 0:
                self._gone.wait(0.0005)

    def _send(self, data: bytes) -> None:
        self._client.sendall(data)
        self.tail += data
        del self.tail[:-_TAIL]

    def _fire(self, toxic: str) -> None:
        if toxic not in self.fired:
            self.fired.add(toxic)
            self._proxy.fired[toxic] += 1

    # --- the end ----------------------------------------------------------------------------

    def _leave(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left:
                return
        if self._reset:
            with contextlib.suppress(OSError):
                self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        self._client.close()
        self._server.close()
        self._proxy.forget(self)

    def abort(self) -> None:
        self._gone.set()
        for sock in (self._client, self._server):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class ToxicProxy:
    """Listens on `port` and passes connections on to `upstream`, both on 127.0.0.1.

    Attributes:
        rate: the probability, from now on, of each toxic on a new connection.
        fired: how many connections each toxic did something to.
        given: how many connections were given it.
        connections: how many there were.
    """

    def __init__(self, upstream: int, seed: str) -> None:
        self.upstream = upstream
        self.seed = seed
        self.rate = 0.0
        self.fired: Counter[str] = Counter()
        self.given: Counter[str] = Counter()
        self.connections = 0
        self._open: Dict[int, ToxicConnection] = {}
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._closed = False
        self._thread = threading.Thread(target=self._accept, name="soak-proxy", daemon=True)
        self._thread.start()

    @property
    def active(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def at(self, port: int) -> Optional[ToxicConnection]:
        """The connection whose server's side has that local port."""
        return self._open.get(port)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                continue
            if self._closed:
                client.close()
                return
            self.connections += 1
            try:
                connection = ToxicConnection(self, client, self.connections)
            except OSError:
                client.close()
                continue
            self.given.update(connection.toxics)
            self._open[connection.port] = connection
            for target in (connection.up, connection.down):
                threading.Thread(target=target, name="soak-pump", daemon=True).start()

    def forget(self, connection: ToxicConnection) -> None:
        if self._open.get(connection.port) is connection:
            del self._open[connection.port]

    def close(self) -> None:
        """End every connection."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(2.0)
        for connection in list(self._open.values()):
            connection.abort()
