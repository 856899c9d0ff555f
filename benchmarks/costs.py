"""What a client costs, measured in a process of its own: CPU a chunk, first token, memory.

These functions run in the process that `benchmarks.worker` is; each returns what
JSON can hold.
"""

from __future__ import annotations

import time
from typing import Any, Dict, List

from benchmarks.clients import Client
from benchmarks.wires import WIRES

_made: Dict[Any, Client] = {}


def client_for(name: str, root: str) -> Client:
    """The client at `root`; made once, and used again."""
    key = name, root
    if key not in _made:
        _made[key] = WIRES[name](root)
    return _made[key]


def cpu(client: str, url: str, chunks: int) -> Dict[str, float]:
    """Process CPU seconds of one answer of `chunks` deltas; all threads count."""
    it: Any = client_for(client, f"{url}/chunks={chunks}")
    it.capacity = chunks + 100  # so that every callback has them all to deal with
    began, cpu_began = time.perf_counter(), time.process_time()
    count = it.drain()
    spent, took = time.process_time() - cpu_began, time.perf_counter() - began
    assert count >= chunks, f"{client}: {count} texts of {chunks}"
    return {"cpu_s": spent, "wall_s": took, "us_a_chunk": spent / chunks * 1e6}


def cpu_with_subscribers(url: str, chunks: int, subscribers: int) -> Dict[str, float]:
    """The whole way with that many callbacks."""
    it: Any = client_for("agentstream, whole way", f"{url}/chunks={chunks}")
    it.subscribers, it.capacity = subscribers, chunks + 100
    began = time.process_time()
    it.drain()
    return {"us_a_chunk": (time.process_time() - began) / chunks * 1e6}


def first_token(client: str, url: str, calls: int) -> List[float]:
    """Milliseconds to the first text, of `calls` calls one after the other.

    The second token comes 10 ms after the first: who reads it while it hands out the
    first one is not slower for that.
    """
    it = client_for(client, f"{url}/chunks=5&pause=0.01")
    return [it.first_token() * 1000 for _ in range(calls)]


def peak_memory() -> float:
    """The most memory this process has held, in MiB."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    import resource  # elsewhere: good enough

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(url: str, chunks: int, client: str = "agentstream, whole way") -> Dict[str, float]:
    """The peak of a fresh process that read one answer, and the size of its text, in MiB."""
    from benchmarks.replay_server import text_of

    client_for(client, f"{url}/chunks=100").drain()
    before = peak_memory()
    it: Any = client_for(client, f"{url}/chunks={chunks}")
    it.drain()
    peak = peak_memory()
    text = len(text_of(1000)) / 1000 * chunks / 2**20
    return {"peak": peak, "before": before, "text": text, "missed": getattr(it, "missed", 0)}
