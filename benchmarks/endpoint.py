"""The HTTP endpoint under load: python -m benchmarks.endpoint [live|storm|races] [--races N].

live: 300 subscribers on one run that goes on; how late each event is (aim: p99 under 50 ms).
storm: 1,000 clients come back at once with Last-Event-ID; what is missed, what comes twice.
races: resuming while events are appended, in-process; gaps and repeats at the seam.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import selectors
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

from agentstream import EventStream, Runtime
from agentstream.web import create_app
from agentstream.web.server import SWITCH_S, Server, listen

_ID = re.compile(rb"^id: (\d+)$", re.M)
_TIME = re.compile(rb'"timestamp": ([0-9.]+)')


class Client:
    """One connection of a crowd: the ids it was sent, and how late they were."""

    def __init__(self) -> None:
        self.ids: List[int] = []
        self.late: List[float] = []
        self.began = time.monotonic()
        self.first: Optional[float] = None
        self.missed = 0
        self.refused = False
        self._head = True
        self._rest = b""

    def take(self, data: bytes) -> None:
        now = time.time()
        data = self._rest + data
        if self._head:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return
            self._head = False
            self.refused = b" 200 " not in head.split(b"\r\n")[0]
        *blocks, self._rest = data.split(b"\n\n")
        for block in blocks:
            self.missed += b"event: events_missed" in block
            found = _ID.search(block)
            if found is None or b"data: " not in block:
                continue
            if self.first is None:
                self.first = time.monotonic() - self.began
            self.ids.append(int(found[1]))
            stamp = _TIME.search(block)
            self.late.append(now - float(stamp[1]) if stamp else 0.0)


class Reading:
    """Reads the connections of many clients in one thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def receive(self) -> None:
        """Give clients what has come, within a tenth of a second (`Client.take`)."""
        for key, _ in self._selector.select(0.1):
            sock: Any = key.fileobj
            try:
                data = sock.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if data:
                key.data.take(data)
                continue
            self._selector.unregister(sock)
            sock.close()
            self.lost(key.data)

    def lost(self, client: Any) -> None:
        """The connection of a client is gone."""

    def leave(self) -> None:
        """Drop all connections."""
        for key in list(self._selector.get_map().values()):
            self._selector.unregister(key.fileobj)
            key.fileobj.close()  # type: ignore[union-attr]

    def close(self) -> None:
        self.leave()
        self._selector.close()


class Crowd(Reading):
    """Many SSE clients.  HTTP/1.0, so that bodies are plain."""

    def __init__(self, host: str, port: int, path: str) -> None:
        super().__init__()
        self._address = host, port
        self._path = path
        self.clients: List[Client] = []

    def join(self, afters: List[Optional[int]]) -> None:
        """Connect as many, all at once; each goes on after its offset."""
        for after in afters:
            sock = socket.create_connection(self._address, timeout=30)
            back = "" if after is None else f"Last-Event-ID: {after}\r\n"
            request = f"GET {self._path} HTTP/1.0\r\nHost: localhost\r\n{back}\r\n"
            sock.sendall(request.encode())
            sock.setblocking(False)
            client = Client()
            self.clients.append(client)
            self._selector.register(sock, selectors.EVENT_READ, client)

    def read(self, seconds: float, enough: Optional[int] = None) -> bool:
        """Read until all streams have ended, or all have `enough` events; False if time is up."""
        until = time.monotonic() + seconds
        while self._selector.get_map():
            if enough is not None and all(len(c.ids) >= enough for c in self.clients):
                return True
            if time.monotonic() > until:
                return False
            self.receive()
        return True

    def leave(self) -> None:
        super().leave()
        self.clients = []


def faults(clients: List[Client], afters: List[int], last: int) -> Dict[str, int]:
    """What the clients should have had and have not, and what they had twice."""
    missing = twice = disorder = 0
    for client, after in zip(clients, afters):
        wanted = list(range(after + 1, last + 1))
        missing += len(set(wanted) - set(client.ids))
        twice += len(client.ids) - len(set(client.ids))
        disorder += client.ids != sorted(client.ids)
    refused = sum(client.refused for client in clients)
    return {"missing": missing, "twice": twice, "disorder": disorder, "refused": refused}


def publish(stream: EventStream, run: str, count: int, rate: float, *, end: bool) -> None:
    """Append events at a rate, on schedule; `end` ends the run."""
    pause = threading.Event()
    begin = time.monotonic()
    for n in range(count):
        pause.wait(max(0.0, begin + n / rate - time.monotonic()))
        stream.append("agent_llm_stream_chunk", run, {"agent": "a", "step": "0", "chunk": "word "})
    if end:
        stream.append("workflow_completed", run)


def percentile(values: List[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


@contextlib.contextmanager
def endpoint(max_streams: int) -> Iterator[Tuple[EventStream, Server]]:
    """A served runtime whose events are the caller's."""
    runtime = Runtime()
    app = create_app(runtime, max_streams=max_streams)
    try:
        with Server(app, listen("127.0.0.1", 0)) as server:
            yield runtime.event_stream, server
    finally:
        runtime.shutdown()


def _in_child(server: Server, path: str, afters: List[Optional[int]]) -> subprocess.Popen[str]:
    """A crowd in a process of its own, as subscribers are; it says "ready", then its summary."""
    port = server.url.rpartition(":")[2]
    arguments = [
        sys.executable,
        "-m",
        "benchmarks.endpoint",
        "crowd",
        "--port",
        port,
        "--path",
        path,
    ]
    child = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    child.stdin.write(json.dumps(afters) + "\n")
    child.stdin.flush()
    return child


def _crowd_main(port: int, path: str) -> None:
    afters = json.loads(sys.stdin.readline())
    crowd = Crowd("127.0.0.1", port, path)
    crowd.join(afters)
    print("ready", flush=True)
    crowd.read(300)
    late = [value for client in crowd.clients for value in client.late]
    first = [client.first for client in crowd.clients if client.first is not None]
    last = max((client.ids[-1] for client in crowd.clients if client.ids), default=0)
    print(
        json.dumps(
            {
                "clients": len(crowd.clients),
                "events": len(late),
                **faults(crowd.clients, [after or 0 for after in afters], last),
                "late_ms": {f"p{p}": round(1000 * percentile(late, p / 100), 1) for p in (50, 99)},
                "first_s": {f"p{p}": round(percentile(first, p / 100), 3) for p in (50, 99)},
            }
        )
    )


def live(subscribers: int = 300, seconds: float = 10.0, rate: float = 20.0) -> Dict[str, Any]:
    """Subscribers on one run as it goes on."""
    with endpoint(subscribers) as (stream, server):
        stream.append("workflow_started", "run", {"workflow": "live"})
        child = _in_child(server, "/workflows/run/stream", [1] * subscribers)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 30
        while server._app.open_streams < subscribers and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        publish(stream, "run", int(seconds * rate), rate, end=True)
        return dict(json.loads(child.communicate(timeout=60)[0]), rate=rate)


def storm(clients: int = 1000, rate: float = 5.0) -> Dict[str, Any]:
    """All clients come back at once, from different places, while the run goes on."""
    with endpoint(clients) as (stream, server):
        publish(stream, "run", 500, 1e6, end=False)
        afters: List[Optional[int]] = [random.randrange(400, 500) for _ in range(clients)]
        child = _in_child(server, "/workflows/run/stream", afters)
        publish(stream, "run", int(rate * 10), rate, end=True)
        return dict(json.loads(child.communicate(timeout=120)[0].splitlines()[-1]), rate=rate)


def races(count: int) -> Dict[str, int]:
    """Resume while events are appended: by offset and by position, in-process."""
    runtime = Runtime()
    stream, app = runtime.event_stream, create_app(runtime)
    turn = threading.Semaphore(0)
    over = False

    def append() -> None:
        while turn.acquire() and not over:
            for _ in range(8):
                stream.append("agent_llm_stream_chunk", "run", {"chunk": "x"})

    publish(stream, "run", 50, 1e6, end=False)
    publisher = threading.Thread(target=append, name="publisher", daemon=True)
    publisher.start()
    broken = 0
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # as many seams as can be
    try:
        for n in range(count):
            path = "/workflows/run/stream" if n % 2 else "/events/stream"
            last = stream.store.bounds().last
            after = last - random.randrange(0, 20)
            turn.release()
            found = _ids(app, path, after, last + 8 - after)
            broken += found != list(range(after + 1, last + 9))
    finally:
        sys.setswitchinterval(interval)
        over = True
        turn.release()
        publisher.join()
        app.close()
        runtime.shutdown()
    return {"races": count, "broken": broken}


def _ids(app: Any, path: str, after: int, count: int) -> List[int]:
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SCRIPT_NAME": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "HTTP_HOST": "localhost",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "HTTP_LAST_EVENT_ID": str(after),
    }
    found: List[int] = []
    body = app(environ, lambda status, headers, exc_info=None: None)
    try:
        for piece in body:
            found.extend(int(number) for number in _ID.findall(piece))
            if len(found) >= count:
                break
    finally:
        body.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", default="all")
    parser.add_argument("--races", type=int, default=2000)
    parser.add_argument("--port", type=int)
    parser.add_argument("--path")
    given = parser.parse_args()
    if given.what == "crowd":
        _crowd_main(given.port, given.path)
        return
    sys.setswitchinterval(SWITCH_S)  # as `agentstream serve` does
    if given.what in ("all", "live"):
        print("live ", json.dumps(live()))
    if given.what in ("all", "storm"):
        print("storm", json.dumps(storm()))
    if given.what in ("all", "races"):
        print("races", json.dumps(races(given.races)))


if __name__ == "__main__":
    main()
