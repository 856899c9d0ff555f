"""docs/faults.rst, group D, R03 and S10: what may happen to the log's file, and what must hold then."""

from __future__ import annotations

import datetime
import json
import logging
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Iterator, List

import pytest

from agentstream import EventStream, EventType, LogError, OffsetGone, SqliteStore
from agentstream.errors import ConfigError
from agentstream.events import sqlite as module
from agentstream.events.model import Event
from agentstream.testing.stores import event
from tests.kit.log_support import CHUNK, ROOT, run
from tests.kit.support import wait_until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def fill(stream: EventStream, workflow_id: str, count: int) -> None:
    log = stream.open_log(workflow_id)
    for number in range(1, count + 1):
        log.append(CHUNK, {"chunk": f"{workflow_id} {number} " + "x" * 200})


# --- D01 -------------------------------------------------------------------------------------


def test_d01_i5_kill_9_while_appending_200_times() -> None:
    # What a kill does to a file is the same in memory, and this is about 200 kills.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    done = subprocess.run(
        [sys.executable, "stress/kill9.py", "200"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": memory or tempfile.gettempdir()},
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["kills"] == 200
    assert found["acknowledged"] >= 200
    assert found["kept"] >= found["acknowledged"]


# --- D02 -------------------------------------------------------------------------------------

TORN = """
import os, sys
from agentstream import *
stream = EventStream(SqliteStore(sys.argv[1]))
for run in range(4):
    log = stream.open_log(f"run{run}")
    for n in range(1, 26):
        log.append("agent_llm_stream_chunk", {"chunk": f"run{run} {n}"})
        if n % 5 == 0:
            stream.store.flush()
    log.append("workflow_completed", {})
stream.store.flush()
os._exit(0)
"""


def check_torn(path: Path, whole: int, *, follow: bool) -> bool:
    """The log opens to a prefix and says so if it is one; returns whether it is."""
    with SqliteStore(path) as store:
        assert store.runs() is not None
        events = store.read(limit=1000)
        kept = [e for e in events if e.type == "agent_llm_stream_chunk"]
        expected = [f"run{run} {n}" for run in range(4) for n in range(1, 26)]
        assert [e.data["chunk"] for e in kept] == expected[: len(kept)]
        before = [e for e in events if (e.position or 0) <= whole]
        assert [e.position for e in before] == list(range(1, len(before) + 1))
        if len(before) == whole:
            assert store.lost is None
            return False
        assert store.lost == (len(before) + 1, whole)
        # What was given away once is not given away again.
        assert all((e.position or 0) > whole for e in events[len(before) :])
        warned = [e for e in events if e.type == "system_warning"]
        assert len(warned) == 1
        said = f"ends at position {len(before)} and had come to {whole}"
        assert said in warned[0].data["message"]
    with SqliteStore(path) as store:
        assert store.lost is None  # told once
    if not follow:
        return True
    with EventStream(SqliteStore(path)) as stream:
        if not before:
            with pytest.raises(OffsetGone):
                stream.subscribe(after=0)
            return True
        with stream.subscribe(after=0) as replay:
            kinds = [e.type for e in iter(lambda: replay.get(0.05), None)]
        assert kinds.count(EventType.EVENTS_MISSED) == 1
    return True


def test_d02_a_torn_wal_opens_to_a_prefix_and_says_so(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    run(TORN, source / "runs.db")
    wal = (source / "runs.db-wal").read_bytes()
    for leftover in source.glob("runs.db-owner-*"):
        leftover.unlink()
    randoms = random.Random(5)
    torn = 0
    for number in range(60):
        target = tmp_path / str(number)
        shutil.copytree(source, target)
        (target / "runs.db-shm").unlink()
        place = randoms.randrange(len(wal))
        if number % 2:
            (target / "runs.db-wal").write_bytes(wal[:place])
        else:
            flipped = bytes([wal[place] ^ (1 << randoms.randrange(8))])
            (target / "runs.db-wal").write_bytes(wal[:place] + flipped + wal[place + 1 :])
        torn += check_torn(target / "runs.db", 104, follow=number % 6 == 0)
    assert torn > 40


# --- D03 -------------------------------------------------------------------------------------

FULL = """
import resource, signal, sys
from agentstream import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, policy = sys.argv[1:]
store = SqliteStore(path, on_error=policy)
stream = EventStream(store)
warnings = stream.subscribe(types=["system_warning"])
log = stream.open_log("run")
for n in range(20):
    log.append("agent_llm_stream_chunk", {"n": n})
store.flush()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
failed = None
for n in range(20, 1000):
    try:
        log.append("agent_llm_stream_chunk", {"n": n, "x": "x" * 200})
        if n % 50 == 0:
            store.flush()
    except LogError as error:
        failed = error
        if policy == "stop":
            break
print(type(failed).__name__, failed)
if policy == "memory":
    print(warnings.get(5).data["message"])
    numbers = list(range(1, log.offset + 1))
    assert [e.offset for e in store.read(workflow_id="run", limit=10**4)] == numbers
    assert [e.position for e in store.read(limit=10**4)] == numbers
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
for _ in range(100):
    try:
        store.flush()
        break
    except LogError:
        import threading
        threading.Event().wait(0.05)
log.append("workflow_completed", {})
stream.close()
print(log.offset)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_FSIZE")
@pytest.mark.parametrize("policy", ["stop", "memory"])
def test_d03_a_disk_that_takes_no_more(path: Path, policy: str) -> None:
    lines = run(FULL, path, policy).splitlines()
    assert lines[0].startswith("LogError the log ")
    assert "disk" in lines[0]
    if policy == "memory":
        assert "kept in memory" in lines[1]
    with SqliteStore(path) as store:
        events = store.read(workflow_id="run", limit=10_000)
        assert [e.offset for e in events] == list(range(1, int(lines[-1]) + 1))
        assert [e.position for e in events] == list(range(1, int(lines[-1]) + 1))
        said = [e.data["n"] for e in events[:-1]]
        assert said == list(range(len(said)))
        assert events[-1].type == "workflow_completed"
        if policy == "memory":
            assert len(said) == 1000


def test_d03_errors_at_every_nth_write_until_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLITE_FULL at the n-th page: LogError at once, what was acknowledged stays, no gap."""
    monkeypatch.setattr("agentstream.events.sqlite.commit_loop._RETRY_S", 0.02)
    for pages in range(14, 26, 3):
        path = tmp_path / f"{pages}.db"
        with SqliteStore(path, durability="full") as store:
            stream = EventStream(store)
            log = stream.open_log("run")
            log.append(CHUNK, {"n": 0})
            assert store._writer.committer.connection is not None
            store._writer.committer.connection.execute(f"PRAGMA max_page_count = {pages}")
            acked = 1
            error = None
            for n in range(1, 400):
                try:
                    log.append(CHUNK, {"n": n, "x": "x" * 300})
                    acked += 1
                except LogError as caught:
                    error = caught
                    break
            assert error is not None
            assert "full" in str(error)
            assert error.phase == "log"
            with pytest.raises(LogError):
                log.append(CHUNK, {"n": "refused"})
            store._writer.committer.connection.execute("PRAGMA max_page_count = 100000")
            wait_until(lambda: store._writer.failure is None)
            log.append(EventType.WORKFLOW_COMPLETED, {})
            events = store.read(limit=1000)
            assert [e.offset for e in events] == list(range(1, len(events) + 1))
            assert [e.data["n"] for e in events[:acked]] == list(range(acked))
            assert events[-1].type == "workflow_completed"
            stream.close()


# --- D07 -------------------------------------------------------------------------------------


def test_d07_a_reader_left_open_is_told_of(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module.housekeeping, "_WAL_BYTES", 2_000_000)
    monkeypatch.setattr("agentstream.events.sqlite.commit_loop._HOUSEKEEPING_S", 0.05)
    with EventStream(SqliteStore(path)) as stream:
        warnings = stream.subscribe(types=["system_warning"])
        fill(stream, "first", 10)
        stream.store.flush()
        reader = sqlite3.connect(str(path), isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM events").fetchone()
        fill(stream, "run", 10_000)
        stream.store.flush()
        warned = warnings.get(5.0)
        assert warned is not None
        assert "write-ahead log" in warned.data["message"]
        assert "write-ahead log" in caplog.text
        assert warned.workflow_id.startswith("log-")
        reader.close()
        fill(stream, "more", 2_000)
        wait_until(lambda: (stream.store.flush(), os.stat(f"{path}-wal").st_size < 2**25)[1])
        assert stream.store.bounds("run") == (1, 10_000)
        assert all(not r.workflow_id.startswith("log-") for r in stream.store.runs())


# --- D10 -------------------------------------------------------------------------------------


def test_d10_what_was_let_go_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentstream.events.sqlite.commit_loop._HOUSEKEEPING_S", 0.01)
    with EventStream(SqliteStore(path, max_events=100)) as stream:
        fill(stream, "old", 150)
        fill(stream, "run", 150)
        stream.append("workflow_completed", "ended")
        wait_until(lambda: (stream.store.flush(), stream.store.bounds() == (202, 301))[1])
        assert stream.store.bounds("old") == (151, 150)
        assert stream.store.bounds("run") == (52, 150)
        for workflow_id, after, first, last in (
            ("run", 0, 52, 150),
            ("run", 50, 52, 150),
            ("run", 151, 52, 150),
            ("old", 0, 151, 150),
            (None, 10, 202, 301),
            (None, 302, 202, 301),
            ("unknown", 1, 0, 0),
        ):
            with pytest.raises(OffsetGone) as caught:
                stream.subscribe(workflow_id=workflow_id, after=after)
            assert (caught.value.first, caught.value.last) == (first, last)
        with stream.subscribe(workflow_id="run", after=51) as replay:
            assert next(replay).offset == 52


def test_d10_old_events_go_by_age(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentstream.events.sqlite.commit_loop._HOUSEKEEPING_S", 0.01)
    with SqliteStore(path, max_age=3600) as store:
        store.claim("run")
        for offset in range(1, 11):
            age = 7200 if offset < 5 else 0
            store.append(event("run", offset)._replace(timestamp=time.time() - age))
        wait_until(lambda: (store.flush(), store.bounds("run") == (5, 10))[1])
        assert store.bounds() == (5, 10)


# --- D11 -------------------------------------------------------------------------------------


def nested(depth: int) -> Any:
    value: List[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def cyclic() -> Any:
    value: List[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"\x00\xff", "AP8="),
        (datetime.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),
        (float("nan"), None),
        (float("inf"), None),
        ("a\ud800b", "a\ufffdb"),
        ({"k\udc00": {1, 1}}, {"k\ufffd": (1,)}),
        ("NUL \x00 \u2028 \U0001f600", "NUL \x00 \u2028 \U0001f600"),
        (2**70, 2**70),
    ],
)
def test_d11_a_value_that_is_not_json(path: Path, value: Any, kept: Any) -> None:
    with SqliteStore(path) as store, EventStream(store) as stream:
        stream.append("system_warning", "run", {"value": value})
        store.append(event("raw", 1, CHUNK)._replace(data={"value": value}))  # type: ignore[arg-type]
        store.flush()
        for name in ("run", "raw"):
            (found,) = store.read(workflow_id=name)
            assert found.data["value"] == kept
            json.loads(found.to_json())


def test_d11_a_value_that_contains_itself(path: Path) -> None:
    with SqliteStore(path) as store, EventStream(store) as stream:
        with pytest.raises(LogError):
            stream.append("system_warning", "run", {"value": nested(100)})
        store.append(event("raw", 1, CHUNK)._replace(data={"value": cyclic()}))
        stream.append("system_warning", "run", {"value": 1})
        store.flush()
        assert "could not be kept" in store.read(workflow_id="raw")[0].data["message"]
        assert store.read(workflow_id="run")[0].offset == 1


# --- S10 -------------------------------------------------------------------------------------


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.skipif(os.name != "posix", reason="modes")
def test_s10_the_log_is_its_owners_only(
    path: Path, open_umask: None, caplog: pytest.LogCaptureFixture
) -> None:
    os.chmod(path.parent, 0o777)
    with SqliteStore(path) as store:
        store.claim("run")
        store.append(event("run", 1))
        store.flush()
        files = list(path.parent.iterdir())
        assert len(files) == 5
        for file in files:
            assert stat.S_IMODE(os.stat(file).st_mode) == 0o600, file
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert str(path.parent) in record.getMessage()
    caplog.clear()
    for mode in (0o755, 0o700):  # others may look, or not even that
        os.chmod(path.parent, mode)
        SqliteStore(path).close()
        assert not caplog.records


# --- arguments -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [{"durability": "maybe"}, {"on_error": "panic"}, {"max_age": 0}, {"max_queue": -1}],
)
def test_arguments_that_make_no_sense(path: Path, arguments: Any) -> None:
    with pytest.raises(ConfigError):
        SqliteStore(path, **arguments)
    assert not path.exists()


def test_an_event_that_leaves_a_gap_is_refused(path: Path) -> None:
    with SqliteStore(path) as store:
        store.claim("run")
        store.append(event("run", 1))
        with pytest.raises(LogError, match="event 3 of 'run' came after 1"):
            store.append(event("run", 3))
        assert isinstance(store.append(event("run", 2)), Event)


def test_importing_agentstream_imports_no_sqlite() -> None:
    assert run("import sys, agentstream; print('sqlite3' in sys.modules)").strip() == "False"
