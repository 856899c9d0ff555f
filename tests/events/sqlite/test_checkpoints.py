"""Checkpoints in a file: processes that die, two that want one run, what changes hands."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from agentstream import Busy, EventStream, EventType, LogError, SqliteStore
from agentstream.events.checkpoints import Entry
from agentstream.events.sqlite import interrupted
from agentstream.testing.stores import event
from tests.kit.log_support import CHUNK, Locked, run
from tests.kit.support import wait_until

STARTED = EventType.WORKFLOW_STARTED
SUSPENDED = EventType.WORKFLOW_SUSPENDED
COMPLETED = EventType.WORKFLOW_COMPLETED


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@contextlib.contextmanager
def opened(path: Path, **options: Any) -> Iterator[Tuple[EventStream, Any]]:
    """A stream over the log, as one process has it, and its checkpoints."""
    with EventStream(SqliteStore(path, **options)) as stream:
        yield stream, stream.store.checkpoints


def begin(stream: EventStream, name: str = "run", **options: Any) -> Any:
    log = stream.open_log(name)
    assert stream.store.checkpoints is not None
    stream.store.checkpoints.begin(name, **options)
    log.append(STARTED, {"workflow": "w"})
    return log


def statuses(stream: EventStream) -> Dict[str, str]:
    return {state.workflow_id: state.status for state in stream.store.runs()}


# --- processes that die ----------------------------------------------------------------------

#: Forks a child that runs `how` times a step: an event, and a record that says so.  It is killed
#: by its parent once it has said so often that it is through, or kills itself.
DYING = """
import os, signal, sys
from agentstream import EventStream, SqliteStore

path, names = sys.argv[1], sys.argv[2:]

def work(name, say):
    stream = EventStream(SqliteStore(path))
    checkpoints = stream.store.checkpoints
    log = stream.open_log(name)
    recover = int(name.partition("=")[2] or 3)
    checkpoints.begin(name, recover=recover)
    log.append("workflow_started", {"workflow": "w"})
    inner = log.open_child(name + "/inner")
    checkpoints.begin(name + "/inner", root=name)
    inner.append("workflow_started", {"workflow": "inner"})
    if name.startswith("refused"):
        checkpoints.refuse(name, "output['a'] is a lock")
    for n in range(10**6):
        log.append("agent_llm_stream_chunk", {"n": n})
        checkpoints.write(name, {"step": b"%d" % n}, wait=n % 2 == 0)
        os.write(say, b".")

for number, name in enumerate(names):
    hear, say = os.pipe()
    child = os.fork()
    if not child:
        work(name, say)
    for _ in range(3 + number * 7):
        os.read(hear, 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_a_run_whose_process_was_killed_is_interrupted_and_goes_on(path: Path) -> None:
    names = [f"run-{n}" for n in range(6)]
    run(DYING, path, *names, "once=0", "refused")
    with opened(path) as (stream, checkpoints):
        store = stream.store
        found = statuses(stream)
        assert [state.workflow_id for state in checkpoints.waiting()] == names
        for name in names:
            assert found[name] == found[f"{name}/inner"] == "interrupted"
            assert not store.has_ended(name)
            before = store.read(workflow_id=name, limit=10_000)
            log, entry = stream.reopen_log(name)
            assert entry == Entry(
                before[-1].offset, 2, 1, "interrupted", entry.records, {f"{name}/inner": 1}
            )
            steps = [one.data["n"] for one in before if one.type is CHUNK]
            assert steps == list(range(len(steps)))
            # Behind its event, and before the next one but one (every other one was waited for).
            assert steps[-1] - 2 <= int(entry.records["step"]) <= steps[-1]
            log.reopen_child(f"{name}/inner", 1).append(COMPLETED, {})
            assert log.append(COMPLETED, {"output": "done"}).offset == entry.last + 1
        for name, why in (("once=0", "recover is 0"), ("refused", "output['a'] is a lock")):
            state = store.run(name)
            assert state is not None
            assert state.status == found[f"{name}/inner"] == "failed"
            assert why in (state.error or "")
            with pytest.raises(LogError, match="has ended"):
                checkpoints.resume(name)
        store.flush()
        assert set(statuses(stream).values()) == {"completed", "failed"}
        left = sqlite3.connect(path)
        assert left.execute("SELECT * FROM checkpoints").fetchall() == []
        assert left.execute("SELECT * FROM resumable").fetchall() == []
        left.close()


#: Resumes a run, says what it was, and dies.
RESUMING = """
import os, sys
from agentstream import EventStream, SqliteStore
stream = EventStream(SqliteStore(sys.argv[1]))
log, entry = stream.reopen_log("run")
stream.store.checkpoints.write("run", {"turn": b"%d" % entry.fence})
print(entry.fence, entry.deaths, entry.reason, flush=True)
log.append("workflow_resumed", {})
stream.store.flush()
os.kill(os.getpid(), 9)
"""


def test_a_run_outlives_as_many_deaths_as_it_may(path: Path) -> None:
    with opened(path) as (stream, _):
        begin(stream, recover=2).append(SUSPENDED, {"status": "suspended"})
    assert run(RESUMING, path, ok=False) == "2 0 suspended\n"
    assert run(RESUMING, path, ok=False) == "3 1 interrupted\n"
    with opened(path) as (stream, checkpoints):
        assert statuses(stream) == {"run": "interrupted"}
        assert checkpoints.read("run") == {"turn": b"3"}
    assert run(RESUMING, path, ok=False) == "4 2 interrupted\n"
    with opened(path) as (stream, checkpoints):
        assert statuses(stream) == {"run": "failed"}
        assert "so did 2 before" in (stream.store.run("run").error or "")  # type: ignore[union-attr]
        assert checkpoints.read("run") == {}


def test_a_death_is_found_by_whoever_resumes(path: Path) -> None:
    with opened(path) as (stream, checkpoints):
        begin(stream).append(SUSPENDED, {"status": "suspended"})
        stream.store.flush()
        assert run(RESUMING, path, ok=False) == "2 0 suspended\n"
        entry = checkpoints.resume("run")  # though nobody looked for dead processes
        assert (entry.fence, entry.deaths, entry.reason) == (3, 1, "interrupted")
        assert entry.records == {"turn": b"2"}


def test_a_process_that_leaves_a_run_behind_has_not_died(path: Path) -> None:
    with opened(path) as (stream, checkpoints):
        log = begin(stream)
        inner = log.open_child("inner")
        checkpoints.begin("inner", root="run")
        inner.append(STARTED, {"workflow": "inner"})
        begin(stream, "refused")
        checkpoints.refuse("refused", "it cannot")
        stream.open_log("plain").append(STARTED, {"workflow": "plain"})
    with opened(path) as (stream, checkpoints):
        expected = {"run": "interrupted", "inner": "interrupted"}
        assert statuses(stream) == {**expected, "refused": "closed", "plain": "closed"}
        entry = checkpoints.resume("run")
        assert (entry.deaths, entry.reason, entry.inner) == (0, "interrupted", {"inner": 1})


# --- two processes ---------------------------------------------------------------------------


def test_of_ten_that_resume_a_run_from_two_stores_one_has_it(path: Path) -> None:
    with opened(path) as (one, _), opened(path) as (two, _):
        log = begin(one)
        for turn in range(2, 12):
            log.append(SUSPENDED, {"status": "suspended"})
            one.store.flush()
            two.store.flush()
            found: List[Any] = []
            barrier = threading.Barrier(10)

            def resume(
                stream: EventStream, found: List[Any] = found, barrier: Any = barrier
            ) -> None:
                barrier.wait(10.0)
                try:
                    found.append(stream.reopen_log("run"))
                except Busy as error:
                    found.append(error)

            threads = [
                threading.Thread(target=resume, args=((one, two)[n % 2],)) for n in range(10)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20.0)
            winners = [each for each in found if isinstance(each, tuple)]
            assert [entry.fence for _, entry in winners] == [turn]
            assert len(found) == 10
            log = winners[0][0]
        log.append(COMPLETED, {})


def test_each_event_is_had_once_and_in_order_when_the_owner_changes(path: Path) -> None:
    with opened(path) as (one, _), opened(path) as (two, _), opened(path) as (third, _):
        streams = (one, two)
        seen: List[List[int]] = []
        for stream in (one, two, third):
            for options in ({}, {"workflow_id": "run"}, {"max_queue": 1}):
                found: List[int] = []
                seen.append(found)

                def note(event: Any, found: List[int] = found) -> None:
                    if event.workflow_id == "run":
                        found.append(event.offset)

                stream.subscribe(note, **options)  # type: ignore[arg-type]
        only = third.subscribe(workflow_id="run", types=["workflow_resumed", "events_missed"])
        own = one.subscribe(workflow_id="run", types=["workflow_resumed", "events_missed"])
        log, count = begin(one), 1
        for turn in range(1, 13):
            for n in range(turn % 4 * 3):
                log.append(CHUNK, {"n": n})
                streams[turn % 2].append("system_warning", f"beside-{turn}")
            log.append(SUSPENDED, {"status": "suspended"})
            count += turn % 4 * 3 + 2
            for stream in streams:
                stream.store.flush()
            log, entry = streams[turn * 7 // 3 % 2].reopen_log("run")
            assert entry.last == count - 1
            log.append(EventType.WORKFLOW_RESUMED, {})
        log.append(COMPLETED, {})
        log._stream.store.flush()
        expected = list(range(1, count + 2))
        with contextlib.suppress(AssertionError):
            wait_until(lambda: all(len(each) >= len(expected) for each in seen))
        threading.Event().wait(0.1)  # for what comes twice
        assert [found == expected for found in seen] == [True] * 9, seen
        for subscription in (only, own):
            kinds = [one.type.value for one in subscription]
            assert kinds == ["workflow_resumed"] * 12


def test_who_has_lost_a_run_is_told_and_nothing_it_says_is_kept(path: Path) -> None:
    class Stops:
        def __init__(self) -> None:
            self.told: List[Tuple[str, str]] = []

        def stop(self, workflow_id: str, reason: str) -> bool:
            self.told.append((workflow_id, reason))
            return True

    stops = Stops()
    with opened(path) as (one, kept), opened(path) as (two, _):
        one.store.watch_stops(stops.stop)
        log = begin(one)
        kept.write("run", {"a": b"1"})
        # As if the process had been found dead, frozen on a machine that lost its lock file.
        two.store._writer.do(  # type: ignore[attr-defined]
            lambda c: interrupted.close_interrupted(c, [one.store._claims.owner])  # type: ignore[attr-defined]
        )
        taken, entry = two.reopen_log("run")
        taken.append(CHUNK, {"from": "two"})
        two.store.flush()
        log.append(CHUNK, {"from": "one"})
        with contextlib.suppress(LogError):
            kept.write("run", {"a": b"late"})
        wait_until(lambda: bool(stops.told))
        name, reason = stops.told[0]
        assert name == "run"
        assert "another process has taken" in reason
        with pytest.raises(LogError, match="another process has taken"):
            log.append(CHUNK, {"from": "one"})
        with pytest.raises(LogError, match="another process has taken"):
            kept.write("run", {"a": b"late"})
        assert two.store.runs()[0].last_offset == 2
        taken.append(COMPLETED, {})
        two.store.flush()
        told = [event.data.get("from") for event in two.store.read(workflow_id="run")]
        assert told == [None, "two", None]
        assert entry.records == {"a": b"1"}


def test_a_fence_keeps_out_what_one_process_says_of_an_earlier_stint(path: Path) -> None:
    with opened(path) as (stream, checkpoints):
        log = begin(stream)
        inner = log.open_child("inner")
        checkpoints.begin("inner", root="run")
        inner.append(STARTED, {"workflow": "inner"})
        log.append(SUSPENDED, {"status": "suspended"})
        stream.store.flush()
        with contextlib.suppress(LogError):
            for _ in range(3):
                inner.append(CHUNK, {"from": "a thread that was left behind"})
        log, entry = stream.reopen_log("run")
        assert entry.inner == {"inner": 1}
        child = log.reopen_child("inner", 1)
        assert inner.append(CHUNK, {"from": "before"}) is None
        child.append(CHUNK, {"from": "now"})
        child.append(COMPLETED, {})
        log.append(COMPLETED, {})
        stream.store.flush()
        told = [event.data.get("from") for event in stream.store.read(workflow_id="inner")]
        assert told == [None, "now", None]
        assert statuses(stream) == {"run": "completed", "inner": "completed"}


# --- stops -----------------------------------------------------------------------------------


def test_a_stop_that_comes_as_a_run_is_left_is_not_lost(path: Path) -> None:
    with opened(path) as (one, _), opened(path) as (two, _):
        log = begin(one)
        one.store.flush()
        follower = two.subscribe(workflow_id="run", after=0)
        assert two.store.request_stop("run", "enough")
        log.append(SUSPENDED, {"status": "suspended", "output": "half"})
        events = [one for one in (follower.get(10.0) for _ in range(3)) if one is not None]
        kinds = [(event.type.value, event.data.get("reason")) for event in events]
        assert kinds[1:] == [("workflow_suspended", None), ("workflow_cancelled", "enough")]
        state = two.store.run("run")
        assert state is not None
        assert (state.status, state.output, state.error) == ("cancelled", "half", "enough")


def test_an_interrupted_run_is_stopped_with_what_it_had_said(path: Path) -> None:
    with opened(path) as (stream, _):
        log = begin(stream)
        log.append(EventType.WORKFLOW_STEP_STARTED, {"step": "0", "name": "a"})
        log.append(CHUNK, {"chunk": "so "})
        log.append(CHUNK, {"chunk": "far"})
    with opened(path) as (stream, _):
        assert stream.store.request_stop("run", "enough")
        state = stream.store.run("run")
        assert state is not None
        assert (state.status, state.output, state.error) == ("cancelled", "so far", "enough")


# --- the file --------------------------------------------------------------------------------


def test_records_have_their_place_among_the_events(path: Path) -> None:
    with opened(path) as (stream, checkpoints):
        log = begin(stream)
        stream.store.flush()
        writer = stream.store._writer  # type: ignore[attr-defined]
        with writer.committing:  # so that it all comes in one commit, or two
            for n in range(3000):
                log.append(CHUNK, {"n": n})
                if n % 100 == 0:
                    checkpoints.write("run", {"n": b"%d" % n, f"at/{n}": b""}, wait=False)
            checkpoints.write("run", {}, discard=["at/1"], wait=False)
            log.append(SUSPENDED, {"status": "suspended"})
        found = checkpoints.read("run")
        assert found.pop("n") == b"2900"
        assert set(found) == {f"at/{n}" for n in range(0, 3000, 100) if str(n)[0] != "1"}
        assert statuses(stream) == {"run": "suspended"}
        assert checkpoints.resume("run").last == 3002


@pytest.mark.parametrize("on_error", ["stop", "memory"])
def test_a_write_that_the_disk_does_not_take_yet_is_kept_in_its_place(
    path: Path, on_error: str
) -> None:
    with opened(path, busy_timeout=0.2, on_error=on_error) as (stream, checkpoints):
        log = begin(stream)
        checkpoints.write("run", {"a": b"1"})
        with Locked(path):
            checkpoints.write("run", {"a": b"2", "b": b"2"}, wait=False)
            if on_error == "stop":
                with pytest.raises(LogError, match="locked"):
                    checkpoints.write("run", {"a": b"3"})
            else:
                checkpoints.write("run", {"a": b"3"})
                log.append(CHUNK, {"chunk": "."})
        wait_until(lambda: checkpoints.read("run") == {"a": b"3", "b": b"2"})
        wait_until(lambda: stream.store._writer.failure is None)  # type: ignore[attr-defined]
        checkpoints.write("run", {"a": b"4"})
        assert checkpoints.read("run") == {"a": b"4", "b": b"2"}


def test_what_an_earlier_write_lacks_the_next_one_tells(path: Path) -> None:
    with opened(path) as (stream, checkpoints):
        log = begin(stream)
        stream.store._writer.do(  # type: ignore[attr-defined]
            lambda c: c.execute(
                "CREATE TRIGGER refuse BEFORE INSERT ON checkpoints WHEN new.key = 'bad' "
                "BEGIN SELECT raise(ABORT, 'not that one'); END"
            )
        )
        checkpoints.write("run", {"good": b"1"}, wait=False)
        checkpoints.write("run", {"bad": b"1", "with it": b"1"}, wait=False)
        with pytest.raises(LogError, match="not that one"):
            checkpoints.write("run", {"good": b"2"})
        assert checkpoints.read("run") == {"good": b"1"}
        log.append(CHUNK, {"chunk": "the log goes on"})
        stream.store.flush()


def test_records_that_are_kept_go_after_their_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentstream.events.sqlite.commit_loop._HOUSEKEEPING_S", 0.01)
    with opened(path) as (stream, checkpoints):
        for name, keep in (("brief", 0.05), ("long", 60.0)):
            log = begin(stream, name, keep=keep)
            checkpoints.write(name, {"a": b"1"})
            log.append(COMPLETED, {})
        beside = stream.open_log("beside")

        def is_gone() -> bool:
            beside.append(CHUNK, {"chunk": "."})
            return checkpoints.read("brief") == {}

        wait_until(is_gone)
        assert checkpoints.read("long") == {"a": b"1"}


def test_a_run_without_a_checkpoint_costs_no_statement(path: Path) -> None:
    with opened(path) as (stream, _):
        log = stream.open_log("plain")
        said: List[str] = []
        stream.store._writer.committer.connection.set_trace_callback(said.append)  # type: ignore[attr-defined]
        log.append(STARTED, {"workflow": "plain"})
        stream.store.flush()
        log.append(CHUNK, {"chunk": "."})
        stream.store.flush()
        log.append(COMPLETED, {})
        stream.store.flush()
        stream.store._writer.committer.connection.set_trace_callback(None)  # type: ignore[attr-defined]
        assert any("INSERT INTO events" in sql for sql in said)
        tables = [sql for sql in said if "checkpoints" in sql or "resumable" in sql]
        assert [
            sql
            for sql in tables
            if "ended IS NOT NULL" not in sql and "DELETE FROM runs" not in sql
        ] == []


def test_a_log_of_0_1_gets_the_tables_and_one_that_is_only_read_has_no_checkpoints(
    path: Path,
) -> None:
    with SqliteStore(path) as store:
        store.claim("old")
        store.append(event("old", 1))
    with sqlite3.connect(path) as connection:
        for table in ("inputs", "resumable", "checkpoints"):
            connection.execute(f"DROP TABLE {table}")
    connection.close()
    with SqliteStore(path, read_only=True) as store:
        assert store.checkpoints is not None
        assert store.checkpoints.read("old") == {}
        assert store.checkpoints.waiting() == []
        for act in (
            lambda: store.checkpoints.resume("old"),
            lambda: store.checkpoints.answer("old", "a", b"1"),
            lambda: store.checkpoints.begin("old"),
        ):
            with pytest.raises(LogError, match="for reading only"):
                act()
    with opened(path) as (stream, checkpoints):
        begin(stream, "new")
        checkpoints.write("new", {"a": b"1"})
        assert checkpoints.read("new") == {"a": b"1"}
        for file in path.parent.iterdir():
            assert stat.S_IMODE(os.stat(file).st_mode) == 0o600, file


def test_processes_that_resume_a_run_at_once_have_one_owner_at_a_time() -> None:
    said = run("import runpy; runpy.run_module('stress.owners', run_name='__main__')", 12, 4)
    assert "wrong=[]" in said


def test_a_run_that_was_taken_and_not_gone_on_with_can_be_taken_again(path: Path) -> None:
    with opened(path) as (stream, checkpoints):
        begin(stream).append(SUSPENDED, {"status": "suspended"})
        install = checkpoints._install
        checkpoints._install = lambda _: (_ for _ in ()).throw(KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            stream.reopen_log("run")
        checkpoints._install = install
        log, entry = stream.reopen_log("run")
        assert (entry.last, entry.fence, entry.deaths, entry.reason) == (2, 3, 0, "interrupted")
        log.append(COMPLETED, {})


def test_only_within_a_run_that_keeps_a_checkpoint_another_does(path: Path) -> None:
    with opened(path) as (stream, checkpoints):
        log = stream.open_log("plain")
        log.open_child("inner")
        checkpoints.begin("inner", root="plain", recover=0)
        with pytest.raises(LogError, match="'plain' keeps no checkpoint"):
            checkpoints.write("inner", {"a": b"1"})
        with pytest.raises(LogError, match="not under way here"):
            checkpoints.begin("plain", root="unknown")
