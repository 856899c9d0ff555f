"""What a signal handler may do while its own thread is in the middle of the same (B13)."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys

import pytest

PROJECT = pathlib.Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")

# Each program runs in a process of its own: the timer's signals are for the whole process.
_HEAD = """
import faulthandler, itertools, signal, sys, threading, time
from agentstream import Closed, EventStream, EventType, LogError, MemoryStore, SqliteStore
faulthandler.dump_traceback_later(60, exit=True)
CHUNK, END = EventType.AGENT_LLM_STREAM_CHUNK, EventType.WORKFLOW_COMPLETED
path, signals = sys.argv[1], int(sys.argv[2])
store = MemoryStore(capacity=1_000_000) if path == "memory" else SqliteStore(path, max_queue=10**6)
stream = EventStream(store)
came = itertools.count()
handled = 0

def on(handler):
    # One at a time: a timer that is quicker than its handler would leave the program no time.
    def guarded(*_):
        global handled
        if handled >= signals:
            return
        handled += 1
        handler()
        if handled < signals:
            signal.setitimer(signal.ITIMER_REAL, 0.0003)
    signal.signal(signal.SIGALRM, guarded)
    signal.setitimer(signal.ITIMER_REAL, 0.0003)

def whole(workflow_id, count):
    events = store.read(workflow_id=workflow_id, limit=10**7)
    assert [e.offset for e in events] == list(range(1, count + 1)), (workflow_id, count, len(events))
"""

_APPENDS = """
log = stream.open_log("main")
own = stream.open_log("handlers")
heard, lagging = [], stream.subscribe(max_queue=10)
stream.subscribe(heard.append)
mine = [[], [], []]  # what was appended; a handler may be interrupted by another: no counters

def handler():
    own.append(CHUNK, {"n": len(mine[0])}); mine[0].append(1)
    log.append(CHUNK, {"handler": True}); mine[1].append(1)
    stream.append("system_warning", "ops", {}); mine[2].append(1)

on(handler)
count = 0
while handled < signals:
    log.append(CHUNK, {"n": count}); count += 1
    store.read(workflow_id="main", after=count - 3)
    if not count % 50:
        lagging.get(0)
handled = signals
log.append(END, {})
stream.close(30)
whole("main", count + len(mine[1]) + 1)
whole("handlers", len(mine[0]))
whole("ops", len(mine[2]))
total = count + sum(map(len, mine)) + 1
assert len(heard) == total, (len(heard), total)
"""

_SUBSCRIBES = """
log = stream.open_log("main")
held = []

def handler():
    held.append(stream.subscribe(workflow_id="main" if handled % 2 else None, max_queue=5))
    held[len(held) // 2].close(0)
    if len(held) > 20:
        held.pop(0).close(0)

on(handler)
count = 0
while handled < signals:
    log.append(CHUNK, {"n": count}); count += 1
    if not count % 5:
        with stream.subscribe(workflow_id="main"):
            pass
handled = signals
log.append(END, {})
for subscription in held:
    subscription.close()
    for event in subscription:
        pass
assert len(stream._subscribers) == 0, stream._subscribers.all()
stream.close(10)
whole("main", count + 1)
"""

_CLOSES = """
for turn in range(signals // 10):
    stream = EventStream(MemoryStore() if path == "memory" else store)
    heard = []
    stream.subscribe(heard.append)
    log = stream.open_log(f"run-{turn}")
    closed = []
    def handler():
        if not closed:
            closed.append(True)
            stream.close(5)
    handled = 0
    on(handler)
    count = 0
    try:
        while True:
            log.append(CHUNK, {}); count += 1
    except LogError:
        pass
    handled = signals
    signal.setitimer(signal.ITIMER_REAL, 0)
    stream.close(5)
    assert len(heard) == count, (turn, len(heard), count)
    if path != "memory":
        break
"""


@pytest.mark.parametrize("store", ["memory", "sqlite"])
@pytest.mark.parametrize(
    "program", [_APPENDS, _SUBSCRIBES, _CLOSES], ids=["append", "subscribe", "close"]
)
def test_b13_a_thousand_signals_in_the_middle_of_it(
    tmp_path: pathlib.Path, store: str, program: str
) -> None:
    path = "memory" if store == "memory" else str(tmp_path / "runs.db")
    done = subprocess.run(
        [sys.executable, "-c", _HEAD + program, path, "1000"],
        cwd=PROJECT,
        check=False,
        timeout=90,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-4000:]
