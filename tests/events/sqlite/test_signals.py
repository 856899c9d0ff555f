"""docs/faults.rst, B13: a signal handler may append, stop and close, whatever it interrupts in the log."""

from __future__ import annotations

import gc
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, Callable, Dict, List, Optional, Set

import pytest

from agentstream import LogError, SqliteStore
from agentstream.testing.stores import event

ROOT = Path(__file__).resolve().parents[3]
posix = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="POSIX signals")


class Interrupted:
    """Runs `act` between two lines of this package or of `threading`, as a signal handler would.

    Of this package alone with `ours`: an exception out of the middle of `Condition.wait`
    leaves that broken, whoever raises it.

    Attributes:
        done: True once it has been run.
    """

    def __init__(self, line: int, act: Callable[[], object], *, ours: bool = False) -> None:
        self._ours = ours
        self._left = line
        self._act = act
        self.done = False

    def __enter__(self) -> Interrupted:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, kind: str, _: Any) -> Optional[Callable[..., Any]]:
        name = frame.f_code.co_filename
        if "agentstream" not in name and (self._ours or not name.endswith("threading.py")):
            return None
        if kind == "line" and not self.done:
            self._left -= 1
            if self._left <= 0:
                self.done = True
                sys.settrace(None)
                self._act()
        return self._trace


ACTS: Dict[str, Callable[[SqliteStore], object]] = {
    "append": lambda store: store.append(event("known", 2)),
    "claim": lambda store: store.append(event("handlers", 1)),
    "flush": lambda store: store.flush(),
    "bounds": lambda store: store.bounds(),
    "stop": lambda store: store.request_stop("known", "a signal"),
    "read": lambda store: store.read(),
    "close": lambda store: store.close(),
}
VICTIMS: Dict[str, Callable[[SqliteStore], object]] = {
    "append": lambda store: store.append(event("main", 2)),
    "claim": lambda store: store.append(event("new", 1)),
    "flush": lambda store: store.flush(),
    "read": lambda store: store.read(),
    "stop": lambda store: store.request_stop("main", "why"),
    "bounds": lambda store: store.bounds(),
    "close": lambda store: store.close(),
}


@pytest.mark.parametrize("victim", list(VICTIMS))
@pytest.mark.parametrize("act", list(ACTS))
def test_b13_an_act_between_any_two_lines_of_another(tmp_path: Path, victim: str, act: str) -> None:
    for number in itertools.count():
        path = tmp_path / f"{number}.db"
        store = SqliteStore(path)
        store.append(event("known", 1))
        store.append(event("main", 1))
        acknowledged: Set[str] = {"known:1", "main:1"}

        def run(what: Callable[[SqliteStore], Any], store: SqliteStore = store) -> None:
            try:
                found = what(store)
            except LogError as error:
                assert "closed" in str(error), error  # noqa: PT017
                return
            if hasattr(found, "workflow_id"):
                acknowledged.add(found.id)  # noqa: B023

        began = time.monotonic()
        with Interrupted(1 + number * 13, lambda: run(ACTS[act])) as interrupted:
            run(VICTIMS[victim])
        store.close()
        assert time.monotonic() - began < 4.0, (victim, act, number)
        with SqliteStore(path) as kept:
            events = kept.read()
            assert acknowledged <= {e.id for e in events}, (victim, act, number)
            assert [e.position for e in events] == list(range(1, len(events) + 1))
        if not interrupted.done:
            assert number > 1
            return


@pytest.mark.parametrize("durability", ["normal", "full"])
def test_b13_a_store_closed_by_a_handler_loses_nothing_it_took(
    tmp_path: Path, durability: str
) -> None:
    """The append that it interrupts is kept or refused, not dropped."""
    for line in range(1, 40, 3):
        path = tmp_path / f"{line}.db"
        store = SqliteStore(path, durability=durability)
        for n in range(1, 11):
            store.append(event("run", n))
        taken = 10
        with Interrupted(line, store.close):
            try:
                store.append(event("run", 11))
                taken = 11
            except LogError:
                pass
        with pytest.raises(LogError, match="closed"):
            store.append(event("run", taken + 1))
        with SqliteStore(path) as kept:
            assert kept.bounds("run").last == taken, line


@posix
@pytest.mark.parametrize("store", ["sqlite", "full"])
def test_b13_a_thousand_signals_while_a_store_is_used(store: str) -> None:
    done = subprocess.run(
        [sys.executable, "stress/signals.py", "1000", "--act", "store", "--store", store],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["signals"] >= 1000
    assert found["lost"] == found["twice"] == found["gaps"] == 0


def test_b13_two_threads_close_and_both_return_when_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = SqliteStore(path)
    for n in range(1, 3001):
        store.append(event("run", n))
    ended: List[bool] = []

    def close() -> None:
        store.close()
        ended.append(store._closed)

    threads = [threading.Thread(target=close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert ended == [True] * 4
    with SqliteStore(path) as kept:
        assert kept.bounds() == (1, 3000)


def test_b13_a_close_that_was_broken_off_can_be_done_again(tmp_path: Path) -> None:
    """Between any two of its lines: Python from 3.13 on warns of a connection that is dropped."""
    path = tmp_path / "runs.db"
    broken_off = 0
    for line in itertools.count(1):
        store = SqliteStore(path)
        store.append(event(f"run{line}", 1))

        def break_off() -> None:
            raise KeyboardInterrupt

        try:
            with Interrupted(line, break_off, ours=True):
                store.close()
        except KeyboardInterrupt:
            broken_off += 1
        store.close()
        assert store._closed
        assert store._reader._connection is store._writer.committer.connection is None
        if broken_off < line:
            break
    assert broken_off > 60
    gc.collect()
    with SqliteStore(path) as kept:
        assert kept.bounds() == (1, broken_off + 1)
    assert not list(tmp_path.glob("*-owner-*"))
