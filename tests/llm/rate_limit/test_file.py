"""A rate limit in a file: processes that share it, and all that can be wrong with the file."""

from __future__ import annotations

import logging
import os
import pathlib
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from typing import Any, Callable, List

import pytest

from agentstream import Cancelled, CancelToken, RateLimit
from stress.rate_limit import play
from tests.kit.log_support import Locked
from tests.kit.programs import Program
from tests.kit.support import wait_until

WARNING = "each process keeps to the limit by itself"


def told(caplog: Any) -> List[str]:
    """The warnings."""
    return [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]


def test_threads_of_several_processes_hold_a_limit_and_none_starves(tmp_path: Any) -> None:
    for attempt in range(3):  # a busy machine may come late
        tally = play(50, 1.0, 2.0, 16, 4, str(tmp_path / f"limit-{attempt}.db"))
        assert tally.left == 0
        if 97 <= len(tally.times) <= 103 and tally.most <= 53 and min(tally.by_thread) >= 3:
            return
    raise AssertionError(f"{len(tally.times)} of 100, {tally.most} of 50, {tally.by_thread}")


def test_the_file_is_its_owners(tmp_path: Any) -> None:
    path = tmp_path / "limit.db"
    with RateLimit(5, path=path) as limit:
        limit.take()
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert [name.name for name in tmp_path.iterdir()] == ["limit.db"]


def test_limits_on_one_file_share_it(tmp_path: Any) -> None:
    path = str(tmp_path / "limit.db")
    with RateLimit(3, path=path) as one, RateLimit(3, path=path) as other:
        one.take()
        one.take()
        other.take()
        for limit in (one, other):
            stop = CancelToken()
            timer = threading.Timer(0.05, stop.cancel)
            timer.start()
            with pytest.raises(Cancelled):
                limit.take(cancel=stop)
            timer.join()


def test_a_process_that_is_killed_in_its_wait_blocks_nobody(tmp_path: Any) -> None:
    path = str(tmp_path / "limit.db")
    source = """
        limit = RateLimit(2, per=1.0, path=arguments[0], burst=1)
        limit.take()
        threading.Timer(0.1, say, ("waits",)).start()
        while True:
            limit.take()
    """
    with Program(source, path) as program:
        program.expect("waits")
        program.process.kill()
        began = time.monotonic()
        with RateLimit(2, per=1.0, path=path, burst=1) as limit:
            limit.take()
            assert time.monotonic() - began < 1.5


def test_a_cancel_in_a_shared_wait_holds_up_nobody_else(tmp_path: Any) -> None:
    path = str(tmp_path / "limit.db")
    with RateLimit(1, per=0.6, path=path) as one, RateLimit(1, per=0.6, path=path) as other:
        one.take()
        stop = CancelToken()
        thread = threading.Thread(target=lambda: pytest.raises(Cancelled, one.take, 0, stop))
        thread.start()
        wait_until(lambda: one.waiting == 1)
        stop.cancel()
        thread.join(10)
        began = time.monotonic()
        other.take()
        assert time.monotonic() - began < 0.75


def take_two(limit: RateLimit) -> float:
    """Seconds that two shares of a limit of one in 0.4 s took."""
    began = time.monotonic()
    limit.take()
    limit.take()
    return time.monotonic() - began


def absent(path: pathlib.Path) -> pathlib.Path:
    return path / "no" / "limit.db"


def folder(path: pathlib.Path) -> pathlib.Path:
    return path


def text(path: pathlib.Path) -> pathlib.Path:
    (path / "notes.txt").write_text("not a database\n" * 100)
    return path / "notes.txt"


def damaged(path: pathlib.Path) -> pathlib.Path:
    file = path / "limit.db"
    with RateLimit(5, path=file) as limit:
        limit.take()
    data = bytearray(file.read_bytes())
    data[100:] = b"\xff" * (len(data) - 100)
    file.write_bytes(data)
    return file


def of_something_else(path: pathlib.Path) -> pathlib.Path:
    with sqlite3.connect(str(path / "other.db")) as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    return path / "other.db"


@pytest.mark.parametrize("make", [absent, folder, text, damaged, of_something_else])
def test_a_file_that_cannot_be_used_is_told_once_left_alone_and_holds_up_nobody(
    make: Callable[[pathlib.Path], pathlib.Path], tmp_path: Any, caplog: Any
) -> None:
    path = make(tmp_path)
    before = path.read_bytes() if path.is_file() else None
    with RateLimit(1, per=0.4, path=path) as limit:
        assert 0.38 < take_two(limit) < 2  # the process keeps to it by itself
        limit.take()
    assert len(told(caplog)) == 1
    assert WARNING in caplog.text and str(path) in caplog.text
    assert before is None or path.read_bytes() == before


def test_what_is_no_state_within_the_file_is_begun_anew(tmp_path: Any, caplog: Any) -> None:
    path = tmp_path / "limit.db"
    with RateLimit(1, per=60.0, path=path) as limit:
        limit.take()
        with sqlite3.connect(str(path)) as connection:
            connection.execute("UPDATE state SET state = 'x'")
        connection.close()
        limit.take()
    assert told(caplog) == []


def test_a_file_that_is_deleted_is_made_again(tmp_path: Any, caplog: Any) -> None:
    path = tmp_path / "limit.db"
    with RateLimit(1, per=0.4, path=path) as limit:
        limit.take()
        path.unlink()
        limit.take()
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        with RateLimit(1, per=0.4, path=path) as other:
            began = time.monotonic()
            other.take()
            assert time.monotonic() - began > 0.2  # they share the new one
    assert told(caplog) == []


def test_a_file_that_stays_locked_holds_up_nobody_for_long(tmp_path: Any, caplog: Any) -> None:
    path = tmp_path / "limit.db"
    with RateLimit(100, path=path) as limit:
        limit.take()
        with Locked(path):
            stop = CancelToken()
            began = time.monotonic()
            threading.Timer(0.1, stop.cancel).start()
            with pytest.raises(Cancelled):
                limit.take(cancel=stop)
            assert time.monotonic() - began < 0.3
            limit.take()
            assert time.monotonic() - began < 3
    assert len(told(caplog)) == 1
    assert "is locked by another process" in caplog.text


def test_a_disk_that_is_full_holds_up_nobody_and_is_used_again_later(
    tmp_path: Any, caplog: Any, monkeypatch: Any
) -> None:
    code = """
import logging, resource, signal, sys, time
from agentstream import RateLimit
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s", level=logging.INFO)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = RateLimit(1000, path=sys.argv[1])
limit.take()
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
limit.take()
limit.take()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
limit._unusable_until = 1.0
limit.take()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "limit.db")],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    lines: List[str] = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["WARNING", "INFO"], lines
    assert WARNING in lines[0] and lines[1].endswith("can be used again")


def test_a_clock_that_is_set_changes_nothing(tmp_path: Any, monkeypatch: Any) -> None:
    with RateLimit(1, per=0.4, path=tmp_path / "limit.db") as limit:
        limit.take()
        monkeypatch.setattr(time, "time", lambda: 0.0)
        began = time.monotonic()
        limit.take()
        assert 0.3 < time.monotonic() - began < 2


def test_a_machine_that_was_started_anew_waits_for_nothing(tmp_path: Any) -> None:
    path = tmp_path / "limit.db"
    with RateLimit(1, per=60.0, path=path) as limit:
        limit.take()
        with sqlite3.connect(str(path)) as connection:
            (state,) = connection.execute("SELECT state FROM state").fetchone()
            last = state.partition('"last":')[2].partition(",")[0]
            later = state.replace(last, str(float(last) + 1e6))
            connection.execute("UPDATE state SET state = ?", (later,))
        connection.close()
        logging.getLogger("agentstream").debug("the clock went back")
        limit.take()
