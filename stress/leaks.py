"""Does anything stay behind: `python -m stress.leaks [STREAMS]` (default 10,000).

Streams over http and https, half of them cancelled or faulted: cut, reset, refused,
silent, dropped half-way, broken by the caller.  At the end threads, descriptors and
the pool's places are counted and held against the baseline, memory is shown.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import itertools
import os
import random
import sys
import threading
import time
from typing import Any, Counter, Iterator, List

from agentstream import (
    AgentStreamError,
    Cancelled,
    LlamaClient,
    Retries,
    Timeouts,
)
from agentstream.testing import Cut, Hang, Pause, Reply, Reset, ScriptedServer, text_chunks

THREADS = 8
WHOLE = "one two three"
HEAD = text_chunks("one ", "two ", finish_reason=None, usage=False, done=False)

#: path -> what the server does there.
REPLIES = {
    "cut": Reply(*HEAD, Cut()),
    "reset": Reply(*HEAD, Reset()),
    "early": Reply(before_headers=[Cut()]),
    "refused": Reply.json({"error": {"message": "no"}}, status=400),
    "bad": Reply(*HEAD, b"data: {oops\n\n"),
    "hang": Reply(*HEAD, Hang()),
    "headers": Reply(before_headers=[Hang()]),
    "slow": Reply(*HEAD, Pause(0.004), *text_chunks("three")),
}
FINE = [Reply.text("one ", "two ", "three", framing=f) for f in ("chunked", "close", "length")]
FAULTS = [
    "cut",
    "reset",
    "early",
    "refused",
    "bad",
    "stall",
    "cancel",
    "cancel early",
    "cancel any time",
    "drop",
    "raise",
]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Load:
    """Clients of two servers, and the streams that are read from them."""

    def __init__(self, servers: List[ScriptedServer]) -> None:
        self.clients = []
        for server in servers:
            for name, reply in REPLIES.items():
                server.route(f"/{name}/v1/chat/completions", lambda _, reply=reply: reply)
            fine = itertools.cycle(FINE)
            server.route("/fine/v1/chat/completions", lambda _, fine=fine: next(fine))
            self.clients.append({n: self._client(server, n) for n in ["fine", *REPLIES]})
            self.clients[-1]["stall"] = self._client(server, "hang", stall=0.02)
        self.outcomes: Counter[str] = collections.Counter()
        self.wrong: List[str] = []
        self.lock = threading.Lock()

    @staticmethod
    def _client(server: ScriptedServer, name: str, stall: float = 20.0) -> LlamaClient:
        return LlamaClient(
            f"{server.url}/{name}",
            verify=server.ca_file or True,
            retries=Retries(0),
            timeouts=Timeouts(connect=20, first_token=20, stall=stall),
        )

    def work(self, numbers: Iterator[int], seed: int) -> None:
        chance = random.Random(seed)
        for _ in numbers:
            kind = chance.choice(FAULTS) if chance.random() < 0.5 else "fine"
            clients = chance.choice(self.clients)
            try:
                outcome = self.one(kind, clients, chance)
            except AgentStreamError as error:
                outcome = type(error).__name__
            except KeyError:
                outcome = "the caller's own"
            with self.lock:
                self.outcomes[f"{kind}: {outcome}"] += 1
                if (kind == "fine") != (outcome == "whole") and kind != "cancel any time":
                    self.wrong.append(f"{kind}: {outcome}")

    def one(self, kind: str, clients: Any, chance: random.Random) -> str:
        where = {
            "cancel": "hang",
            "cancel early": "headers",
            "cancel any time": "slow",
            "drop": "hang",
            "raise": "hang",
        }.get(kind, kind)
        stream = clients[where].chat_stream("go")
        if kind == "drop":
            return next(stream) and "dropped"
        if kind == "cancel":
            next(stream)
        if kind.startswith("cancel"):
            timer = threading.Timer(chance.uniform(0, 0.008), stream.cancel)
            timer.start()
            try:
                said = "".join(stream)
                return "whole" if "three" in said else f"ended with {said!r}"
            except Cancelled:
                return "Cancelled"
            finally:
                timer.join()
        with stream:
            for _ in stream:
                if kind == "raise":
                    raise KeyError(kind)
        return "whole" if stream.response.content == WHOLE else stream.response.content

    def check_places(self) -> int:
        taken = 0
        for clients in self.clients:
            for client in clients.values():
                taken += client.limits.pool_size - client._transport.places.free
        return taken

    def close(self) -> None:
        for clients in self.clients:
            for client in clients.values():
                client.close()


def settle(threads: int, files: int) -> None:
    """Wait for what ends by itself, ten seconds at the most."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        gc.collect()
        if threading.active_count() <= threads and descriptors() <= files:
            return
        threading.Event().wait(0.05)


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with LlamaClient("http://127.0.0.1:1", retries=Retries(0)) as client:
        with contextlib.suppress(AgentStreamError):  # starts the clock's thread, which stays
            client.chat("warm up")
    threads, files, memory = threading.active_count(), descriptors(), resident_mib()
    began = time.monotonic()
    with ScriptedServer() as plain, ScriptedServer(tls=True) as tls:
        load = Load([plain, tls])
        numbers = iter(range(count))
        lock = threading.Lock()

        def shared() -> Iterator[int]:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                yield number

        workers = [
            threading.Thread(target=load.work, args=(shared(), seed), daemon=True)
            for seed in range(THREADS)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        taken = load.check_places()
        load.close()
    settle(threads, files)
    seconds = time.monotonic() - began
    for name, number in sorted(load.outcomes.items()):
        print(f"{number:7}  {name}")
    now = (threading.active_count(), descriptors())
    print(
        f"{sum(load.outcomes.values())} streams in {seconds:.0f} s: threads {threads} -> {now[0]},"
        f" descriptors {files} -> {now[1]}, places still taken {taken},"
        f" memory {memory:.0f} -> {resident_mib():.0f} MiB, wrong outcomes {len(load.wrong)}"
    )
    return 1 if now[0] > threads or now[1] > files or taken or load.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
