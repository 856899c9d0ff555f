"""Processes on a log that machines share, for `benchmarks.machines`: what each of them does.

Run as a program it is one of them: lines of JSON go to whoever started it.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterator, List

from agentstream import EventStream, EventType, RedisStore, SqliteStore
from agentstream.events.store import EventStore
from agentstream.testing.stores import event
from tests.kit.redis_server import RedisServer, log_name

ROOT = pathlib.Path(__file__).resolve().parents[1]
CHUNK = EventType.AGENT_LLM_STREAM_CHUNK
DATA = {"agent": "greeter", "step": "0", "chunk": "x" * 44}  # 80 bytes of JSON
LEASE = 3.0


class Bench:
    """A server to measure with.

    Args:
        server: whose logs are measured.
        size: 1.0 for all of it, less for a part.
    """

    def __init__(self, server: RedisServer, size: float) -> None:
        self.server = server
        self._size = size

    def times(self, count: int) -> int:
        return max(10, int(count * self._size))

    def open(self, name: str = "", **options: Any) -> RedisStore:
        return RedisStore(self.server.url, name or log_name(), **options)

    def memory(self) -> int:
        """Bytes that the server has in use."""
        return int(self._info("memory", rb"used_memory:(\d+)"))

    def server_cpu(self) -> float:
        """Seconds of CPU that the server has used."""
        user = self._info("cpu", rb"used_cpu_user:([\d.]+)")
        return float(user) + float(self._info("cpu", rb"used_cpu_sys:([\d.]+)"))

    def count(self, key: str, command: str) -> int:
        """What a command says of a key: a number."""
        return int(self.server.say(command, key)[1:])

    def _info(self, section: str, pattern: bytes) -> bytes:
        found = re.search(pattern, self.server.say("INFO", section))
        assert found is not None
        return found[1]


def events_of(name: str, count: int) -> Iterator[Any]:
    for n in range(1, count + 1):
        yield event(name, n, data=DATA)


# --- other processes ------------------------------------------------------------------------


def log_url(bench: Bench, name: str) -> str:
    return f"{bench.server.url}#{name}"


def open_log(log: str, **options: Any) -> EventStore:
    if "://" not in log:
        return SqliteStore(log)
    url, _, name = log.partition("#")
    return RedisStore(url, name, **options)


class Other:
    """A process that does one of the things below; lines of JSON go to and from it."""

    def __init__(self, what: str, arguments: Dict[str, Any]) -> None:
        command = [sys.executable, "-m", "benchmarks.fleet", what]
        self.process = subprocess.Popen(
            [*command, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.hear()

    def say(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Kill it, and let go of what it said."""
        self.kill()
        self.process.communicate()


@contextlib.contextmanager
def other(what: str, **arguments: Any) -> Iterator[Other]:
    process = Other(what, arguments)
    try:
        yield process
    finally:
        process.end()


def tell(**values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def child_write(log: str, count: int, rate: float) -> None:
    with EventStream(open_log(log, lease=LEASE)) as stream:
        tell()
        sys.stdin.readline()
        run, pause = stream.open_log("run"), threading.Event()
        for _ in range(count):
            run.append(CHUNK, DATA)
            pause.wait(1 / rate)
        run.append(EventType.WORKFLOW_COMPLETED, {})


class Stopped:
    """Ends its runs as soon as they are to stop, and says when it heard of that."""

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream
        self.logs: Dict[str, Any] = {}

    def stop(self, workflow_id: str, reason: str) -> bool:
        data = {"reason": reason, "heard": time.time()}
        self.logs[workflow_id].append(EventType.WORKFLOW_CANCELLED, data)
        return True


def child_stopped(log: str, count: int) -> None:
    with EventStream(open_log(log)) as stream:
        stopped = Stopped(stream)
        stream.store.watch_stops(stopped.stop)
        tell()
        for n in range(count):
            stopped.logs[f"run {n}"] = stream.open_log(f"run {n}")
            stopped.logs[f"run {n}"].append(EventType.WORKFLOW_STARTED, {"workflow": "demo"})
            sys.stdin.readline()


def child_crowd(log: str, seconds: float) -> None:
    """Write 4,000 events a second, of a hundred runs, and 30 of the one that is followed."""
    with open_log(log) as store:  # type: ignore[attr-defined]
        for n in range(100):
            store.claim(f"run {n}")
        store.claim("one")
        tell()
        sys.stdin.readline()
        began, done, pause = time.monotonic(), 0, threading.Event()
        while time.monotonic() - began < seconds:
            due = int((time.monotonic() - began) * 4000)
            for n in range(done, due):
                store.append(event(f"run {n % 100}", n // 100 + 1, data=DATA))
            for n in range(done * 30 // 4000, due * 30 // 4000):
                store.append(event("one", n + 1, data=DATA))
            done = due
            pause.wait(0.002)


def child_follower(log: str, which: str, seconds: float) -> None:
    with EventStream(open_log(log)) as stream:
        subscription = stream.subscribe(workflow_id="one" if which == "one" else None)
        tell()
        assert subscription.get(30) is not None
        spent, began = time.process_time(), time.monotonic()
        while time.monotonic() - began < seconds:
            subscription.get(0.1)
        tell(share=(time.process_time() - spent) / (time.monotonic() - began))
        subscription.close()


def child_append(log: str, count: int) -> None:
    """Two threads append to a run each, as fast as they can."""
    with open_log(log, max_queue=20_000, timeout=60.0) as store:  # type: ignore[attr-defined]
        names = [log_name() for _ in range(2)]
        ready = [list(events_of(name, count // 2)) for name in names]
        for name in names:
            store.claim(name)
        tell()
        sys.stdin.readline()

        def write(events: List[Any]) -> None:
            for one in events:
                store.append(one)

        threads = [threading.Thread(target=write, args=(events,)) for events in ready]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store.flush()
        tell()
        sys.stdin.readline()


def child_carry(log: str, runs: int, rate: float, seconds: float, first: int) -> None:
    """Append to so many runs in turn, each at `rate`; tell the share of a core that took."""
    with EventStream(open_log(log, timeout=60.0)) as stream:
        logs = [stream.open_log(f"run {first + n}") for n in range(runs)]
        tell()
        sys.stdin.readline()
        spent, began, done, pause = time.process_time(), time.monotonic(), 0, threading.Event()
        while time.monotonic() - began < seconds:
            due = int((time.monotonic() - began) * rate * runs)
            for n in range(done, due):
                logs[n % runs].append(CHUNK, DATA)
            done = due
            pause.wait(0.001)
        share = (time.process_time() - spent) / (time.monotonic() - began)
        for one in logs:
            one.append(EventType.WORKFLOW_COMPLETED, {})
        stream.store.flush()
        tell(share=share)
        sys.stdin.readline()


CHILDREN: Dict[str, Callable[..., None]] = {
    "write": child_write,
    "stopped": child_stopped,
    "crowd": child_crowd,
    "follower": child_follower,
    "append": child_append,
    "carry": child_carry,
}

if __name__ == "__main__":
    CHILDREN[sys.argv[1]](**json.loads(sys.argv[2]))
