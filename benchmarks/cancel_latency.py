"""How soon a cancel is felt: `python -m benchmarks.cancel_latency [ROUNDS]` (default 300).

From the call of `cancel` until the reader, blocked in its read, has `Cancelled`;
and how long the call itself takes.  One stream alone and each of sixteen, before
the headers, in a silent body and in one that brings 50 tokens a second; http and
https, client and server in one process.  The aim: p99 at most 20 ms alone
and 50 ms with sixteen, the canceller never kept above 1 ms.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import List, NamedTuple, Tuple

from agentstream import Cancelled, LlamaClient, Retries, Timeouts
from agentstream.testing import Hang, Pause, ScriptedServer, text_chunks

AIM_MS = {1: 20.0, 16: 50.0}


class Case(NamedTuple):
    tls: bool
    place: str  # "headers", "body" or "flow"
    streams: int


class Reader:
    """A thread that reads one stream to its end."""

    def __init__(self, client: LlamaClient) -> None:
        self.stream = client.chat_stream("go")
        self.began = threading.Event()
        self.ended = 0.0
        self.outcome = "nothing"
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            for _ in self.stream:
                self.began.set()
            self.outcome = "ended"
        except Cancelled:
            self.ended = time.perf_counter()
            self.outcome = "cancelled"


def measure(case: Case, rounds: int) -> Tuple[List[float], List[float]]:
    """Milliseconds until each reader was free, and until each canceller was; sorted."""
    felt: List[float] = []
    called: List[float] = []
    with ScriptedServer(tls=case.tls) as server:
        if case.place == "headers":
            server.default(before_headers=[Hang()])
        else:
            head, token = text_chunks("a", finish_reason=None, usage=False, done=False)
            flow = [Pause(0.02), token] * 1500 if case.place == "flow" else []
            server.default(head, token, *flow, Hang())
        with LlamaClient(
            server.url,
            verify=server.ca_file or True,
            retries=Retries(0),
            timeouts=Timeouts(connect=30, first_token=60, stall=60),
        ) as client:
            asked = 0
            while len(felt) < rounds:
                readers = [Reader(client) for _ in range(case.streams)]
                asked += case.streams
                if case.place != "headers":
                    for reader in readers:
                        reader.began.wait(30)
                server.wait_requests(asked, 30)
                threading.Event().wait(0.005)  # until they are in their reads
                for reader in readers:
                    began = time.perf_counter()
                    reader.stream.cancel()
                    done = time.perf_counter()
                    reader.thread.join(30)
                    if reader.outcome != "cancelled":
                        raise SystemExit(f"{case}: a reader {reader.outcome}")
                    felt.append((reader.ended - began) * 1000)
                    called.append((done - began) * 1000)
    return sorted(felt), sorted(called)


def part(values: List[float], share: float) -> float:
    """The value below which `share` of the sorted values lie."""
    return values[min(len(values) - 1, int(len(values) * share))]


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    failed = 0
    print("              case      n   p50 ms   p99 ms   max ms   cancel() p99 / max ms")
    for streams in (1, 16):
        for tls in (False, True):
            for place in ("headers", "body", "flow"):
                felt, called = measure(Case(tls, place, streams), rounds)
                scheme = "https" if tls else "http"
                p99 = part(felt, 0.99)
                failed += p99 > AIM_MS[streams]
                print(
                    f"{scheme:>5} {place:>7} x{streams:<3} {len(felt):6}"
                    f" {part(felt, 0.5):8.2f} {p99:8.2f} {felt[-1]:8.2f}"
                    f"   {part(called, 0.99):8.2f} / {called[-1]:.2f}"
                    + ("" if p99 <= AIM_MS[streams] else f"   ABOVE {AIM_MS[streams]:g}")
                )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
