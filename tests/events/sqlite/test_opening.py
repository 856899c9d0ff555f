"""Opening: files that are gone, that are no database, somebody else's, read-only, damaged (D08)."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from agentstream import EventStream, LogError, SqliteStore
from agentstream.testing.stores import event
from tests.kit.log_support import CHUNK, run
from tests.kit.support import wait_until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.mark.parametrize("how", ["moved", "deleted", "replaced"])
def test_d08_the_file_is_not_there_any_more(path: Path, how: str) -> None:
    store = SqliteStore(path)
    stream = EventStream(store)
    log = stream.open_log("run")
    log.append(CHUNK, {"n": 1})
    store.flush()
    aside = path.parent / "aside"
    aside.mkdir()
    os.rename(path, aside / "runs.db")
    if how == "deleted":
        (aside / "runs.db").unlink()
    elif how == "replaced":
        path.touch()
    log.append(CHUNK, {"n": 2})
    with pytest.raises(LogError, match="moved, deleted or replaced"):
        store.flush()
    with pytest.raises(LogError, match="moved, deleted or replaced"):
        log.append(CHUNK, {"n": 3})
    with pytest.raises(LogError, match="moved, deleted or replaced"):
        store.bounds()
    if how == "moved":
        os.rename(aside / "runs.db", path)
        wait_until(lambda: store._writer.failure is None)
        log.append(CHUNK, {"n": 4})
        assert [e.data["n"] for e in store.read()] == [1, 2, 4]
    stream.close()
    if how == "replaced":
        assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"this is no database, whatever else it is" * 100, "not an SQLite database"), (None, "file")],
)
def test_d08_not_a_database(path: Path, content: Any, said: str) -> None:
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(LogError, match=said) as caught:
        SqliteStore(path)
    assert str(path) in str(caught.value)
    assert content is None or path.read_bytes() == content


def test_d08_somebody_elses_database(path: Path) -> None:
    connection = sqlite3.connect(str(path))
    connection.execute("CREATE TABLE t (x)")
    connection.commit()
    connection.close()
    with pytest.raises(LogError, match="no log of agentstream"):
        SqliteStore(path)


def test_d08_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="No such file or directory"):
        SqliteStore(tmp_path / "none" / "runs.db")


READ_ONLY = """
import os, sys
from agentstream import *
SqliteStore
if os.geteuid() == 0:
    os.setuid(65534)
try:
    SqliteStore(sys.argv[1])
except LogError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="modes")
def test_d08_read_only(path: Path) -> None:
    SqliteStore(path).close()
    for folder in (path.parent, path.parent.parent):
        os.chmod(folder, 0o755)
    os.chmod(path, 0o444)
    said = run(READ_ONLY, path)
    assert "read-only" in said or "Permission denied" in said, said


def test_d08_a_damaged_row_is_told(path: Path) -> None:
    with SqliteStore(path) as store:
        store.claim("run")
        store.append(event("run", 1))
        store.flush()
        connection = sqlite3.connect(str(path))
        with connection:
            connection.execute("UPDATE events SET data = '{\"chunk'")
        connection.close()
        with pytest.raises(LogError, match="position 1 of the log is damaged"):
            store.read()


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_s10_a_folder_is_warned_of_once_and_only_if_others_may_write_to_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for mode, count in ((0o755, 0), (0o775, 0), (0o1777, 1), (0o777, 1)):
        folder = tmp_path / f"{mode:o}"
        folder.mkdir()
        folder.chmod(mode)
        caplog.clear()
        for name in ("a.db", "b.db", "a.db"):
            SqliteStore(folder / name).close()
        assert [r.message for r in caplog.records] == [
            f"the log's folder {folder} can be written to by everybody"
        ] * count
