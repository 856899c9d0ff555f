"""Subscribers that lag when they are closed, and such as are suspended while the log is trimmed.

    python -m stress.subscribers [--closes 10000] [--suspensions 1000]

Prints how many events were lost in silence; none may be.
"""

from __future__ import annotations

import argparse
import logging
import os
import pathlib
import sys
import tempfile
import threading
import time
from typing import Any, List

from agentstream import EventStream, EventType, MemoryStore, SqliteStore

CHUNK = EventType.AGENT_LLM_STREAM_CHUNK
MISSED = EventType.EVENTS_MISSED
_EVENTS = 300  # a turn
_PATIENCE = 60.0


def closes(count: int, folder: pathlib.Path) -> int:
    """Close `count` subscriptions that lag, over both stores; returns how many events were lost."""
    lost = done = 0
    while done < count:
        sqlite = done % 20 < 10
        path = folder / f"closes-{done // 1000}.db"
        stream = EventStream(SqliteStore(path) if sqlite else MemoryStore())
        gate = threading.Event()
        heard: List[List[Any]] = [[] for _ in range(10)]
        subscriptions = [
            stream.subscribe(lambda event, had=had: (gate.wait(), had.append(event)), max_queue=8)
            for had in heard
        ]
        log = stream.open_log(f"run-{done}")
        for n in range(_EVENTS):
            log.append(CHUNK, {"n": n})
        if done % 40 < 20:
            for subscription in subscriptions:
                subscription.close(0)
        gate.set()
        stream.close(_PATIENCE)
        for subscription, had in zip(subscriptions, heard):
            subscription.close(_PATIENCE)
            lost += _EVENTS - len({event.offset for event in had})
        done += len(heard)
    return lost


def suspensions(count: int, folder: pathlib.Path) -> int:
    """Suspend a tail `count` times while the log is trimmed; returns how many events were lost.

    Those that the subscribers were told to have missed are not lost in silence.
    """
    path = folder / "suspensions.db"
    writer = EventStream(SqliteStore(path, max_events=50))
    store = SqliteStore(path)
    awake = threading.Event()
    awake.set()
    wait = store.wait
    store.wait = lambda after, timeout: (wait(after, timeout), awake.wait())[0]  # type: ignore[method-assign]
    reader = EventStream(store)
    log = writer.open_log("run")
    log.append(CHUNK, {"n": 0})
    writer.store.flush()
    of_all, of_one = reader.subscribe(), reader.subscribe(workflow_id="run")
    reached = [1, 1]
    lost = 0
    for turn in range(count):
        awake.clear()
        for n in range(120):
            log.append(CHUNK, {"n": n})
        writer.store.flush()
        awake.set()
        for place, subscription in enumerate((of_all, of_one)):
            until = time.monotonic() + _PATIENCE
            while reached[place] < log.offset and time.monotonic() < until:
                event = subscription.get(1.0)
                if event is None:
                    continue
                first = event.data["first"] if event.type is MISSED else event.offset
                lost += abs(first - reached[place] - 1)
                reached[place] = event.data["last"] if event.type is MISSED else event.offset
            lost += log.offset - reached[place]
            reached[place] = log.offset
        if turn % 100 == 99:
            print(f"{turn + 1}: missed {of_all.missed}, {of_one.missed}, lost {lost}", flush=True)
    reader.close()
    writer.close()
    return lost


def main() -> int:
    """Run both; the exit code is 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--closes", type=int, default=10_000)
    parser.add_argument("--suspensions", type=int, default=1_000)
    options = parser.parse_args()
    # Those whose callbacks wait for the gate are told of at each close.
    logging.getLogger("agentstream.events").setLevel(logging.ERROR)
    lost = 0
    with tempfile.TemporaryDirectory(prefix="agentstream-subscribers-") as folder:
        for what, number in ((closes, options.closes), (suspensions, options.suspensions)):
            began = time.monotonic()
            found = what(number, pathlib.Path(folder))
            took = time.monotonic() - began
            print(f"{number} {what.__name__}: {found} events lost, {took:.0f} s, pid {os.getpid()}")
            lost += found
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
