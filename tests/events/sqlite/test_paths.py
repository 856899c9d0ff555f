"""docs/faults.rst, B19, Y01, Y02 and Y12: what a log's path may be, copies of it, and reading only."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from agentstream import EventStream, EventType, LogError, SqliteStore
from agentstream.errors import ConfigError
from agentstream.events.sqlite.paths import check_names
from agentstream.testing.stores import event

ROOT = Path(__file__).resolve().parents[3]
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX file systems")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def fill(path: Path, run: str = "run", count: int = 5) -> None:
    with SqliteStore(path) as store:
        for n in range(1, count + 1):
            store.append(event(run, n))


# --- B19 -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        ":memory:",
        "file::memory:",
        "file:runs.db",
        "file:///tmp/runs.db?mode=memory",
        "file:x?cache=shared",
        pathlib.PurePath(":memory:"),
        b":memory:",
        "",
        "a\0b",
        None,
        5,
        3.5,
    ],
    ids=ascii,
)
def test_b19_what_names_no_file_is_no_path(
    given: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="path"):
        SqliteStore(given)
    assert not list(tmp_path.iterdir())


@posix
@pytest.mark.parametrize(
    "name", ["a?b#c%41.db", "file:x", " ", "é\U0001f600.db", os.fsdecode(b"\xff\xfe.db"), "'\"\n"]
)
def test_b19_files_of_any_name_can_be_logs(tmp_path: Path, name: str) -> None:
    path = os.path.join(tmp_path, name)
    for n in range(1, 3):
        with SqliteStore(path) as store:
            store.append(event(f"run{n}", 1))
            store.flush()
            assert store.bounds() == (1, n)
    assert os.path.exists(path)
    with SqliteStore(os.fsencode(path)) as store:  # type: ignore[arg-type]
        assert store.bounds() == (1, 2)


# --- Y01 -------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("at", ["first", "second"])
def test_y01_a_log_with_two_names_is_refused(path: Path, tmp_path: Path, at: str) -> None:
    fill(path)
    other = tmp_path / "elsewhere" / "other.db"
    other.parent.mkdir()
    os.link(path, other)
    with pytest.raises(LogError, match="several names"):
        SqliteStore(path if at == "first" else other)
    with pytest.raises(LogError, match="several names"):
        SqliteStore(other, read_only=True)
    path.unlink()
    with SqliteStore(other) as store:
        assert store.bounds() == (1, 5)


@posix
def test_y01_symbolic_links_lead_to_one_log(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)
    with SqliteStore(link) as one, SqliteStore(path) as other:
        one.append(event("one", 1))
        other.append(event("other", 1))
        one.flush()
        other.flush()
        assert one.bounds() == other.bounds() == (1, 2)
    assert not list(tmp_path.glob("link.db-*"))


@posix
@pytest.mark.parametrize("name", ["runs.db", "runs with space.db", "tab\tback\\slash.db", "é.db"])
def test_y01_a_log_that_is_mounted_by_itself_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.touch()
    mounts = tmp_path / "mountinfo"

    def line(point: str) -> bytes:
        raw = os.fsencode(point)
        for char in (b"\\", b" ", b"\t", b"\n"):
            raw = raw.replace(char, b"\\%03o" % ord(char))
        return b"36 35 98:0 /root " + raw + b" rw,noatime - ext4 /dev/sda1 rw\n"

    mounts.write_bytes(line("/") + line(str(tmp_path)) + line(str(path) + "2"))
    check_names(str(path), str(mounts))  # its folder is: that is right
    mounts.write_bytes(line("/") + line(str(path)))
    with pytest.raises(LogError, match="mounted by itself"):
        check_names(str(path), str(mounts))
    check_names(str(path), str(tmp_path / "none"))


# --- Y02 -------------------------------------------------------------------------------------


def vacuumed(path: Path, copy: Path) -> None:
    with contextlib.closing(sqlite3.connect(str(path))) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))


def backed_up(path: Path, copy: Path) -> None:
    with contextlib.closing(sqlite3.connect(str(path))) as connection:
        with contextlib.closing(sqlite3.connect(str(copy))) as other:
            connection.backup(other)


def out_of_wal(path: Path, copy: Path) -> None:
    shutil.copy(path, copy)
    with contextlib.closing(sqlite3.connect(str(copy))) as connection:
        assert connection.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)


def vacuumed_and_truncating(path: Path, copy: Path) -> None:
    vacuumed(path, copy)
    with contextlib.closing(sqlite3.connect(str(copy))) as connection:
        connection.execute("PRAGMA journal_mode=TRUNCATE")


@pytest.mark.parametrize("copied", [vacuumed, backed_up, out_of_wal, vacuumed_and_truncating])
def test_y02_a_copy_is_a_log_again_in_wal(path: Path, tmp_path: Path, copied: Any) -> None:
    fill(path)
    copy = tmp_path / "copy.db"
    copied(path, copy)
    with SqliteStore(copy) as store, SqliteStore(copy) as reader:
        assert store.bounds() == (1, 5)
        assert store.lost is None
        store.append(event("more", 1))
        store.flush()
        assert reader.bounds() == (1, 6)
        with contextlib.closing(sqlite3.connect(str(copy))) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_y02_a_copy_is_made_while_the_log_is_written(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with SqliteStore(path) as store:
        for n in range(1, 2001):
            store.append(event("run", n))
            if n == 1000:
                store.flush()
                vacuumed(path, copy)
    with SqliteStore(copy) as store:
        assert store.bounds("run").last >= 1000
        offsets = [e.offset for e in store.read(workflow_id="run", limit=5000)]
        assert offsets[:1000] == list(range(1, 1001))


def test_y02_an_older_copy_put_back_tells_what_it_lacks(path: Path, tmp_path: Path) -> None:
    fill(path)
    copy = tmp_path / "copy.db"
    vacuumed(path, copy)
    fill(path, "more", 3)
    for name in tmp_path.glob("runs.db-*"):
        if not name.name.endswith("-mark"):
            name.unlink()
    os.replace(copy, path)
    with SqliteStore(path) as store:
        assert store.lost == (6, 8)
        assert store.bounds("run") == (1, 5)
        store.append(event("new", 1))
        store.flush()
        assert store.read(workflow_id="new")[0].position == 10


def test_y02_a_copy_that_somebody_reads_is_told_of(path: Path, tmp_path: Path) -> None:
    fill(path)
    copy = tmp_path / "copy.db"
    vacuumed(path, copy)
    with contextlib.closing(sqlite3.connect(str(copy), isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM events").fetchone()
        with pytest.raises(LogError, match="locked by another process"):
            SqliteStore(copy, busy_timeout=0.2)


def test_y02_somebody_elses_database_is_left_as_it_is(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(str(path))) as connection:
        connection.execute("CREATE TABLE t (x)")
    before = path.read_bytes()
    with pytest.raises(LogError, match="no log of agentstream"):
        SqliteStore(path)
    assert path.read_bytes() == before


# --- Y12 -------------------------------------------------------------------------------------

AS_ANOTHER = """
import os, sys
from agentstream import *
SqliteStore
from agentstream.testing.stores import event
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    with SqliteStore(sys.argv[1], read_only=sys.argv[2] == "read") as store:
        print([e.offset for e in store.read()], [r.workflow_id for r in store.runs()])
        print(store.bounds(), store.has_ended("run"), store.wait(0, 1), store.read_others(0, 9)[1])
        for write in (
            lambda: store.append(event("new", 1)),
            lambda: store.claim("new"),
            lambda: store.request_stop("run", "why"),
        ):
            try:
                write()
            except LogError as error:
                print(error)
except LogError as error:
    print("told:", error)
"""


def as_another_user(path: Path, how: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", AS_ANOTHER, str(path), how],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def open_to_readers(path: Path) -> None:
    for name in path.parent.iterdir():
        os.chmod(name, 0o444)
    os.chmod(path.parent, 0o555)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that other users may enter; pytest's own are closed to them."""
    folder = Path(tempfile.mkdtemp()).resolve()
    os.chmod(folder, 0o755)
    yield folder
    shutil.rmtree(folder)


@posix
def test_y12_a_log_where_nothing_may_be_written_is_readable(public: Path) -> None:
    path = public / "medium" / "runs.db"
    path.parent.mkdir()
    fill(path)
    open_to_readers(path)
    before = sorted(os.listdir(path.parent))
    lines = as_another_user(path, "read").splitlines()
    assert lines[0] == "[1, 2, 3, 4, 5] ['run']"
    assert lines[1] == "Bounds(first=1, last=5) True True 5"
    assert len(lines) == 5
    assert all("for reading only" in line for line in lines[2:])
    assert sorted(os.listdir(path.parent)) == before
    os.chmod(path.parent, 0o755)


@posix
def test_y12_a_second_user_who_may_not_write_is_told(public: Path) -> None:
    path = public / "shared" / "runs.db"
    path.parent.mkdir()
    fill(path)
    open_to_readers(path)
    said = as_another_user(path, "write")
    assert said.startswith("told:")
    assert "read-only" in said
    assert "read_only=True" in said
    os.chmod(path, 0o600)
    said = as_another_user(path, "read")
    if os.geteuid() == 0:  # else it is the same user
        assert "cannot be read by this user" in said
    os.chmod(path.parent, 0o755)


@posix
def test_y12_a_log_that_is_just_being_written_is_not_taken_for_whole(public: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs a second user")
    path = public / "live" / "runs.db"
    path.parent.mkdir()
    with SqliteStore(path) as store:
        store.append(event("run", 1))
        store.flush()
        os.chmod(public, 0o755)
        os.chmod(path.parent, 0o755)
        os.chmod(path, 0o444)  # but not what stands beside it
        said = as_another_user(path, "read")
        assert "told:" in said
        assert "cannot be read here" in said
        for beside in ("-shm", "-wal"):
            os.chmod(f"{path}{beside}", 0o444)
        assert as_another_user(path, "read").startswith("[1] ['run']")


@posix
def test_y12_the_command_line_lists_the_runs_of_a_read_only_log(public: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs a second user")
    path = public / "medium" / "runs.db"
    path.parent.mkdir()
    fill(path)
    open_to_readers(path)
    fill(public / "other.db")
    script = (  # first as root: the other user may not read the interpreter's modules
        "import os, sys; from agentstream.cli import main; "
        f"main(['runs', '--log', {str(public / 'other.db')!r}]); "
        "os.setgid(65534); os.setuid(65534); "
        f"sys.exit(main(['runs', '--log', {str(path)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    os.chmod(path.parent, 0o755)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run  ") == 2


def test_y12_reading_only_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="No such file"):
        SqliteStore(tmp_path / "none.db", read_only=True)
    assert not list(tmp_path.iterdir())
    (tmp_path / "empty.db").touch()
    with pytest.raises(LogError, match="no log of agentstream"):
        SqliteStore(tmp_path / "empty.db", read_only=True)


def test_y12_a_reader_follows_what_another_writes(path: Path) -> None:
    with SqliteStore(path) as writer, SqliteStore(path, read_only=True) as reader:
        with EventStream(reader) as stream:
            events = stream.subscribe()
            for n in range(1, 4):
                writer.append(event("run", n))
            assert [next(events).offset for _ in range(3)] == [1, 2, 3]
            with pytest.raises(LogError, match="reading only"):
                stream.append("system_warning", "new", {})


@pytest.mark.parametrize("back", [1.0, 3600.0, 10.0**9])
def test_y12_a_run_never_took_negative_time(path: Path, back: float) -> None:
    now = time.time()
    with SqliteStore(path) as store:
        store.append(event("run", 1, EventType.WORKFLOW_STARTED)._replace(timestamp=now))
        end = event("run", 2, EventType.WORKFLOW_COMPLETED)
        store.append(end._replace(timestamp=now - back))
        store.append(event("dead", 1, EventType.WORKFLOW_STARTED)._replace(timestamp=now + back))
        store.flush()
        state = store.run("run")
        assert state is not None
        assert state.started_at == state.ended_at == now
    connection = sqlite3.connect(str(path))
    with connection:
        connection.execute("INSERT INTO owners VALUES (99, 'gone', 1, 'long ago', 'before')")
        connection.execute("UPDATE runs SET status='running', owner=99 WHERE workflow_id='dead'")
    connection.close()
    with SqliteStore(path) as store:
        state = store.run("dead")
        assert state is not None
        assert state.status == "failed"
        assert state.started_at is not None
        assert state.ended_at is not None
        assert state.ended_at >= state.started_at
        assert store.read(workflow_id="dead")[-1].data["duration_ms"] >= 0
