"""Signals while a program appends, stops and closes: nothing lost, nothing hung.

    python stress/signals.py 10000

For each act and each store a child process whose main thread uses an event
stream without pause, while signals come at random moments; the handler does the
act.  Every append that returned must be in the log, each workflow's offsets
without a gap, and no signal may take longer than a few seconds.

    append  the handler appends to logs of its own and to the main thread's
    store   the same without a stream, on the store itself; it asks and flushes too
    stop    the handler stops the run that the main thread waits for
    close   the handler closes the stream that the main thread appends to

Prints a line of JSON an act and store; exits 1 if something was lost or hung.
"""

from __future__ import annotations

import argparse
import faulthandler
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Tuple

from agentstream import (
    Cancelled,
    EventStream,
    LogError,
    MemoryStore,
    Runtime,
    SqliteStore,
    Workflow,
)
from agentstream.events.model import EventType, make_event

WARNING = EventType.SYSTEM_WARNING
#: Seconds without a signal being dealt with after which a child is taken for hung.
_HUNG_S = 30.0
_LOGS = 8
_MOST = 2_000_000  # that a MemoryStore keeps; no child appends as many
_DEEPEST = 3  # handlers that interrupt one another


@contextmanager
def signals(handle: Callable[[int, int], None], seconds: float) -> Iterator[List[float]]:
    """Send SIGUSR1 to this process, at random up to `seconds` apart; yields how long each took.

    `handle` gets the signal's number and how many handlers it has interrupted.
    """
    took: List[float] = []
    over = threading.Event()
    numbers = itertools.count()
    under_way: List[int] = []

    def handler(*_: Any) -> None:
        number, depth = next(numbers), len(under_way)
        under_way.append(number)
        began = time.perf_counter()
        try:
            handle(number, depth)
        finally:
            under_way.pop()
            took.append(time.perf_counter() - began)
            faulthandler.dump_traceback_later(_HUNG_S, exit=True)

    def send() -> None:
        while not over.is_set():
            over.wait(random.random() * seconds)
            if not over.is_set() and len(under_way) < _DEEPEST:
                os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    faulthandler.dump_traceback_later(_HUNG_S, exit=True)
    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield took
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
        faulthandler.cancel_dump_traceback_later()


def store_of(kind: str) -> Tuple[Any, Callable[[], Any]]:
    """A new store, and how to read it after its end."""
    if kind == "memory":
        store = MemoryStore(_MOST)
        return store, lambda: store
    path = os.path.join(tempfile.mkdtemp(), "runs.db")
    durability = "full" if kind == "full" else "normal"
    return SqliteStore(path, durability=durability), lambda: SqliteStore(path)


def missing(reopen: Callable[[], Any], acknowledged: List[str]) -> Dict[str, int]:
    """How many of the acknowledged marks are not in the log, and how many gaps it has."""
    with_close = reopen()
    kept: Dict[str, int] = {}
    offsets: Dict[str, List[int]] = {}
    after = 0
    while True:
        page = with_close.read(after=after, limit=5000)
        if not page:
            break
        for one in page:
            after = one.position
            kept[one.data.get("mark", "")] = kept.get(one.data.get("mark", ""), 0) + 1
            offsets.setdefault(one.workflow_id, []).append(one.offset)
    with_close.close()
    return {
        "lost": sum(mark not in kept for mark in acknowledged),
        "twice": sum(kept.get(mark, 0) > 1 for mark in acknowledged),
        "gaps": sum(found != list(range(1, len(found) + 1)) for found in offsets.values()),
    }


# --- the acts ---------------------------------------------------------------------------------


def act_append(kind: str, count: int) -> Dict[str, Any]:
    store, reopen = store_of(kind)
    stream = EventStream(store)
    acknowledged: List[str] = []
    refused: List[str] = []

    def handle(signal_number: int, _: int) -> None:
        mark = f"handler {signal_number}"
        name = "main" if signal_number % 4 == 0 else f"handler{signal_number % _LOGS}"
        try:
            stream.append(WARNING, name, {"mark": mark})
            acknowledged.append(mark)
        except LogError as error:
            refused.append(str(error))

    number = 0
    with signals(handle, 0.001) as took:
        while len(took) < count:
            if number > 1000 + len(took) * (_MOST // 2 // count):  # it runs ahead of the signals
                store.read(workflow_id="main", after=number // 2, limit=3)
                continue
            mark = f"main {number}"
            stream.append(WARNING, "main", {"mark": mark})
            acknowledged.append(mark)
            number += 1
    stream.close()
    found = missing(reopen, acknowledged)
    return {"appends": len(acknowledged), "refused": len(refused), **found, **slowest(took)}


def act_store(kind: str, count: int) -> Dict[str, Any]:
    store, reopen = store_of(kind)
    acknowledged: List[str] = []
    offsets: Dict[str, int] = {}

    def append(name: str) -> None:
        offset = offsets[name] = offsets.get(name, 0) + 1
        mark = f"{name} {offset}"
        data = {"mark": mark}
        store.append(
            make_event((f"{name}:{offset}", offset, None, WARNING, name, None, time.time(), data))
        )
        acknowledged.append(mark)

    def handle(number: int, depth: int) -> None:
        append(f"nested{number}" if depth else f"handler{number % 500}")
        if number % 10 == 0:
            store.request_stop("main", "why")
        elif number % 10 == 1:
            store.flush()
        elif number % 10 == 2:
            store.bounds()
        elif number % 10 == 3:
            store.read(limit=5)
        elif number % 10 == 4:
            store.runs(limit=3)

    number = 0
    with signals(handle, 0.001) as took:
        while len(took) < count:
            if number > 1000 + len(took) * (_MOST // 2 // count):
                store.runs(limit=20)
                continue
            append("main")
            number += 1
            if number % 50 == 0:
                append(f"main{number}")
            if number % 500 == 0:
                store.read(after=0, limit=20)
    store.close()
    return {"appends": len(acknowledged), **missing(reopen, acknowledged), **slowest(took)}


def act_stop(kind: str, count: int) -> Dict[str, Any]:
    store, _ = store_of(kind)
    ended = {"cancelled": 0, "completed": 0}

    def step(text: str, context: Any) -> str:
        context.cancel.wait(0.5)
        return text

    with EventStream(store) as stream, Runtime(event_stream=stream) as runtime:
        current = [""]

        def handle(signal_number: int, _: int) -> None:
            runtime.stop_generation(current[0], "a signal")
            stream.append(WARNING, "handler", {"mark": f"handler {signal_number}"})

        number = 0
        with signals(handle, 0.002) as took:
            while len(took) < count:
                number += 1
                current[0] = f"run{number}"
                try:
                    runtime.run(Workflow("w", [step]), "x", workflow_id=current[0])
                    ended["completed"] += 1
                except Cancelled:
                    ended["cancelled"] += 1
    return {**ended, "lost": 0, **slowest(took)}


def act_close(kind: str, count: int) -> Dict[str, Any]:
    total = {"appends": 0, "lost": 0, "twice": 0, "gaps": 0}
    longest: List[float] = []
    closed = 0
    while closed < count:
        store, reopen = store_of(kind)
        stream = EventStream(store)
        acknowledged: List[str] = []
        number = 0
        with signals(lambda *_, stream=stream: stream.close(), 0.004) as took:  # type: ignore[misc]
            try:
                while True:
                    mark = f"main {number}"
                    stream.append(WARNING, f"main{number % 3}", {"mark": mark})
                    acknowledged.append(mark)
                    number += 1
            except LogError:
                pass
        stream.close()
        closed += max(1, len(took))
        longest += took
        total["appends"] += len(acknowledged)
        for name, value in missing(reopen, acknowledged).items():
            total[name] += value
    return {**total, **slowest(longest)}


def slowest(took: List[float]) -> Dict[str, Any]:
    return {"signals": len(took), "slowest_ms": round(max(took, default=0.0) * 1000, 1)}


ACTS = {"append": act_append, "store": act_store, "stop": act_stop, "close": act_close}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("--act", choices=list(ACTS), action="append")
    parser.add_argument("--store", choices=["memory", "sqlite", "full"], action="append")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    acts, stores = given.act or list(ACTS), given.store or ["memory", "sqlite"]
    if given.child:
        print(json.dumps(ACTS[acts[0]](stores[0], given.count)))
        return 0
    wrong = 0
    for act in acts:
        for kind in stores:
            arguments = [str(given.count), "--act", act, "--store", kind, "--child"]
            began = time.monotonic()
            done = subprocess.run(
                [sys.executable, __file__, *arguments], capture_output=True, text=True, check=False
            )
            found = json.loads(done.stdout) if done.stdout else {"hung": done.stderr[-3000:]}
            seconds = round(time.monotonic() - began, 1)
            print(json.dumps({"act": act, "store": kind, **found, "seconds": seconds}), flush=True)
            wrong += any(found.get(name) for name in ("lost", "twice", "gaps", "hung"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
