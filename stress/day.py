"""A day in ten minutes: `python -m stress.day [--runs 2000] [--minutes 10] [--seed 1] ...`.

Two web workers (`create_app(jobs)`) start runs, Celery workers execute them, Redis has their log
and is the queue.  The workers, whole ones and single processes of their pools, are killed at
random with kill -9, the web workers too, and Redis three times.  Some runs are followed over HTTP,
now through one web worker and now through the other.  Afterwards the history is checked: no run is
lost, each is completed with its right output; each offset is there once; no run was executed by
two processes at once; no step that was completed was run again; each follower had each event once,
in order.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import requests

from agentstream import RedisStore
from agentstream.events.model import TERMINAL
from tests.kit.programs import PROJECT
from tests.kit.redis_server import RedisServer
from tests.kit.support import free_port
from tests.kit.web_support import SSE

OUTPUT = "a line about tea three four"
FOLLOWED = 5  # one run of so many
KILL_EVERY_S = 3.0
WEB_EVERY_S = 20.0
OUTAGES = 3
PATIENCE_S = 180.0


class Process:
    """A program of the day's, in a process group of its own, that is killed and started again."""

    def __init__(self, environment: Dict[str, str], folder: pathlib.Path, *command: str) -> None:
        self._environment = environment
        self._folder = folder
        self._command = [sys.executable, *command]
        self.lock = threading.Lock()  # held while it is killed and started
        self.start()

    def start(self) -> None:
        with (self._folder / "errors").open("ab") as errors:
            self._process = subprocess.Popen(
                self._command,
                cwd=PROJECT,
                env=self._environment,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )

    def revive(self) -> bool:
        """Start it if it has ended by itself, as a supervisor does; True if it had."""
        with self.lock:
            if self._process.poll() is None:
                return False
            self.kill()  # what is left of its group
            self.start()
            return True

    def members(self) -> List[int]:
        """The processes of its group but for the first."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(stat[2]) == self._process.pid and stat[0] != "Z":
                    found.append(int(entry.name))
        return [pid for pid in found if pid != self._process.pid]

    def kill(self) -> List[int]:
        """Kill all of it; returns whom."""
        pids = [self._process.pid, *self.members()]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(20)
        return pids


class Day:
    """What runs, what is done to it, and what was seen."""

    def __init__(self, options: argparse.Namespace, folder: pathlib.Path, redis: RedisServer):
        self.options = options
        self.folder = folder
        self.redis = redis
        self.random = random.Random(options.seed)
        environment = {
            **os.environ,
            "DAY_FOLDER": str(folder),
            "DAY_REDIS": redis.url,
            "PYTHONPATH": str(PROJECT),
        }
        start = functools.partial(Process, environment, folder)
        self.workers = [start(*_celery(number)) for number in range(options.workers)]
        self.ports = [free_port(), free_port()]
        self.webs = [start("-m", "stress.day_shop", str(port)) for port in self.ports]
        self.runs: List[str] = []
        self.killed: Dict[int, float] = {}  # when which process was
        self.counts: Dict[str, int] = collections.Counter()
        self.followed: Dict[str, List[int]] = {}
        self.over = threading.Event()
        self.supervisor = threading.Thread(target=self.supervise)
        self.wrong: List[str] = []

    # --- what users do ----------------------------------------------------------------------

    def url(self) -> str:
        return f"http://127.0.0.1:{self.random.choice(self.ports)}"

    def start_run(self) -> None:
        """Start a run by one of the web workers; the next, if that one is away."""
        body = {"workflow": "order", "input": f"order {len(self.runs)}"}
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            with contextlib.suppress(requests.RequestException, ValueError):
                answer = requests.post(f"{self.url()}/workflows", json=body, timeout=20)
                if answer.status_code == 201:
                    self.runs.append(answer.json()["workflow_id"])
                    return
            self.counts["posts tried again"] += 1
            self.over.wait(0.2)
        self.wrong.append("no web worker started a run in time")

    def follow(self, run: str) -> None:
        """Read a run's events, going on at whichever web worker is there when one goes."""
        seen = self.followed[run] = []
        end = time.monotonic() + self.options.minutes * 60 + PATIENCE_S
        while time.monotonic() < end:
            after = seen[-1] if seen else 0
            with contextlib.suppress(OSError, ValueError):
                url, path = self.url(), f"/workflows/{run}/stream"
                with SSE(url, path, after=after, timeout=30) as stream:
                    for sent in stream.blocks() if stream.status == 200 else ():
                        if sent.id is not None and sent.data is not None:
                            seen.append(int(sent.id))
                        if sent.event in {kind.value for kind in TERMINAL}:
                            return
                    if stream.status == 204:
                        return
            self.counts["streams gone on with"] += 1
            self.over.wait(0.2)
        self.wrong.append(f"the follower of {run} saw no end")

    # --- what happens to them ---------------------------------------------------------------

    def kill_worker(self) -> None:
        """Kill a whole worker, or a process of one's pool."""
        worker = self.random.choice(self.workers)
        members = worker.members()
        now = time.monotonic()
        if members and self.random.random() < 0.5:
            pid = self.random.choice(members)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self.killed[pid] = now
            self.counts["pool processes killed"] += 1
            return
        with worker.lock:
            pids = worker.kill()
            self.killed.update(dict.fromkeys(pids, time.monotonic()))
            self.counts["workers killed"] += 1
            self.over.wait(self.random.uniform(0.2, 1.0))
            worker.start()

    def kill_web(self) -> None:
        web = self.random.choice(self.webs)
        with web.lock:
            web.kill()
            self.counts["web workers killed"] += 1
            self.over.wait(self.random.uniform(0.2, 1.0))
            web.start()

    def kill_redis(self) -> None:
        self.redis.kill()
        self.counts["Redis killed"] += 1
        self.over.wait(self.random.uniform(0.3, 1.5))
        self.redis.start()

    def supervise(self) -> None:
        """Start again what ends by itself: who begins while Redis is away does."""
        while not self.over.wait(0.5):
            for process in (*self.workers, *self.webs):
                self.counts["started again"] += process.revive()

    def plan(self) -> List[Tuple[float, Callable[[], None]]]:
        """What is done, and when, in seconds from the beginning."""
        seconds, pick = self.options.minutes * 60, self.random
        found: List[Tuple[float, Callable[[], None]]] = []
        for act, every in ((self.kill_worker, KILL_EVERY_S), (self.kill_web, WEB_EVERY_S)):
            at = pick.expovariate(1 / every)
            while at < seconds:
                found.append((at, act))
                at += pick.expovariate(1 / every)
        for number in range(OUTAGES):
            found.append((seconds * (number + 1) / (OUTAGES + 1), self.kill_redis))
        return sorted(found, key=lambda one: one[0])

    # --- the day ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Wait until both web workers answer."""
        for port in self.ports:
            end = time.monotonic() + 60
            while time.monotonic() < end:
                with contextlib.suppress(requests.RequestException):
                    if requests.get(f"http://127.0.0.1:{port}/healthz", timeout=5).ok:
                        break
                self.over.wait(0.1)

    def live(self) -> float:
        """All of it; returns the seconds until the last run had ended."""
        began = time.monotonic()
        starts = sorted(
            self.random.uniform(0, self.options.minutes * 60) for _ in range(self.options.runs)
        )
        trouble = threading.Thread(target=self._do, args=(began, self.plan()))
        trouble.start()
        self.supervisor.start()
        with ThreadPoolExecutor(32) as pool:
            for number, at in enumerate(starts):
                self.over.wait(max(0.0, began + at - time.monotonic()))
                known = len(self.runs)
                self.start_run()
                if number % FOLLOWED == 0 and len(self.runs) > known:
                    pool.submit(self.follow, self.runs[-1])
            trouble.join()
            self.wait_for_all()
            took = time.monotonic() - began
        return took

    def _do(self, began: float, plan: List[Tuple[float, Callable[[], None]]]) -> None:
        for at, act in plan:
            self.over.wait(max(0.0, began + at - time.monotonic()))
            try:
                act()
            except Exception as error:  # noqa: BLE001 - the day goes on, and tells
                self.wrong.append(f"{act.__name__}: {error!r}")

    def wait_for_all(self) -> None:
        """Wait until each run in the log has ended."""
        end = time.monotonic() + PATIENCE_S
        with RedisStore(self.redis.url, "day") as store:
            left: List[Any] = []
            while time.monotonic() < end:
                states = store.runs(limit=100_000)
                left = [one for one in states if one.ended_at is None]
                if not left and len(states) >= len(self.runs):
                    return
                self.over.wait(0.5)
            said = [(one.workflow_id, one.status) for one in left[:10]]
            self.wrong.append(f"{len(left)} runs have not ended: {said}")

    def close(self) -> None:
        self.over.set()
        if self.supervisor.ident is not None:
            self.supervisor.join()
        for process in (*self.workers, *self.webs):
            process.kill()


def _celery(number: int) -> List[str]:
    pool = ["--pool=threads", "--concurrency=6"] if number % 2 else ["--concurrency=3"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    name = ["-n", f"w{number}@%h"]
    return ["-m", "celery", "-A", "stress.day_shop", "worker", *pool, *quiet, *name]


# --- what must hold of it -------------------------------------------------------------------


class Stint(NamedTuple):
    """A step that a process executed; `end` is None if it was killed in it."""

    begin: float
    end: Optional[float]
    pid: int
    step: str


def read_ledger(folder: pathlib.Path) -> Dict[str, List[Stint]]:
    """What each run's steps did, in the order of their beginnings."""
    found: Dict[str, List[Stint]] = collections.defaultdict(list)
    with (folder / "ledger").open() as file:
        for line in file:
            at, pid, what, run, step = line.split()
            if what == "begin":
                found[run].append(Stint(float(at), None, int(pid), step))
                continue
            for number, one in enumerate(found[run]):
                if (one.pid, one.step, one.end) == (int(pid), step, None):
                    found[run][number] = one._replace(end=float(at))
    return found


def check_stints(run: str, stints: List[Stint], killed: Dict[int, float]) -> Iterator[str]:
    """What is wrong with who executed a run: two at once."""
    stints = sorted(stints)
    for one, other in zip(stints, stints[1:]):
        end = one.end if one.end is not None else killed.get(one.pid)
        if end is None:
            yield f"{run}: step {one.step} has no end, and its process was not killed"
        elif other.begin < end - 0.001:
            yield f"{run}: {one.step} and {other.step} were executed at once"


def check_events(run: str, events: List[Any]) -> Iterator[str]:
    """What is wrong with a run's events."""
    offsets = [event.offset for event in events]
    if offsets != list(range(1, len(events) + 1)):
        yield f"{run}: its offsets are {offsets}"
    ends = [event for event in events if event.type in TERMINAL]
    if len(ends) != 1 or not events or events[-1] is not ends[0]:
        yield f"{run}: it has {len(ends)} ends"
    done = [e.data["step"] for e in events if e.type == "workflow_step_completed"]
    if done != ["0", "1", "2", "3", "4"]:
        yield f"{run}: its completed steps are {done}"


def check(day: Day) -> Dict[str, Any]:
    """Read the whole history; what is wrong goes to `day.wrong`.  Returns figures."""
    ledger = read_ledger(day.folder)
    figures: Dict[str, Any] = {"runs": 0, "events": 0, "resumed": 0, "steps cut": 0}
    with RedisStore(day.redis.url, "day") as store:
        states = store.runs(limit=100_000)
        lost = set(day.runs) - {state.workflow_id for state in states}
        day.wrong += [f"{run} is lost" for run in lost]
        for state in states:
            run = state.workflow_id
            whole = store.run(run)
            if whole is None or (whole.status, whole.output) != ("completed", OUTPUT):
                day.wrong.append(f"{run} is {whole}")
            events = store.read(workflow_id=run, after=0, limit=100_000)
            day.wrong += check_events(run, events)
            day.wrong += check_stints(run, ledger[run], day.killed)
            seen = day.followed.get(run)
            if seen is not None and seen != [event.offset for event in events]:
                day.wrong.append(f"{run}: its follower saw {seen} of {len(events)}")
            figures["runs"] += 1
            figures["events"] += len(events)
            figures["resumed"] += sum(e.type == "workflow_resumed" for e in events)
            figures["steps cut"] += sum(one.end is None for one in ledger[run])
    figures["not asked for (an answer was lost)"] = figures["runs"] - len(day.runs)
    return {**figures, "followed": len(day.followed), **day.counts}


def main(arguments: List[str]) -> int:
    parser = argparse.ArgumentParser(description="A day in ten minutes.")
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--folder", help="an empty one, where all files stay")
    options = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        kept = options.folder or stack.enter_context(tempfile.TemporaryDirectory())
        folder = pathlib.Path(kept)
        redis = stack.enter_context(RedisServer("appendonly", "yes"))
        day = Day(options, folder, redis)
        stack.callback(day.close)
        day.begin()
        took = day.live()
        for name, figure in check(day).items():
            print(f"{figure:>8}  {name}")
        print(f"{took:8.1f}  seconds")
        if day.wrong:
            print(f"{len(day.wrong)} wrong:", *day.wrong[:20], sep="\n  ")
            errors = (folder / "errors").read_text("utf-8", "replace").splitlines()
            print("the last of what the processes said:", *errors[-20:], sep="\n  ")
    return 1 if day.wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
