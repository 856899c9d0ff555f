"""What `otel.instrument` costs a chunk and a run, in CPU time of this process.

    python -m benchmarks.tracing [REPEATS]

Runs of few and of many chunks, traced by the real SDK and not, in turns: a chunk's price is the
slope between the two, a run's what is left of a short one.  Medians.  The model is a process of
its own behind a socket, a write a chunk.  Exits with 1 above 1.05 times for a chunk.  Needs
opentelemetry-sdk.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Dict, List, Tuple

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentstream import Agent, LlamaClient, Runtime, otel
from agentstream.testing import Reply, ScriptedServer
from agentstream.testing.request import Request

MOST = 1.05
FEW, MANY = 10, 5_000
_RUNS = 50  # of few chunks


def serve() -> None:
    """Be the model, until standard input ends: says as many words as the model's name tells."""

    def answer(request: Request) -> Reply:
        return Reply.text(*["word "] * int(request.json["model"]))

    with ScriptedServer() as server:
        server.route("/v1/chat/completions", answer)
        print(server.url, flush=True)
        sys.stdin.read()


class Bench:
    """Runs of one runtime, traced or not."""

    def __init__(self, url: str, *, traced: bool) -> None:
        self._agents = {
            words: Agent("writer", client=LlamaClient(url, model=str(words)))
            for words in (FEW, MANY)
        }
        self._runtime = Runtime()
        self._tracers = TracerProvider()
        self._tracers.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
        if traced:
            meters = MeterProvider([InMemoryMetricReader()])
            otel.instrument(self._runtime.event_stream, self._tracers, meters, propagate=True)

    def costs(self) -> Tuple[float, float]:
        """CPU seconds of a chunk, and of a run besides."""
        few, many = self._cpu(FEW, _RUNS), self._cpu(MANY, 2)
        chunk = (many - few) / (MANY - FEW)
        return chunk, few - FEW * chunk

    def _cpu(self, words: int, runs: int) -> float:
        began = time.process_time()
        for _ in range(runs):
            self._runtime.run(self._agents[words], "go")
        return (time.process_time() - began) / runs

    def close(self) -> None:
        self._runtime.shutdown()
        self._tracers.shutdown()


def measure(repeats: int) -> Dict[bool, Tuple[float, float]]:
    """{traced: `Bench.costs`}, medians."""
    command = [sys.executable, "-c", "from benchmarks.tracing import serve; serve()"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as model:
        assert model.stdout is not None
        url = model.stdout.readline().strip()
        benches = {traced: Bench(url, traced=traced) for traced in (False, True)}
        taken: Dict[bool, List[Tuple[float, float]]] = {False: [], True: []}
        for _ in range(repeats + 1):
            for traced, bench in benches.items():
                taken[traced].append(bench.costs())
        for bench in benches.values():
            bench.close()
        model.communicate()
    found = {}
    for traced, pairs in taken.items():
        chunks, runs = zip(*pairs[1:])  # the first warms up
        found[traced] = statistics.median(chunks), statistics.median(runs)
    return found


def main() -> int:
    """Measure, print, judge."""
    found = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
    plain, traced = found[False], found[True]
    ratio = traced[0] / plain[0]
    print(f"a chunk: {plain[0] * 1e6:.2f} us CPU, traced {traced[0] * 1e6:.2f} (x {ratio:.3f})")
    print(f"a run besides: {plain[1] * 1e6:.0f} us CPU, traced {traced[1] * 1e6:.0f}")
    return 0 if ratio <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
