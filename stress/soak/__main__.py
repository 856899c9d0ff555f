"""`python -m stress.soak [MINUTES] [--seed N] [--streams N] [--log FILE]`: streams under faults.

A loopback server replays answers that follow from the seed (script.py), behind a proxy that
spoils connections (toxics.py).  Calls, agents with tools that raise, are slow or out of time,
workflows of random shapes (shapes.py) and runtimes that are left run side by side and are
stopped at random; children are forked, workers are killed with -9.  Every outcome is recorded as
ok, failed or unknown and held against the invariants of docs/faults.rst; exit code 1 if one is
broken.  Threads, descriptors, pool slots and memory are compared at rest, every few minutes and
at the end.

With --log the events go to an SQLite log that is shared with the workers, a server hands
them out over HTTP, and a remote follower reads every run of it as it goes; at the end the log is
opened again and held against what subscribers had been given, and what killed workers had told
before they died (I5).
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import os
import random
import sys
import threading
import time
from typing import Any

from stress.soak.cases import make_clients
from stress.soak.measures import cpu_s, fds
from stress.soak.processes import run_forked, run_worker_process
from stress.soak.record import (
    SLACK,
    note,
)
from stress.soak.report import check_baseline, check_memory, progress, summary
from stress.soak.session import Soak


def watch(soak: Soak, rng: random.Random, until: float) -> None:
    """The main thread's loop: pace, weather, processes, watchdog, progress, rests."""
    begun = time.monotonic()
    cpu = cpu_s()
    last_cpu, last_at = cpu, begun
    minute, weather, process, rest = begun + 60, begun, begun + 5, begun + 45
    number = 0
    dumped = False
    while time.monotonic() < until:
        soak.halt.wait(0.5)
        now = time.monotonic()
        if now - last_at >= 3.0:
            used = (cpu_s() - last_cpu) / (now - last_at)
            average = (cpu_s() - cpu) / (now - begun)
            soak.pace *= 1.2 if max(used * 0.8, average) > 0.21 else 0.9
            soak.pace = min(max(soak.pace, 0.02), 10.0)
            last_cpu, last_at = cpu_s(), now
        if now >= weather:
            rate = rng.choice([0.0, 0.03, 0.08, 0.2])
            for proxy in soak.proxies:
                proxy.rate = rate
            weather = now + rng.uniform(5.0, 15.0)
        if now >= process:
            number += 1
            (run_forked if number % 3 and hasattr(os, "fork") else run_worker_process)(soak, number)
            process = time.monotonic() + rng.uniform(6.0, 14.0)
        for case in list(soak.active.values()):
            if now - case.started > case.bound + SLACK + 10.0 and not case.hung:
                case.hung = True
                soak.record.break_("hung", f"{case}: {now - case.started:.1f} s and not back")
                if not dumped:
                    dumped = True
                    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        if now >= rest:
            soak.rest()
            rest = time.monotonic() + 150.0
        if now >= minute:
            minute += 60
            progress(soak, now - begun, (cpu_s() - cpu) / (now - begun))


def be_worker(options: argparse.Namespace) -> None:
    """What the killed process does: calls and runs, each reported in a line once checked."""
    soak = Soak(options.seed, 3, worker=options.worker, log=options.log)
    soak.ca_file = options.ca
    soak.clients = make_clients((options.ports[0], options.ports[1]), options.ca)
    soak.open_runtime()
    lock = threading.Lock()
    plain = soak.record.outcome

    def say(**said: Any) -> None:
        with lock:
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()

    def outcome(kind: str, what: str, toxics: Any) -> None:
        plain(kind, what, toxics)
        say(kind=kind, what=what)

    def acknowledge(name: str, seen: Any) -> None:
        if seen is not None and seen.end and soak.log:
            say(run=name, last=seen.last, end=seen.end)

    soak.record.outcome = outcome  # type: ignore[method-assign]
    soak.acknowledge = acknowledge  # type: ignore[method-assign]
    soak.act()
    soak.halt.wait(60.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", type=float, nargs="?", default=1.0)
    parser.add_argument("--seed", default=str(int(time.time())))
    parser.add_argument("--streams", type=int, default=12)
    parser.add_argument("--log", help="an SQLite log to be made, served and followed")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--ports", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--ca", help=argparse.SUPPRESS)
    options = parser.parse_args()
    faulthandler.enable()
    if options.worker:
        be_worker(options)
        return 0
    os.environ.pop("OPENAI_API_KEY", None)
    threads, descriptors = set(threading.enumerate()), fds()
    begun, cpu = time.monotonic(), cpu_s()
    soak = Soak(options.seed, min(options.streams, 64), log=options.log)
    note(f"seed {options.seed}, pid {os.getpid()}, {options.minutes} min")
    soak.open()
    soak.idle_fds = fds() + 8  # type: ignore[attr-defined]
    soak.act()
    try:
        watch(soak, random.Random(f"{options.seed}:weather"), begun + options.minutes * 60)
    except KeyboardInterrupt:
        note("interrupted")
    soak.resting.set()
    soak.close()
    logging.getLogger("agentstream").removeHandler(soak.handler)
    check_memory(soak)
    check_baseline(soak, threads, descriptors)
    summary(soak, time.monotonic() - begun, cpu_s() - cpu)
    return 1 if soak.record.broken else 0


if __name__ == "__main__":
    sys.exit(main())
