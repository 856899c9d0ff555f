"""How soon a cancel is felt: `python -m benchmarks.cancel_latency [ROUNDS]` (default 300).

From the call of `cancel` until the reader, blocked in its read, has `Cancelled`;
and how long the call itself takes.  One stream alone and each of sixteen, before
the headers, in a silent body and in one that brings 50 tokens a second; http and
https, client and server in one process; then every other client.  The aim: p99 at
most 20 ms alone and 50 ms with sixteen, the canceller never kept above 1 ms.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

from agentstream import (
    AnthropicClient,
    Cancelled,
    ChatClient,
    LlamaClient,
    OllamaClient,
    OpenAIClient,
    Retries,
    Timeouts,
)
from agentstream.testing import (
    Hang,
    Pause,
    ScriptedServer,
    messages_chunks,
    ollama_chunks,
    responses_chunks,
    text_chunks,
)

AIM_MS = {1: 20.0, 16: 50.0}


class Wire(NamedTuple):
    """A client, and how its server's answers begin; the last piece may come again and again."""

    make: Callable[..., ChatClient]
    pieces: List[bytes]
    content_type: str = "text/event-stream"


def _openai(url: str, **settings: Any) -> ChatClient:
    return OpenAIClient("m", base_url=url, api="responses", **settings)


def _anthropic(url: str, **settings: Any) -> ChatClient:
    return AnthropicClient("m", base_url=url, **settings)


def _ollama(url: str, **settings: Any) -> ChatClient:
    return OllamaClient("m", url, **settings)


WIRES: Dict[str, Wire] = {
    "chat": Wire(LlamaClient, text_chunks("a", finish_reason=None, usage=False, done=False)),
    "responses": Wire(_openai, responses_chunks("a")[:5]),
    "messages": Wire(_anthropic, messages_chunks("a")[:3]),
    "ollama": Wire(_ollama, ollama_chunks("a", done=False), "application/x-ndjson"),
}


class Case(NamedTuple):
    wire: str
    tls: bool
    place: str  # "headers", "body" or "flow"
    streams: int


class Reader:
    """A thread that reads one stream to its end."""

    def __init__(self, client: ChatClient) -> None:
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
    wire = WIRES[case.wire]
    with ScriptedServer(tls=case.tls) as server:
        if case.place == "headers":
            server.default(before_headers=[Hang()])
        else:
            flow = [Pause(0.02), wire.pieces[-1]] * 1500 if case.place == "flow" else []
            server.default(*wire.pieces, *flow, Hang(), content_type=wire.content_type)
        with wire.make(
            server.url,
            api_key="k",
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
    print("                       case      n   p50 ms   p99 ms   max ms   cancel() p99 / max ms")
    for case in _cases():
        felt, called = measure(case, rounds)
        name = f"{case.wire} {'https' if case.tls else 'http'} {case.place}"
        aim, p99 = AIM_MS[case.streams], part(felt, 0.99)
        failed += p99 > aim
        print(
            f"{name:>22} x{case.streams:<3} {len(felt):6}"
            f" {part(felt, 0.5):8.2f} {p99:8.2f} {felt[-1]:8.2f}"
            f"   {part(called, 0.99):8.2f} / {called[-1]:.2f}"
            + ("" if p99 <= aim else f"   ABOVE {aim:g}"),
            flush=True,
        )
    return 1 if failed else 0


def _cases() -> List[Case]:
    places = ("headers", "body", "flow")
    cases = [Case("chat", tls, p, n) for n in (1, 16) for tls in (False, True) for p in places]
    others = [wire for wire in WIRES if wire != "chat"]
    return cases + [Case(wire, False, p, n) for n in (1, 16) for wire in others for p in places]


if __name__ == "__main__":
    sys.exit(main())
