"""What checkpoints cost: CPU a round and a chunk, with them and without; and bytes in the file.

    python -m benchmarks.checkpoints [runs]

An agent of 20 rounds, each with a call whose result is 1,000 characters long, so that the
history grows to some 20 kB, over a SQLite log; the model is a function of this process that
takes 20 ms to answer, in which the log commits what it has, as it does beside a real one.
Runs with checkpoints and without take turns, and the smallest of each counts.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from typing import Any, Dict, Iterator, Optional

from agentstream import (
    Agent,
    ChatClient,
    Delta,
    EventStream,
    Runtime,
    SqliteStore,
    ToolCall,
    ToolLimits,
    tool,
)
from agentstream.testing import ScriptedClient

ROUNDS, CHUNKS, THINKS_S = 20, 2000, 0.02


class Model(ChatClient):
    """Calls a tool in so many rounds, or writes so many chunks."""

    provider = model = "function"

    def __init__(self, rounds: int, chunks: int = 1) -> None:
        self.rounds = rounds
        self.chunks = chunks

    def stream_deltas(self, request: Any, *, cancel: Any = None) -> Iterator[Delta]:
        threading.Event().wait(THINKS_S)
        number = sum(message.role == "assistant" for message in request.messages)
        if number < self.rounds:
            call = ToolCall(f"call-{number}", "look", f'{{"what": "{number}"}}')
            yield from ScriptedClient([call]).stream_deltas(request, cancel=cancel)
        else:
            for _ in range(self.chunks):
                yield Delta("word ")
            yield Delta("", finish_reason="stop")


@tool
def look(what: str) -> str:
    """Look something up."""
    return what + "x" * 1000


def measured(agent: Agent, checkpoints: Optional[bool], runs: int) -> Dict[str, float]:
    """CPU seconds of this process a run, and the log's bytes for all of them."""
    with tempfile.TemporaryDirectory(prefix="agentstream-checkpoints-") as folder:
        path = os.path.join(folder, "runs.db")
        with Runtime(event_stream=EventStream(SqliteStore(path)), checkpoints=checkpoints) as it:
            it.run(agent, "x" * 2000)
            began = time.process_time()
            for _ in range(runs):
                it.run(agent, "x" * 2000)
            took = (time.process_time() - began) / runs
        return {"cpu_s": took, "bytes": float(os.path.getsize(path))}


def main(runs: int) -> None:
    """Measure, and print."""
    limits = ToolLimits(max_rounds=ROUNDS + 1)
    rounds = Agent("rounds", Model(ROUNDS), tools=[look], tool_limits=limits)
    words = Agent("words", Model(0, CHUNKS))
    for agent, count, unit in ((rounds, ROUNDS, "round"), (words, CHUNKS, "chunk")):
        best: Dict[Optional[bool], Dict[str, float]] = {}
        for _ in range(5):
            for kept in (None, True):
                found = measured(agent, kept, runs)
                if kept not in best or found["cpu_s"] < best[kept]["cpu_s"]:
                    best[kept] = found
        off, on = (best[kept]["cpu_s"] / count * 1e6 for kept in (None, True))
        print(f"a {unit}: {off:.1f} us without, {on:.1f} us with checkpoints: {on - off:+.1f} us")
        sizes = [best[kept]["bytes"] / (runs + 1) / 1024 for kept in (None, True)]
        print(f"  the log: {sizes[0]:.1f} kB a run without, {sizes[1]:.1f} kB with")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
