"""The same agent, killed at the same places, in agentstream, LangGraph and DBOS: what is repeated.

    python -m benchmarks.durable [--csv] [LIBRARY ...]     in an environment that has all of them

Each is killed (kill -9) once at each place and started again: before a request, while it is
answered, with its answer in hand; in a call before and after its effect.  The scripted server
counts requests, a file the calls' effects.  The agents are in durable_agents.py.  Prints the
tables of docs/durable.rst; with --csv a line a kill.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from agentstream.testing import (
    Action,
    Callback,
    Pause,
    Reply,
    ScriptedServer,
    text_chunks,
    tool_call_chunks,
)
from benchmarks.answers import table
from benchmarks.durable_agents import CALLS, LIBRARIES, REQUESTS, number_of
from benchmarks.lab import machine, now, say

ASKS = sorted(REQUESTS.values())
#: The rows of the table, each with its places.
PLACES: Dict[str, List[str]] = {
    "before a request": [f"ask-{number}-before" for number in ASKS],
    "while it is answered": [f"ask-{number}-during" for number in ASKS],
    "its answer in hand": [f"ask-{number}-after" for number in ASKS],
    "in a call, before its effect": [f"call-{number}-before" for number in CALLS.values()],
    "in a call, after its effect": [f"call-{number}-after" for number in CALLS.values()],
}
#: What the model says, by the request's number: a text, or the calls that it wants made.
ANSWERS: Dict[int, Any] = {
    1: ["charge"],
    2: "paid",
    3: ["reserve", "notify"],
    4: "shipped",
    5: "Dear Ann, your lamp is on its way.",
}
#: So long the model is silent before each answer, as any model is: writes that are made
#: meanwhile, behind the agent's back, have that time.
_THINKS_S = 0.05
_PATIENCE_S = 60.0


class Killed(NamedTuple):
    """What came of one kill.

    Attributes:
        place: where.
        requests: made again.
        effects: of calls, made again.
        asked: calls that a person was asked about.
        lost: calls that were never made.
        same: the last answer is that of a run that was not killed.
        new_s, first_s: seconds from the first process's start to its first request, and from
            the second's; None for none.
        kept, file: bytes of what is kept at the kill: in its rows, on the disk.
    """

    place: str
    requests: int
    effects: int
    asked: int
    lost: int
    same: bool
    new_s: Optional[float]
    first_s: Optional[float]
    kept: int
    file: int


class Model:
    """The model, which counts what it is asked, and kills who asks at "ask-N-during"."""

    def __init__(self, server: ScriptedServer) -> None:
        self.url = server.url
        self._lock = threading.Lock()
        server.route("/v1/chat/completions", self._answer)
        self.begin("", None)

    def begin(self, place: str, victim: Optional[subprocess.Popen[str]]) -> None:
        """Count from here on what a process asks."""
        with self._lock:
            self.times: List[float] = []
            self.place, self.victim = place, victim

    def _answer(self, request: Any) -> Reply:
        body = request.json
        number = number_of(body["messages"])
        with self._lock:
            self.times.append(request.received)
            victim = self.victim if self.place == f"ask-{number}-during" else None
        said = ANSWERS[number]
        before: List[Action] = [Pause(_THINKS_S)]
        if victim is not None:
            before.append(Callback(lambda: _kill(victim)))
        calls = [] if isinstance(said, str) else [(name, "{}") for name in said]
        if body.get("stream"):
            pieces = tool_call_chunks(*calls) if calls else text_chunks(said)
            return Reply(*before, *pieces)
        message: Dict[str, Any] = {"role": "assistant", "content": None if calls else said}
        if calls:
            message["tool_calls"] = [
                {"id": f"call_{at}", "type": "function", "function": {"name": n, "arguments": a}}
                for at, (n, a) in enumerate(calls)
            ]
        whole = {"choices": [{"index": 0, "message": message}]}
        return Reply(*before, json.dumps(whole), content_type="application/json")


def _kill(victim: subprocess.Popen[str]) -> None:
    victim.kill()
    victim.wait()


def started(library: str, folder: pathlib.Path, url: str, place: str) -> subprocess.Popen[str]:
    """A process that runs the agent."""
    command = [sys.executable, "-m", "benchmarks.durable_agents", library, str(folder), url, place]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=_ROOT
    )


_ROOT = pathlib.Path(__file__).resolve().parents[1]


def run_once(
    library: str, folder: pathlib.Path, model: Model, place: str = ""
) -> Tuple[List[float], List[str]]:
    """Run it to its end, or to `place`: when its requests came, by its start; what it printed."""
    began = time.monotonic()
    process = started(library, folder, model.url, place)
    model.begin(place, process)
    output, errors = process.communicate(timeout=_PATIENCE_S)
    if process.returncode != (-signal.SIGKILL if place else 0):
        raise RuntimeError(f"{library} at {place!r}: status {process.returncode}\n{errors}")
    return [at - began for at in model.times], output.splitlines()


def kill(library: str, place: str, model: Model) -> Killed:
    """Kill it at a place, start it again."""
    with tempfile.TemporaryDirectory(prefix="durable-") as name:
        folder = pathlib.Path(name)
        before, _ = run_once(library, folder, model, place)
        kept, size = sizes(folder)
        after, output = run_once(library, folder, model)
        made = (folder / "ledger").read_text().split()
        return Killed(
            place,
            len(before) + len(after) - len(ASKS),
            len(made) - len(set(made)),
            len(output) - 1,
            len(CALLS) - len(set(made)),
            json.loads(output[-1]) == ANSWERS[ASKS[-1]],
            min(before, default=None),
            min(after, default=None),
            kept,
            size,
        )


def sizes(folder: pathlib.Path) -> Tuple[int, int]:
    """Bytes in the rows of what is kept, the log's events left out; and of its files."""
    files = [
        path for path in folder.glob("kept.db*") if path.name.endswith(("db", "wal", "journal"))
    ]
    if not files:
        return 0, 0
    with tempfile.TemporaryDirectory() as other:  # who opens a file may change it
        for path in files:
            shutil.copy(path, other)
        with contextlib.closing(sqlite3.connect(pathlib.Path(other) / "kept.db")) as connection:
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            kept = sum(content(connection, name) for (name,) in names if name != "events")
    return kept, sum(path.stat().st_size for path in files)


def content(connection: sqlite3.Connection, name: str) -> int:
    """Bytes of all values in a table."""
    columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{name}")')]
    each = " + ".join(f'coalesce(length(cast("{it}" AS blob)), 0)' for it in columns)
    total: int = connection.execute(f'SELECT coalesce(sum({each}), 0) FROM "{name}"').fetchone()[0]
    return total


def measured(libraries: List[str], model: Model) -> Tuple[Dict[str, List[Killed]], Any]:
    """All kills of each library, and the sizes that a run which nobody kills ends with."""
    ends = {}
    for library in libraries:
        with tempfile.TemporaryDirectory(prefix="durable-") as name:
            run_once(library, pathlib.Path(name), model)
            ends[library] = sizes(pathlib.Path(name))
    kills: Dict[str, List[Killed]] = {library: [] for library in libraries}
    for place in (place for places in PLACES.values() for place in places):
        say(place)
        for library in libraries:  # in turn: whatever else the machine does is the same for all
            kills[library].append(kill(library, place, model))
    return kills, ends


def cell(kills: List[Killed]) -> str:
    """What some kills came to, in words."""
    words = []
    for count, one, many in [
        (sum(it.requests for it in kills), "request", "requests"),
        (sum(it.effects for it in kills), "call", "calls"),
        (sum(it.asked for it in kills), "asks", "asks"),
        (sum(it.lost for it in kills), "call LOST", "calls LOST"),
        (sum(not it.same for it in kills), "WRONG END", "WRONG ENDS"),
    ]:
        if count:
            words.append(f"{count} {one if count == 1 else many}")
    return ", ".join(words) or "nothing"


def tables(kills: Dict[str, List[Killed]], ends: Any) -> Iterator[str]:
    """The two tables, in reStructuredText."""
    rows = []
    for what, places in PLACES.items():
        cells = [cell([it for it in each if it.place in places]) for each in kills.values()]
        rows.append([f"{what} ({len(places)})", *cells])
    yield table(["killed", *kills], rows)

    def middle(field: str, scale: float = 1.0) -> List[str]:
        known = [[getattr(it, field) for it in each] for each in kills.values()]
        middles = [statistics.median(it for it in some if it is not None) for some in known]
        return [f"{it * scale:,.0f}" for it in middles]

    yield table(
        ["", *kills],
        [
            ["first request of a new run, ms", *middle("new_s", 1000)],
            ["first request after a kill, ms", *middle("first_s", 1000)],
            ["kept at the kill, bytes", *middle("kept")],
            ["kept at the end, bytes", *(f"{ends[it][0]:,}" for it in kills)],
            ["files at the kill, bytes", *middle("file")],
            ["files at the end, bytes", *(f"{ends[it][1]:,}" for it in kills)],
        ],
    )


def versions(libraries: List[str]) -> str:
    """The versions of what was measured, where and when."""
    names = [name for library in libraries for name in LIBRARIES[library][1]]
    told = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    python = ".".join(map(str, sys.version_info[:3]))
    of = machine()
    return f"{told}; Python {python}, {of['cores']} cores of {of['cpu']}, {of['system']}; {now()}"


def main(arguments: List[str]) -> None:
    """Measure and print."""
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    libraries = [it for it in arguments if it != "--csv"] or list(LIBRARIES)
    with ScriptedServer() as server:
        kills, ends = measured(libraries, Model(server))
    if "--csv" in arguments:
        print("library", *Killed._fields, sep=",")
        for library, each in kills.items():
            for it in each:
                print(json.dumps(library), *it, sep=",")
        return
    print(versions(libraries), *tables(kills, ends), sep="\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])
