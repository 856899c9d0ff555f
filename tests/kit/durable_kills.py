"""Kills and resumptions of one run, and what must hold of them.

A `Trial` kills the processes of a run (tests/kit/durable_program.py) one after the other at
given places, lets the last one come to its end, and checks: each call that finished was made
once, one whose end nobody knows was made again only if it may be or somebody said so, the output
and the usage are those of an uninterrupted run, each run has one terminal event, offsets have
no gap, and no checkpoint is left.
"""

from __future__ import annotations

import collections
import contextlib
import json
import pathlib
import signal
import sqlite3
import subprocess
import sys
from typing import Any, Counter, Dict, List, NamedTuple, Optional, Sequence, Set

from agentstream import SqliteStore
from agentstream.events.model import TERMINAL, Event, EventType
from tests.kit.durable_program import restore
from tests.kit.durable_work import INPUT, Ledger
from tests.kit.programs import PROJECT, environment

RUN = "run"
#: The calls of a run, and its function's.
EFFECTS = 6
#: Processes that may be needed after the kills: each answers what is pending, one call at least.
_MOST = 12
#: The ends of tool calls, and of the function with an effect.
_ENDS = """
SELECT data FROM events WHERE type = 'tool_call_completed'
OR type = 'workflow_step_completed' AND json_extract(data, '$.name') = 'prepare'
"""
_EXITS = {"kill": -signal.SIGKILL, "dirty": -signal.SIGKILL, "term": 143, "int": -signal.SIGINT}


class Kill(NamedTuple):
    """Where a process is killed, and how: as tests/kit/durable_program.py takes it."""

    at: int
    how: str = "kill"
    moment: str = "after"


class Nursery:
    """A process that forks the processes of runs; a context manager."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.kit.durable_program", "--serve"],
            cwd=PROJECT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def run(self, log: pathlib.Path, kill: Optional[Kill], *more: str) -> Dict[str, Any]:
        """Run one to its end; returns {"exit": status} and what it printed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        arguments = [str(log), self.url, RUN, *more]
        if kill is not None:
            arguments += ["--kill-at", str(kill.at), "--how", kill.how, "--moment", kill.moment]
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        found: Dict[str, Any] = {}
        while "exit" not in found:
            line = self._process.stdout.readline()
            assert line, "the nursery has ended"
            found.update(json.loads(line))
        return found


class Wanted(NamedTuple):
    """An uninterrupted run.  Attributes: output, usage; calls: (name, argument); appends and writes."""

    output: Any
    usage: Any
    calls: Set[Any]
    appends: int
    writes: int

    def places(self, moment: str) -> int:
        """How many places there are for a `Kill` at that moment."""
        if moment == "effect":
            return len(self.calls)
        return self.writes if moment in ("writing", "wrote") else self.appends


def uninterrupted(nursery: Nursery, folder: pathlib.Path) -> Wanted:
    """Run it without a kill."""
    trial = Trial(nursery, folder, None)
    found = trial.go_on(None)
    assert found["status"] == "completed", found
    calls = [(call.name, call.of) for call in trial.ledger.calls()]
    assert len(calls) == len(set(calls)) == EFFECTS
    wanted = Wanted(found["output"], found["usage"], set(calls), found["appends"], found["writes"])
    trial.wanted = wanted
    trial.check(found)
    return wanted


class Trial:
    """One run, killed and resumed in a folder of its own.

    Attributes:
        kills: how many processes were killed: a run may end before the place is reached.
        reruns: calls that were made again, as they may be.
        approvals: calls that somebody was asked about.
    """

    def __init__(self, nursery: Nursery, folder: pathlib.Path, wanted: Optional[Wanted]) -> None:
        self.log = folder / "log.db"
        self.ledger = Ledger(f"{self.log}.ledger")
        self.wanted = wanted
        self.kills = self.reruns = self.approvals = 0
        self._nursery = nursery
        self._final: Dict[str, int] = {}  # calls that have finished: how often they were made
        self._allowed: Counter[str] = collections.Counter()  # repetitions of a call

    def run(self, kills: Sequence[Kill]) -> None:
        """Kill, resume and check.  Raises AssertionError."""
        found: Dict[str, Any] = {}
        for kill in kills:
            found = self.go_on(kill)
            if found.get("status") == "completed":
                break
        for _ in range(_MOST):
            if found.get("status") == "completed":
                break
            found = self.go_on(None)
            assert found["exit"] == 0, (found, self.errors())
        self.check(found)

    def go_on(self, kill: Optional[Kill]) -> Dict[str, Any]:
        """Begin or resume it, with all that is pending approved, and look at how it is left."""
        found = self._nursery.run(self.log, kill, "--approve")
        if kill is not None and found["exit"] != 0:
            assert found["exit"] == _EXITS[kill.how], (found, self.errors())
            self.kills += 1
            if kill.how == "dirty":
                assert restore(str(self.log)) or not self.ledger.calls()
        else:
            assert found["exit"] == 0, (found, self.errors())
            assert found["status"] in ("completed", "suspended"), found
        self._look(found)
        return found

    def _look(self, found: Dict[str, Any]) -> None:
        """Note which calls have finished, and which may be made again."""
        made = collections.Counter(call.of for call in self.ledger.calls())
        names = {call.of: call.name for call in self.ledger.calls()}
        finished = self._finished()
        for of, count in self._final.items():
            assert made[of] == count, f"{names[of]} {of} had finished, and was made again"
        self._final = {of: made[of] for of in finished}
        pending = [json.loads(call["arguments"])["of"] for call in found.get("pending", ())]
        for of in pending:
            assert of not in finished, f"{of} had finished, and somebody is asked about it"
            self.approvals += 1
        for of, name in names.items():
            is_open = of not in finished
            self._allowed[of] += is_open and (name != "pay" or of in pending)

    def _finished(self) -> Set[str]:
        """The arguments of the calls, and the function's, whose end is in the log.

        Read from the file itself: a store that opened it would see to the run of the dead.
        """
        found = set()
        if self.log.exists():
            with contextlib.closing(sqlite3.connect(self.log)) as connection:
                if connection.execute("SELECT 1 FROM sqlite_master WHERE name='events'").fetchone():
                    for (text,) in connection.execute(_ENDS):
                        data = json.loads(text)
                        is_call = "arguments" in data
                        found.add(json.loads(data["arguments"])["of"] if is_call else INPUT)
        return found

    def errors(self) -> str:
        """What the processes wrote to standard error."""
        path = pathlib.Path(f"{self.log}.errors")
        return path.read_text()[-4000:] if path.exists() else ""

    # --- at the end -------------------------------------------------------------------------

    def check(self, found: Dict[str, Any]) -> None:
        """All that must hold of a run that has come to its end."""
        wanted = self.wanted
        assert wanted is not None
        assert found.get("status") == "completed", (found, self.errors())
        assert (found["output"], found["usage"]) == (wanted.output, wanted.usage)
        calls = self.ledger.calls()
        assert {(call.name, call.of) for call in calls} == wanted.calls
        for of, count in collections.Counter(call.of for call in calls).items():
            assert count <= 1 + self._allowed[of], f"{of} was made {count} times"
            self.reruns += count - 1
        assert self._finished() == {call.of for call in calls}, "an end is not in the log"
        keys = {(call.of, call.key) for call in calls}
        assert len({key for _, key in keys}) == len({of for of, _ in keys}) == len(keys), keys
        with SqliteStore(self.log) as store:
            check_log(store)


def check_log(store: SqliteStore) -> None:
    """Offsets without a gap, one terminal event a run, nothing left of the checkpoints."""
    runs: Dict[str, List[Event]] = {}
    for event in store.read(after=0, limit=10**6):
        runs.setdefault(event.workflow_id, []).append(event)
    for name, events in runs.items():
        assert [event.offset for event in events] == list(range(1, len(events) + 1)), name
        kinds = [event.type for event in events]
        assert kinds[-1] in TERMINAL and not TERMINAL & set(kinds[:-1]), (name, kinds)
    # One that was killed before anything was kept of it has failed, and is begun again.
    *failed, last = sorted(name for name in runs if name.partition("~")[0] == RUN)
    assert [len(runs[name]) for name in failed] in ([], [1]), failed
    assert runs[last][-1].type is EventType.WORKFLOW_COMPLETED
    checkpoints = store.checkpoints
    assert checkpoints is not None
    assert checkpoints.read(last) == {}
    assert checkpoints.waiting() == []
