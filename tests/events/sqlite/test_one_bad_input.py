"""docs/faults.rst, B07: what a log cannot hold is refused at the call, and no other run feels it."""

from __future__ import annotations

import json
import sqlite3
import uuid
from pathlib import Path
from typing import Any, Iterator

import pytest

from agentstream import EventStream, EventType, LogError, SqliteStore
from agentstream.errors import ConfigError
from agentstream.events import entry
from agentstream.testing.stores import event

CHUNK = EventType.AGENT_LLM_STREAM_CHUNK
BAD_IDS = [
    "a\ud800b",
    "\udfff",
    b"bytes",
    None,
    uuid.UUID(int=1),
    1,
    1.5,
    ("a",),
    "",
    "x" * 257,
]
BAD_REASONS = ["why\ud800", "\udcff", b"why", None, uuid.UUID(int=2), 3, "x" * 100_001]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(tmp_path / "runs.db") as store:
        yield store


def innocent(store: SqliteStore, n: int) -> None:
    """One more event of another run; it must be taken."""
    store.append(event("innocent", n))


@pytest.mark.parametrize("bad", BAD_IDS, ids=ascii)
def test_b07_an_id_that_the_log_cannot_hold_is_refused_at_the_call(
    store: SqliteStore, bad: Any
) -> None:
    innocent(store, 1)
    with pytest.raises(ConfigError):
        store.claim(bad)
    with pytest.raises(ConfigError):
        store.append(event(bad, 1))
    with pytest.raises(ConfigError):
        store.request_stop(bad, "why")
    if bad is not None:
        with pytest.raises(ConfigError):
            store.claim("child", bad)
    innocent(store, 2)
    store.flush()
    assert store.bounds() == (1, 2)
    assert store._writer.failure is None


@pytest.mark.parametrize("bad", BAD_REASONS, ids=lambda bad: ascii(bad)[:20])
def test_b07_a_reason_that_the_log_cannot_hold_is_refused_at_the_call(
    store: SqliteStore, bad: Any
) -> None:
    innocent(store, 1)
    with pytest.raises(ConfigError):
        store.request_stop("innocent", bad)
    innocent(store, 2)
    store.flush()
    assert store.request_stop("innocent", "")
    assert store.request_stop("innocent", "because of \u2028 and \x00")


@pytest.mark.parametrize("asked", ["a\ud800b", "x" * 10_000, "nobody", ""])
def test_b07_asking_after_a_run_that_cannot_be_hurts_nobody(store: SqliteStore, asked: str) -> None:
    innocent(store, 1)
    for ask in (
        lambda: store.read(workflow_id=asked) == [],
        lambda: store.bounds(asked) == (0, 0),
        lambda: not store.has_ended(asked),
        lambda: store.run(asked) is None,
    ):
        try:
            assert ask()
        except LogError as error:
            assert "\ud800" in asked, error
    innocent(store, 2)
    assert [e.offset for e in store.read()] == [1, 2]


def test_b07_ids_of_many_kinds_are_kept(store: SqliteStore) -> None:
    ids = ["a/b", "a b", "é\U0001f600", "x" * 256, "'; DROP TABLE runs; --", "%2F", "\x00", "."]
    for name in ids:
        store.append(event(name, 1))
    store.flush()
    assert [e.workflow_id for e in store.read()] == ids
    assert {state.workflow_id for state in store.runs()} == set(ids)


@pytest.mark.parametrize(
    "data",
    [
        {"text": "x" * 2000},
        {"text": "é" * 1000, "more": ["é" * 500]},
        {"k" * 2000: "v"},
        {"list": list(range(1000))},
        {"deep": {"er": {"text": "\x00" * 400}}},
        {"a": "x" * 1500, "n": 1},
    ],
    ids=lambda data: next(iter(data))[:5],
)
def test_b07_an_event_that_is_too_large_is_refused_at_the_call(
    store: SqliteStore, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "_MOST_BYTES", 1000)
    monkeypatch.setattr(entry, "_SURELY_SMALL", 1000 // 6)
    with EventStream(store) as stream:
        log, other = stream.open_log("run"), stream.open_log("other")
        other.append(CHUNK, {"n": 1})
        with pytest.raises(LogError, match="more than 1,000 bytes"):
            log.append(CHUNK, data)
        log.append(CHUNK, {"text": "x" * 900})
        other.append(CHUNK, {"n": 2})
        store.flush()
        assert [e.offset for e in store.read(workflow_id="run")] == [1]
        assert [e.data["n"] for e in store.read(workflow_id="other")] == [1, 2]


def test_b07_what_sqlite_refuses_is_that_runs_alone(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should anything get past the checks: the writer takes it out, the rest is committed."""
    for name in ("one", "two", "three"):
        store.claim(name)
    store.flush()
    with store._writer.committing:  # so that they come in one batch
        for n in range(1, 4):
            store.append(event("one", n))
        store.append(event("two", 1))
        store.append(event("two", 2)._replace(timestamp=object()))  # type: ignore[arg-type]
        store.append(event("two", 3))
        store.append(event("three", 1)._replace(type="no such type"))  # type: ignore[arg-type]
        store.append(event("one", 4))
    store.flush()
    assert [e.offset for e in store.read(workflow_id="one")] == [1, 2, 3, 4]
    assert [e.offset for e in store.read(workflow_id="two")] == [1]
    assert store.read(workflow_id="three") == []
    assert [e.position for e in store.read()] == [1, 2, 3, 4, 5]
    with pytest.raises(LogError, match="event 2 of 'two' cannot be kept"):
        store.append(event("two", 4))
    store.append(event("one", 5))
    store.flush()


@pytest.mark.parametrize(
    "fault",
    [
        ValueError("a value"),
        KeyError("key"),
        sqlite3.ProgrammingError("cannot be bound"),
        sqlite3.IntegrityError("not unique"),
        sqlite3.DataError("too big"),
        OverflowError("too large"),
        MemoryError(),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_b07_an_operations_error_is_its_own(store: SqliteStore, fault: Exception) -> None:
    store.claim("run")

    def fails(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE runs SET name = 'spoilt'")
        raise fault

    with store._writer.committing:
        store.append(event("run", 1))
        good = store._writer.do_soon(lambda connection: "done")
        bad = store._writer.do_soon(fails)
        after = store._writer.do_soon(
            lambda connection: connection.execute("SELECT name FROM runs").fetchone()[0]
        )
    store.flush()
    assert good.result == "done"
    assert after.result == ""  # what it wrote was undone
    assert isinstance(bad.error, LogError)
    assert bad.error.__cause__ is fault
    assert store._writer.failure is None
    assert store.bounds() == (1, 1)


def test_b07_a_damaged_row_does_not_keep_a_dead_run_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with SqliteStore(path) as store, EventStream(store) as stream:
        log = stream.open_log("run")
        log.append(EventType.WORKFLOW_STEP_STARTED, {"name": "first", "step": "0"})
        log.append(CHUNK, {"chunk": "said"})
        log.append(CHUNK, {"chunk": " this"})
    connection = sqlite3.connect(str(path))
    with connection:
        connection.execute("UPDATE events SET data = '{' WHERE offset IN (1, 3)")
        connection.execute("INSERT INTO owners VALUES (99, 'gone', 1, 'long ago', 'before')")
        connection.execute("UPDATE runs SET status = 'running', owner = 99")
    connection.close()
    with SqliteStore(path) as store:
        state = store.run("run")
        assert state is not None
        assert state.status == "failed"
        end = store.read(workflow_id="run", after=3)[0]
        assert end.data["output"] == "said"
        assert end.data["error"] == "Interrupted"


def test_b07_the_end_of_an_interrupted_run_has_the_keys_of_any_other(tmp_path: Path) -> None:
    from agentstream import Runtime, Workflow, WorkflowFailed

    path = tmp_path / "runs.db"

    def fails(text: str) -> str:
        raise ValueError("no")

    with SqliteStore(path) as store, Runtime(event_stream=EventStream(store)) as runtime:
        with pytest.raises(WorkflowFailed):
            runtime.run(Workflow("w", [fails]), "x", workflow_id="failed")
        store.append(event("dead", 1, EventType.WORKFLOW_STARTED, {"workflow": "w"}))
        store.append(event("dead", 2, EventType.WORKFLOW_STEP_STARTED, {"name": "a", "step": "0"}))
    connection = sqlite3.connect(str(path))
    with connection:
        connection.execute("INSERT INTO owners VALUES (99, 'gone', 1, 'long ago', 'before')")
        connection.execute("UPDATE runs SET status='running', owner=99 WHERE workflow_id='dead'")
    connection.close()
    with SqliteStore(path) as store:
        ends = [store.read(workflow_id=name)[-1] for name in ("failed", "dead")]
        assert [end.type for end in ends] == [EventType.WORKFLOW_FAILED] * 2
        assert list(ends[0].data) == list(ends[1].data)
        assert set(ends[0].data["usage"]) == set(ends[1].data["usage"])
        assert ends[1].data["failed_at"] == "0"
        json.loads(ends[1].to_json())
