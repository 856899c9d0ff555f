"""Ten processes resume one run at once: `python -m stress.resumes [N]` (default 1,000 runs).

One of them gets the run, each time; the others are told that it is busy, or that it has
ended.  A run waits for an answer, or its process was killed.  Counted: owners, terminal
events, steps that were run, events that are missing or doubled in the log, and those that
a subscriber in each process missed or saw twice.  The suite runs a few (tests/faults).
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from typing import Any, Counter as CounterType, Dict, Iterator, List, NamedTuple, Tuple

from agentstream import (
    AgentStreamError,
    Busy,
    Event,
    EventStream,
    EventType,
    LogError,
    Runtime,
    SqliteStore,
    Step,
    Wait,
    Workflow,
)
from agentstream.events.model import TERMINAL

PROCESSES = 10
#: Of so many runs one has lost its process; the others wait for an answer.
KILLED = 5
PATIENCE = 30.0  # seconds


class Tally(NamedTuple):
    """What came of it; `wrong` says in words what must not have happened."""

    runs: int
    busy: int
    ended: int
    seconds: float
    wrong: List[str]


# --- one of the processes -------------------------------------------------------------------


class Bench:
    """The log, the workflow, and the file in which its steps note that they ran."""

    def __init__(self, folder: pathlib.Path, *, is_victim: bool = False) -> None:
        self._notes = os.open(folder / "notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._is_victim = is_victim
        self.held = threading.Event()
        self.stream = EventStream(SqliteStore(folder / "runs.db"))
        self.runtime = Runtime(event_stream=self.stream, checkpoints=True)
        steps = [Step(self._first, name="first"), Wait("go"), Step(self._last, name="last")]
        self.workflow = Workflow("resumed", steps)

    def _first(self, run: str) -> str:
        self._note(run, "first")
        return run

    def _last(self, go: Dict[str, str]) -> str:
        if self._is_victim:
            self.held.set()
            threading.Event().wait(PATIENCE)
        self._note(go["run"], "last")
        return go["run"]

    def _note(self, run: str, step: str) -> None:
        os.write(self._notes, f"{run} {step}\n".encode())

    def begin(self, run: str) -> None:
        """Bring a run to where it waits for an answer, and answer it."""
        assert self.runtime.run(self.workflow, run, workflow_id=run).status == "suspended"
        self.runtime.signal(run, "go", {"run": run})


def resumer(folder: pathlib.Path, number: int, orders: int, reports: int) -> None:
    """Resume what is ordered, a line each; say what came of it, and what a subscriber saw."""
    bench = Bench(folder)
    seen: List[Tuple[str, int]] = []
    subscription = bench.stream.subscribe(lambda event: seen.append(_place(event)), after=0)
    _say(reports, "ready")
    with open(orders) as lines:
        for line in lines:
            _say(reports, _resume(bench, line.strip(), by_id=number % 2 == 0))
    last = bench.stream.store.bounds(None)[1]
    end = time.monotonic() + PATIENCE
    while len(seen) < last and time.monotonic() < end:
        threading.Event().wait(0.01)
    bench.runtime.shutdown()
    assert not subscription.errors
    _say(reports, json.dumps(seen))


def _place(event: Event) -> Tuple[str, int]:
    return event.workflow_id, event.offset


def _resume(bench: Bench, run: str, *, by_id: bool) -> str:
    """What came of resuming a run, by `resume`, or `submit` with its id."""
    try:
        if by_id:
            handle = bench.runtime.submit(bench.workflow, "", workflow_id=run, resume=True)
        else:
            handle = bench.runtime.resume(bench.workflow, run)
        mine = not handle.done()
        done = handle.result(PATIENCE)
        bench.stream.store.flush()  # or others would not know yet how many events there are
    except Busy:
        return "busy"
    except LogError as error:
        return "ended" if not by_id else f"LogError: {error}"
    except (AgentStreamError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"
    if (done.status, done.output) != ("completed", run):
        return f"{done.status}: {done.output!r}"
    return "owner" if mine or done.steps else "ended"


def victim(folder: pathlib.Path, run: str, reports: int) -> None:
    """Hold a run in its last step, and be killed there."""
    bench = Bench(folder, is_victim=True)
    bench.runtime.resume(bench.workflow, run)
    assert bench.held.wait(PATIENCE)
    _say(reports, "held")
    threading.Event().wait(PATIENCE)


def _say(pipe: int, text: str) -> None:
    data = text.encode() + b"\n"
    while data:
        data = data[os.write(pipe, data) :]


# --- the one that orders --------------------------------------------------------------------


class Child:
    """A forked process that says lines."""

    def __init__(self, work: Any, *arguments: Any) -> None:
        self._from, its_reports = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            status = 1
            try:
                work(*arguments, its_reports)
                status = 0
            except BaseException:
                traceback.print_exc()
                raise
            finally:
                os._exit(status)
        os.close(its_reports)
        self._lines = open(self._from)  # noqa: SIM115 - closed by `wait`

    def hear(self) -> str:
        return self._lines.readline().rstrip("\n")

    def wait(self) -> int:
        self._lines.close()
        return os.waitpid(self.pid, 0)[1]


@contextlib.contextmanager
def _resumers(folder: pathlib.Path) -> Iterator[List[Tuple[Child, int]]]:
    """The processes, and where each takes its orders."""
    children: List[Tuple[Child, int]] = []
    for number in range(PROCESSES):
        its_orders, orders = os.pipe()

        def work(*arguments: Any, spare: Tuple[int, ...] = tuple(at for _, at in children)) -> None:
            for other in (*spare, orders):  # or the others' ends would stay open with this one
                os.close(other)
            resumer(*arguments)

        children.append((Child(work, folder, number, its_orders), orders))
        os.close(its_orders)
    try:
        yield children
    except BaseException:
        for child, _ in children:
            os.kill(child.pid, signal.SIGKILL)
        raise


def race(count: int, folder: pathlib.Path) -> Tally:
    """Have `count` runs resumed by all at once."""
    started = time.monotonic()
    wrong: List[str] = []
    said: CounterType[str] = Counter()
    with _resumers(folder) as children:
        for child, _ in children:
            assert child.hear() == "ready"
        bench = Bench(folder)
        names = [f"run-{number}" for number in range(count)]
        for number, name in enumerate(names):
            bench.begin(name)
            if number % KILLED == 0:
                _lose(folder, name)
            for _, orders in children:
                os.write(orders, name.encode() + b"\n")
            told = [child.hear() for child, _ in children]
            said.update(told)
            if told.count("owner") != 1 or set(told) - {"owner", "busy", "ended"}:
                wrong.append(f"{name}: {told}")
        bench.runtime.shutdown()
        for _, orders in children:
            os.close(orders)
        seen = [json.loads(child.hear() or "[]") for child, _ in children]
        wrong += [
            f"{child.pid} ended with {s}" for child, _ in children for s in [child.wait()] if s
        ]
    wrong += _check(folder, names, seen)
    return Tally(count, said["busy"], said["ended"], time.monotonic() - started, wrong)


def _lose(folder: pathlib.Path, name: str) -> None:
    """Have a process take the run and be killed."""
    child = Child(victim, folder, name)
    assert child.hear() == "held", "the victim did not get the run"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()


def _check(folder: pathlib.Path, names: List[str], seen: List[Any]) -> Iterator[str]:
    """What is wrong with the log, with what was run, and with what subscribers saw."""
    notes = Counter((folder / "notes").read_text().splitlines())
    for note, times in notes.items():
        if times != 1:
            yield f"{note} ran {times} times"
    if len(notes) != 2 * len(names):
        yield f"{len(notes)} steps ran"
    every: CounterType[Tuple[str, int]] = Counter()
    with SqliteStore(folder / "runs.db") as log:
        for name in names:
            events = log.read(workflow_id=name, after=0, limit=1000)
            every.update(_place(event) for event in events)
            if [event.offset for event in events] != list(range(1, len(events) + 1)):
                yield f"{name}: offsets {[event.offset for event in events]}"
            ends = [event.type in TERMINAL for event in events]
            fences = [e.data["fence"] for e in events if e.type is EventType.WORKFLOW_RESUMED]
            if ends.index(True) != len(ends) - 1 or fences != list(range(2, 2 + len(fences))):
                yield f"{name}: {[event.type.value for event in events]}, fences {fences}"
        state = log.run(names[-1])
        if state is None or state.status != "completed":
            yield f"the last run: {state}"
    for number, places in enumerate(seen):
        found = Counter((name, offset) for name, offset in places)
        if found != every:
            lost, doubled = sum((every - found).values()), sum((found - every).values())
            yield f"subscriber {number}: {lost} events lost, {doubled} too many"
        order: Dict[str, int] = {}
        for name, offset in places:
            if offset <= order.get(name, 0):
                yield f"subscriber {number}: {name} {offset} after {order[name]}"
            order[name] = offset


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        tally = race(count, pathlib.Path(folder))
    for remark in tally.wrong[:20]:
        print(remark)
    print(
        f"{tally.runs} runs, each resumed by {PROCESSES} processes at once: {tally.busy} times"
        f" busy, {tally.ended} times ended; {len(tally.wrong)} wrong; {tally.seconds:.1f} s"
    )
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
