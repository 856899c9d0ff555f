"""Processes that want one run: `python -m stress.owners [ROUNDS [PROCESSES]]` (1,000 and 10).

In each round all of them resume a run at once.  Who has it goes on with it and ends it, leaves it
suspended, or kills itself with it, and then there is another round.  Counted at the end, in the
log: gaps in the offsets, terminal events, owners of one fence.  The suite runs a few rounds.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
from typing import Any, Dict, List, NamedTuple

from agentstream import Busy, EventStream, LogError, SqliteStore
from agentstream.events.model import TERMINAL, EventType

RUN = "run"
RESUMED = EventType.WORKFLOW_RESUMED


class Worker:
    """A process that resumes runs when it is told to, and says what came of it."""

    def __init__(self, path: pathlib.Path) -> None:
        told, self._tell = os.pipe()
        self._hear, say = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self._tell)
            os.close(self._hear)
            try:
                _work(path, os.fdopen(told), say)
            finally:
                os._exit(0)
        os.close(told)
        os.close(say)
        self._answers = os.fdopen(self._hear)

    def tell(self, what: str) -> None:
        """Tell it: a run's id, and what to do with it."""
        os.write(self._tell, f"{what}\n".encode())

    def answer(self) -> str:
        """What came of it; "" from one that has died."""
        return self._answers.readline().strip()

    def end(self) -> None:
        """Have it close its log, and wait for that."""
        with contextlib.suppress(BrokenPipeError):  # not by closing it: its brothers have it too
            self.tell("- quit")
        os.waitpid(self.pid, 0)
        os.close(self._tell)
        self._answers.close()


def _work(path: pathlib.Path, orders: Any, say: int) -> None:
    with EventStream(SqliteStore(path)) as stream:
        for line in orders:
            name, how = line.split()
            if how == "quit":
                return
            try:
                log, entry = stream.reopen_log(name)
            except Busy:
                found = "busy"
            except LogError as error:
                found = "ended" if "has ended" in str(error) else f"error: {error}"
            else:
                found = _go_on(stream, log, entry.fence, how)
            os.write(say, f"{found}\n".encode())


def _go_on(stream: EventStream, log: Any, fence: int, how: str) -> str:
    log.append(RESUMED, {"fence": fence, "pid": os.getpid()})
    if how == "end":
        log.append(EventType.WORKFLOW_COMPLETED, {"pid": os.getpid()})
    elif how == "leave":
        log.append(EventType.WORKFLOW_SUSPENDED, {"status": "suspended"})
    stream.store.flush()
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return "won"


class Tally(NamedTuple):
    """What came of it; `wrong` says in words what must not have happened."""

    rounds: int
    owners: int
    deaths: int
    seconds: float
    wrong: List[str]


def contend(path: pathlib.Path, rounds: int, processes: int, seed: int = 1) -> Tally:
    """Let processes contend for `rounds` runs, one after the other."""
    began, chance, wrong = time.monotonic(), random.Random(seed), []
    names = [f"{RUN}-{n}" for n in range(rounds)]
    _prepare(path, names)
    workers, deaths = [Worker(path) for _ in range(processes)], 0
    for name in names:
        for how in (*chance.choices(["leave", "die"], k=chance.randrange(3)), "end"):
            for worker in workers:
                worker.tell(f"{name} {how}")
            answers = [worker.answer() for worker in workers]
            wrong += [f"{name}, {how}: {one}" for one in answers if one.startswith("error")]
            won = answers.count("won") + answers.count("")
            if not won or (how == "end" and won > 1):
                wrong.append(f"{name}, {how}: {won} owners")
            for place, answer in enumerate(answers):
                if not answer:
                    deaths += 1
                    workers[place].end()
                    workers[place] = Worker(path)
    for worker in workers:
        worker.end()
    owners = _look(path, names, wrong)
    return Tally(rounds, owners, deaths, time.monotonic() - began, wrong)


def _prepare(path: pathlib.Path, names: List[str]) -> None:
    """Begin the runs, in a process that leaves them: this one must have no thread to fork with."""
    child = os.fork()
    if not child:
        with EventStream(SqliteStore(path)) as stream:
            for name in names:
                log = stream.open_log(name)
                assert stream.store.checkpoints is not None
                stream.store.checkpoints.begin(name, recover=10**6)
                log.append(EventType.WORKFLOW_STARTED, {"workflow": name})
        os._exit(0)
    os.waitpid(child, 0)


def _look(path: pathlib.Path, names: List[str], wrong: List[str]) -> int:
    """Look at the log: how many owners there were, and what is wrong."""
    owners = 0
    with SqliteStore(path) as store:
        for name in names:
            events = store.read(workflow_id=name, limit=10_000)
            if [event.offset for event in events] != list(range(1, len(events) + 1)):
                wrong.append(f"{name}: its offsets have gaps")
            ends = [event for event in events if event.type in TERMINAL]
            if len(ends) != 1 or events[-1] is not ends[0]:
                wrong.append(f"{name}: {len(ends)} terminal events")
            by_fence: Dict[int, int] = {}
            for event in events:
                if event.type is RESUMED:
                    by_fence[event.data["fence"]] = event.data["pid"]
                    owners += 1
            if list(by_fence) != list(range(2, len(by_fence) + 2)):
                wrong.append(f"{name}: fences {list(by_fence)}")
    return owners


if __name__ == "__main__":
    numbers = [int(each) for each in sys.argv[1:]] + [1000, 10][len(sys.argv) - 1 :]
    with tempfile.TemporaryDirectory() as folder:
        tally = contend(pathlib.Path(folder) / "runs.db", *numbers)
    print(tally)
    sys.exit(bool(tally.wrong))
