"""Kill a process that appends, again and again: no acknowledged event may be lost.

    python stress/kill9.py 10000

Each child appends through an EventStream over SqliteStore(durability="full")
and reports each append that has returned; it is killed at a random moment.  The
next open must find every acknowledged event, no gap, and the run closed as
interrupted, within a second.  Prints a summary as JSON; exits 1 on a loss.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from typing import Any, Dict, List

from agentstream import EventStream, EventType, SqliteStore

CHUNK = EventType.AGENT_LLM_STREAM_CHUNK
RUNS_A_FILE = 200


def child(path: str, run: str, pipe: int) -> None:
    """Append until killed."""
    stream = EventStream(SqliteStore(path, durability="full"))
    log = stream.open_log(run)
    number = 0
    while True:
        number += 1
        log.append(CHUNK, {"agent": "a", "step": "0", "chunk": f"{run} {number}"})
        os.write(pipe, b".")


def kill_one(path: str, run: str, delay: float) -> int:
    """Returns how many appends the child said had returned."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            child(path, run, writer)
        finally:
            os._exit(1)
    os.close(writer)
    acked = len(os.read(reader, 1))  # it has begun; on some rounds it is killed in mid-commit
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    while True:
        data = os.read(reader, 65536)
        if not data:
            break
        acked += len(data)
    os.close(reader)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status), f"the child ended by itself: {status}"
    return acked


def check(path: str, run: str, acked: int, found: Dict[str, Any]) -> None:
    """Open the log again and look."""
    began = time.perf_counter()
    with SqliteStore(path) as store:
        found["slowest_open_s"] = max(found["slowest_open_s"], time.perf_counter() - began)
        events = store.read(workflow_id=run, limit=10**6)
        first, last = store.bounds()
        assert store.lost is None, store.lost
        positions = [e.position for e in store.read(after=last - len(events), limit=10**6)]
    *words, end = events
    found["lost"] += max(0, acked - len(words))
    found["gaps"] += [e.offset for e in events] != list(range(1, len(events) + 1))
    found["gaps"] += positions != list(range(last - len(events) + 1, last + 1)) or first != 1
    found["corrupt"] += any(e.data["chunk"] != f"{run} {e.offset}" for e in words)
    found["not_interrupted"] += end.data.get("error") != "Interrupted"
    found["acknowledged"] += acked
    found["kept"] += len(words)


def main(rounds: int, seed: int = 1) -> int:
    random.seed(seed)
    found: Dict[str, Any] = dict.fromkeys(
        ("kills", "acknowledged", "kept", "lost", "gaps", "corrupt", "not_interrupted"), 0
    )
    found["slowest_open_s"] = 0.0
    began = time.monotonic()
    done = 0
    while done < rounds:
        with tempfile.TemporaryDirectory(prefix="kill9-") as folder:
            path = os.path.join(folder, "runs.db")
            for number in range(min(RUNS_A_FILE, rounds - done)):
                acked = kill_one(path, f"run{number}", random.uniform(0, 0.008))
                check(path, f"run{number}", acked, found)
                done += 1
    found["kills"] = done
    found["seconds"] = round(time.monotonic() - began, 1)
    found["slowest_open_s"] = round(found["slowest_open_s"], 3)
    print(json.dumps(found))
    bad = ("lost", "gaps", "corrupt", "not_interrupted")
    return 1 if any(found[name] for name in bad) or found["slowest_open_s"] > 1 else 0


if __name__ == "__main__":
    arguments: List[str] = sys.argv[1:]
    sys.exit(main(int(arguments[0]) if arguments else 200))
