"""What fork and exit do to an event stream."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def run(script: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


FORKS = """
import os, signal, sys, threading, warnings
from agentstream.events.stream import EventStream
from agentstream.events.store import MemoryStore

warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads: what it is all about
sys.setswitchinterval(1e-4)
store = MemoryStore(1000)
stream = EventStream(store)
other = EventStream(store)  # two streams over one store
stop = threading.Event()
parents, childs = [], threading.Event()
CHILD = [False]

def callback(event):
    if CHILD[0]:
        childs.set()
    else:
        parents.append(event.offset)

stream.subscribe(callback, workflow_id="p0", max_queue=100)

def work(name):
    log = stream.open_log(name)
    while not stop.wait(0.0005):  # without a breath, three would keep a fourth from the lock
        for _ in range(20):
            log.append("agent_llm_stream_chunk", {"a": "b"})

def child(number, iterated):
    signal.alarm(1)
    CHILD[0] = True
    # The main thread of the child is the one that held the locks: another one must get them.
    appended = []
    thread = threading.Thread(
        target=lambda: appended.append(stream.append("system_warning", f"c{number}")))
    thread.start()
    thread.join()
    assert appended[0].offset == 1
    fresh = stream.subscribe(workflow_id="q")
    stream.append("system_warning", "q")
    assert next(fresh).offset == 1
    assert [next(iterated).offset for _ in range(3)] == [1, 2, 3]  # queued before the fork
    stream.append("system_warning", f"i{number}")
    assert next(iterated).offset == 4
    other.append("system_warning", "r")
    from agentstream.events.stream import RunLog
    log = RunLog(stream, "p0", None)  # the callback has a thread here too
    log.offset = store.bounds("p0").last
    log.append("system_warning", {})
    assert childs.wait(1)
    stream.close()

threads = [threading.Thread(target=work, args=(f"p{n}",), daemon=True) for n in range(3)]
for thread in threads:
    thread.start()
for number in range(int(sys.argv[1])):
    iterated = stream.subscribe(workflow_id=f"i{number}")
    for _ in range(3):
        stream.append("system_warning", f"i{number}")
    pid = os.fork()
    if pid == 0:
        try:
            child(number, iterated)
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert status == 0, (number, status)
stop.set()
for thread in threads:
    thread.join()
stream.append("system_warning", "last")
stream.close()
assert parents == sorted(set(parents))
print("forked")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="fork")
def test_r07_a_child_can_publish_though_threads_publish_at_the_fork() -> None:
    done = run(FORKS.replace("sys.argv[1]", "100"))
    assert done.stdout.strip() == "forked", done.stderr[-2000:]


EXIT = """
import threading
from agentstream.events.stream import EventStream
stream = EventStream()
seen = []
stuck = threading.Event()

def callback(event):
    seen.append(event.offset)
    if {stuck}:
        stuck.wait()
    if len(seen) == 100:
        print("all", flush=True)

stream.subscribe(callback)
for _ in range(100):
    stream.append("system_warning", "w")
{raising}
"""


@pytest.mark.parametrize("raising", ["", "raise SystemExit(0)"])
def test_r04_exit_delivers_what_is_queued_and_does_not_hang(raising: str) -> None:
    began = time.monotonic()
    done = run(EXIT.format(stuck=False, raising=raising))
    assert (done.returncode, done.stdout, done.stderr) == (0, "all\n", "")
    assert time.monotonic() - began < 10.0


def test_r04_exit_does_not_hang_on_a_stuck_callback() -> None:
    began = time.monotonic()
    done = run(EXIT.format(stuck=True, raising=""), timeout=15.0)
    assert (done.returncode, done.stdout) == (0, "")
    assert time.monotonic() - began < 10.0  # a second's grace, and a slow machine
