"""Many clients of one run, through several web workers over one log in Redis (row K24).

    python -m stress.web_clients        300 and 1,000 clients; 1, 2, 4 workers
    python -m stress.web_clients --clients 300 --workers 2 --server gunicorn

A run goes on at --rate events a second.  Clients follow it by Server-Sent Events, spread over the
workers as a load balancer would.  In the middle one worker is killed and started again; its
clients come back, with Last-Event-ID, to whichever is there.  Prints a line of JSON for each
setting: what clients lacked or had twice (must be 0), how late events were (late_ms: before the
kill; worst_ms: with it), and the connections that Redis had.  Exits with 1 if an event was lost
or came twice.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import random
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

from agentstream import EventStream, RedisStore
from benchmarks.endpoint import Reading
from tests.kit.redis_server import RedisServer, log_name
from tests.kit.support import free_port, wait_until

RUN = "run"
_ID = re.compile(rb"^id: (\d+)$", re.M)
_TIME = re.compile(rb'"timestamp": ([0-9.]+)')
_PATIENCE = 60.0
#: Seconds that a client waits before it comes back; a browser waits what `retry:` says, 1 s.
_BACK = (0.5, 1.5)

SITE = """
import signal, sys
from agentstream import RedisStore
from agentstream.web import create_app
from agentstream.web.server import SWITCH_S

def make(url, log, streams):
    sys.setswitchinterval(SWITCH_S)
    return create_app(RedisStore(url, log), max_streams=streams)

def post_worker_init(worker):
    before = signal.getsignal(signal.SIGTERM)

    def stop(*args):
        worker.wsgi.close()
        before(*args)

    signal.signal(signal.SIGTERM, stop)
"""


# --- the workers ------------------------------------------------------------------------------


class Worker:
    """One web worker: a process on a port of its own, `agentstream serve` or gunicorn's gthread."""

    def __init__(self, kind: str, url: str, log: str, streams: int, folder: pathlib.Path) -> None:
        self.port = free_port()
        at = f"127.0.0.1:{self.port}"
        if kind == "serve":
            words = ["agentstream", "serve", "--log", f"{url}?log={log}", "--port", str(self.port)]
            self._words = [*words, "--max-streams", str(streams)]
        else:
            (folder / "site_of_runs.py").write_text(SITE)
            words = ["gunicorn", "--worker-class", "gthread", "--threads", str(streams + 8)]
            words += ["--worker-connections", str(streams + 500), "--backlog", "2048"]
            words += ["--bind", at, "--config", "site_of_runs.py", "--log-level", "error"]
            self._words = [*words, f"site_of_runs:make({url!r}, {log!r}, {streams})"]
        self._folder = folder
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        paths = os.pathsep.join([os.getcwd(), *filter(None, sys.path)])
        self._process = subprocess.Popen(
            [sys.executable, "-m", *self._words],
            cwd=self._folder,
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # gunicorn's own worker goes with it
        )
        wait_until(self._answers, timeout=_PATIENCE)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def kill(self) -> None:
        """As kill -9 does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait(10)


# --- the clients ------------------------------------------------------------------------------


class Client:
    """One client: the offsets it was sent, how late they were, and where it goes on."""

    def __init__(self, at: int) -> None:
        self.at = at  # which worker
        self.ids: List[int] = []
        self.late: List[float] = []
        self.over = False
        self.returned = 0
        self._begun = False
        self._rest = b""

    def request(self) -> bytes:
        self._begun, self._rest = False, b""
        last = f"Last-Event-ID: {self.ids[-1]}\r\n" if self.ids else ""
        return f"GET /workflows/{RUN}/stream HTTP/1.0\r\nHost: localhost\r\n{last}\r\n".encode()

    def take(self, data: bytes) -> None:
        now = time.time()
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        for block in blocks:
            found = _ID.search(block)
            stamp = _TIME.search(block)
            if found is None or stamp is None:
                continue
            self.ids.append(int(found[1]))
            self.late.append(now - float(stamp[1]))
            self.over = self.over or b"event: workflow_completed" in block


class Crowd(Reading):
    """Many clients in one thread.  HTTP/1.0, so that bodies are plain."""

    def __init__(self, ports: List[int], count: int) -> None:
        super().__init__()
        self._ports = ports
        self._away: List[Tuple[float, Client]] = []
        self.clients = [Client(n % len(ports)) for n in range(count)]
        for client in self.clients:
            self._connect(client)

    def _connect(self, client: Client) -> None:
        try:
            sock = socket.create_connection(("127.0.0.1", self._ports[client.at]), timeout=10)
        except OSError:
            self._lose(client)
            return
        sock.sendall(client.request())
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ, client)

    def _lose(self, client: Client) -> None:
        """The connection is gone: come back, to another worker as a load balancer would choose."""
        client.at = (client.at + 1) % len(self._ports)
        client.returned += 1
        self._away.append((time.monotonic() + random.uniform(*_BACK), client))

    def read(self, seconds: float, *, begun: bool = False) -> bool:
        """Read until all have had the run's end, or its beginning; False if time is up."""
        until = time.monotonic() + seconds
        while self._selector.get_map() or self._away:
            if begun and all(client.ids for client in self.clients):
                break
            now = time.monotonic()
            if now > until:
                return False
            due = [client for when, client in self._away if when <= now]
            self._away = [(when, client) for when, client in self._away if when > now]
            for client in due:
                self._connect(client)
            self.receive()
        return True

    def lost(self, client: Client) -> None:
        """See `Reading`."""
        if not client.over:
            self._lose(client)


def crowd(ports: List[int], count: int, killed_at: Optional[int]) -> Dict[str, Any]:
    """What a crowd has had; `killed_at` is the offset from which on a worker may be away."""
    began = time.monotonic()
    them = Crowd(ports, count)
    them.read(_PATIENCE, begun=True)
    joined = time.monotonic() - began
    print("ready", flush=True)
    finished = them.read(4 * _PATIENCE)
    them.close()
    last = max((client.ids[-1] for client in them.clients if client.ids), default=0)
    wanted = set(range(1, last + 1))
    pairs = [pair for client in them.clients for pair in zip(client.ids, client.late)]
    # The first one was there before the clients came.
    quiet = [late for place, late in pairs if 1 < place < (killed_at or last)]
    return {
        "finished": finished,
        "events": last,
        "deliveries": len(pairs),
        "missing": sum(len(wanted - set(client.ids)) for client in them.clients),
        "twice": sum(len(client.ids) - len(set(client.ids)) for client in them.clients),
        "disorder": sum(client.ids != sorted(client.ids) for client in them.clients),
        "joined_s": round(joined, 2),
        "returned": sum(client.returned > 0 for client in them.clients),
        "late_ms": {f"p{p}": _percentile(quiet, p / 100) for p in (50, 99)},
        "worst_ms": _percentile([late for place, late in pairs if place > 1], 1.0),
    }


def _percentile(values: List[float], share: float) -> float:
    """In milliseconds."""
    found = sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0
    return round(1000 * found, 1)


# --- one setting ------------------------------------------------------------------------------


@contextlib.contextmanager
def workers(kind: str, count: int, *settings: Any) -> Iterator[List[Worker]]:
    """So many web workers over a log."""
    found: List[Worker] = []
    with tempfile.TemporaryDirectory(prefix="agentstream-web-") as folder:
        try:
            for _ in range(count):
                found.append(Worker(kind, *settings, pathlib.Path(folder)))
            yield found
        finally:
            for worker in found:
                worker.kill()


def trial(
    redis: RedisServer,
    kind: str,
    count: int,
    clients: int,
    *,
    seconds: float = 10.0,
    rate: float = 20.0,
    restart: bool = True,
) -> Dict[str, Any]:
    """One run, followed by so many clients through so many workers."""
    log, events = log_name(), int(seconds * rate)
    at = events // 2 if restart else None
    with EventStream(RedisStore(redis.url, log)) as stream:
        stream.append("workflow_started", RUN, {"workflow": "live"})
        wait_until(lambda: connections(redis) <= 6)  # those of the trial before are gone
        before = connections(redis)
        with workers(kind, count, redis.url, log, clients) as found:
            ports = [worker.port for worker in found]
            child = subprocess.Popen(
                [sys.executable, "-m", "stress.web_clients", "--crowd"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert child.stdin is not None and child.stdout is not None
            print(json.dumps([ports, clients, at]), file=child.stdin, flush=True)
            assert child.stdout.readline() == "ready\n"
            most = publish(stream, redis, events, rate, at, found[0]) - before
            told = json.loads(child.communicate(timeout=5 * _PATIENCE)[0])
    setting = {"server": kind, "workers": count, "clients": clients, "rate": rate}
    return {**setting, **told, "redis_connections": most}


def publish(
    stream: EventStream,
    redis: RedisServer,
    count: int,
    rate: float,
    kill_at: Optional[int],
    victim: Worker,
) -> int:
    """Append events on schedule, and kill a worker; returns the most connections Redis had."""
    pause, helpers, most = threading.Event(), [], 0
    begin = time.monotonic() + 1.0
    for n in range(count):
        pause.wait(max(0.0, begin + n / rate - time.monotonic()))
        stream.append("agent_llm_stream_chunk", RUN, {"agent": "a", "step": "0", "chunk": "word "})
        if n == kill_at:
            helpers.append(threading.Thread(target=lambda: (victim.kill(), victim.start())))
            helpers[0].start()
        if n % int(rate) == 0:
            most = max(most, connections(redis))
    stream.append("workflow_completed", RUN, {})
    for helper in helpers:
        helper.join()
    return most


def connections(redis: RedisServer) -> int:
    """How many clients the Redis server has, but for who asks."""
    found = re.search(rb"connected_clients:(\d+)", redis.say("INFO", "clients"))
    assert found is not None
    return int(found[1]) - 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[300, 1000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--server", nargs="+", default=["serve", "gunicorn"])
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--no-restart", action="store_true")
    parser.add_argument("--crowd", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.crowd:
        print(json.dumps(crowd(*json.loads(sys.stdin.readline()))))
        return 0
    wrong = 0
    with RedisServer() as redis:
        for clients in given.clients:
            for kind in given.server:
                for count in given.workers:
                    told = trial(
                        redis,
                        kind,
                        count,
                        clients,
                        seconds=given.seconds,
                        rate=given.rate,
                        restart=not given.no_restart,
                    )
                    print(json.dumps(told), flush=True)
                    wrong += told["missing"] + told["twice"] + told["disorder"]
                    wrong += not told["finished"]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
