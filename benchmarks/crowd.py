"""Many paced streams at once in one process: how late the text is, and what it costs.

Each delta's text is the time at which the server had to send it; what is
measured is how much later it is in the hands of whoever asked for it.
"""

from __future__ import annotations

import asyncio  # for the peer: AsyncOpenAI knows no other way
import statistics
import sys
import threading
import time
from typing import Any, Callable, Dict, List

from benchmarks.clients import BODY

_PATIENCE = 120.0


def _summary(late: List[float], cpu: float, streams: int, finished: int) -> Dict[str, float]:
    late.sort()
    count = len(late)
    return {
        "streams": streams,
        "finished": finished,
        "texts": count,
        "p50_ms": late[count // 2] * 1000,
        "p99_ms": late[min(count - 1, int(count * 0.99))] * 1000,
        "max_ms": late[-1] * 1000,
        "mean_ms": statistics.fmean(late) * 1000,
        "us_a_chunk": cpu / count * 1e6,
    }


def whole_way(url: str, streams: int, chunks: int, rate: float) -> Dict[str, float]:
    """Runs of an agent in one Runtime, one callback on the bus, which hears them all."""
    from agentstream import Agent, EventType, OpenAIClient, Runtime, Workflow

    late: List[float] = []
    monotonic = time.monotonic

    def on_chunk(event: Any) -> None:
        late.append(monotonic() - float(event.data["chunk"]))

    base = f"{url}/chunks={chunks}&rate={rate}/v1"
    client = OpenAIClient("m", base_url=base, api_key="k")
    workflow = Workflow("w", [Agent("a", client=client)])
    began = time.process_time()
    with Runtime(max_workers=streams) as runtime:
        runtime.event_stream.subscribe(on_chunk, types=[EventType.AGENT_LLM_STREAM_CHUNK])
        handles = [runtime.submit(workflow, "hi") for _ in range(streams)]
        runs = [handle.result(_PATIENCE) for handle in handles]
    cpu = time.process_time() - began
    client.close()
    return _summary(late, cpu, streams, sum(run.status == "completed" for run in runs))


def _in_threads(streams: int, read: Callable[[Callable[[str], None]], None]) -> Dict[str, float]:
    late: List[float] = []
    finished: List[int] = []
    monotonic = time.monotonic

    def take(text: str) -> None:
        late.append(monotonic() - float(text))

    def work() -> None:
        read(take)
        finished.append(1)

    began = time.process_time()
    workers = [threading.Thread(target=work, daemon=True) for _ in range(streams)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(_PATIENCE)
    cpu = time.process_time() - began
    return _summary(late, cpu, streams, len(finished))


def chat_streams(url: str, streams: int, chunks: int, rate: float) -> Dict[str, float]:
    """`chat_stream` in as many plain threads."""
    from agentstream import OpenAIClient

    base = f"{url}/chunks={chunks}&rate={rate}/v1"
    with OpenAIClient("m", base_url=base, api_key="k") as client:

        def read(take: Callable[[str], None]) -> None:
            for text in client.chat_stream("hi"):
                take(text)

        return _in_threads(streams, read)


def async_openai(url: str, streams: int, chunks: int, rate: float) -> Dict[str, float]:
    """AsyncOpenAI, a task a stream."""
    import openai

    late: List[float] = []
    monotonic = time.monotonic

    async def one(client: Any) -> None:
        async for chunk in await client.chat.completions.create(**BODY):
            if chunk.choices and chunk.choices[0].delta.content:
                late.append(monotonic() - float(chunk.choices[0].delta.content))

    async def all_of_them() -> List[Any]:
        base = f"{url}/chunks={chunks}&rate={rate}/v1"
        async with openai.AsyncOpenAI(base_url=base, api_key="k", max_retries=0) as client:
            tasks = [one(client) for _ in range(streams)]
            return await asyncio.gather(*tasks, return_exceptions=True)

    began = time.process_time()
    outcomes = asyncio.run(all_of_them())
    cpu = time.process_time() - began
    return _summary(late, cpu, streams, sum(outcome is None for outcome in outcomes))


def whole_way_unhurried(url: str, streams: int, chunks: int, rate: float) -> Dict[str, float]:
    """`whole_way` with Python's switch interval at 20 ms: what its 5 ms cost so many threads."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.02)
    try:
        return whole_way(url, streams, chunks, rate)
    finally:
        sys.setswitchinterval(before)


WAYS = {
    "whole way": whole_way,
    "whole way, 20 ms": whole_way_unhurried,
    "chat_stream": chat_streams,
    "AsyncOpenAI": async_openai,
}


def crowd(way: str, **settings: Any) -> Dict[str, float]:
    """One of `WAYS`."""
    return WAYS[way](**settings)
