"""docs/faults.rst, B16 and Y03: a log lets go in proportion, by its own time, and never more than asked."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Callable, List, Sequence, Tuple

import pytest

from agentstream import EventStream, EventType, SqliteStore
from agentstream.testing.stores import event
from tests.kit.support import wait_until

HOUR = 3600.0
DAY = 24 * HOUR
YEAR = 365 * DAY


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentstream.events.sqlite.commit_loop._HOUSEKEEPING_S", 0.01)


def write(store: SqliteStore, run: str, ages: Sequence[float]) -> None:
    """Events that are so many seconds old; from a clock that was ahead, less than 0."""
    now = time.time()
    store.claim(run)
    for offset, age in enumerate(ages, 1):
        store.append(event(run, offset)._replace(timestamp=now - age))
    store.flush()


def settle(store: SqliteStore, bounds: Tuple[int, int]) -> None:
    wait_until(lambda: (store.flush(), store.bounds() == bounds)[1])


def stays(store: SqliteStore, bounds: Tuple[int, int], rounds: int = 20) -> None:
    """Nothing is let go, however often the housekeeping is done."""
    for _ in range(rounds):
        assert store._writer.do(lambda c: store._writer.committer._housekeeping(c, 0)) is False
    assert store.bounds() == bounds


# --- B16 -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("max_events", "most"), [(100, 2300), (1000, 3300), (5000, 7700)])
def test_b16_retention_keeps_up_with_what_comes(path: Path, max_events: int, most: int) -> None:
    with EventStream(SqliteStore(path, max_events=max_events)) as stream:
        log = stream.open_log("run")
        held = 0
        for n in range(30_000):
            log.append(EventType.AGENT_LLM_STREAM_CHUNK, {"n": n})
            if n % 1000 == 0:
                first, last = stream.store.bounds()
                held = max(held, last - first + 1)
        assert held <= most
        stream.store.flush()
        first, last = stream.store.bounds()
        assert last == 30_000
        assert last - first + 1 >= max_events


def test_b16_a_reader_of_many_runs_forgets_them(path: Path) -> None:
    with SqliteStore(path) as store:
        for n in range(3000):
            store._writer.do_soon(
                lambda c, n=n: c.execute(
                    "INSERT INTO runs (workflow_id, status, last) VALUES (?, 'closed', 1)",
                    (f"run{n}",),
                )
            )
            store._writer.do_soon(
                lambda c, n=n: c.execute(
                    "INSERT INTO events (run, offset, type, timestamp, data) VALUES "
                    "((SELECT id FROM runs WHERE workflow_id = ?), 1, 'system_warning', 1, '{}')",
                    (f"run{n}",),
                )
            )
        store.flush()
        store._writer.do(lambda c: None)
        names: List[str] = []
        while len(names) < 3000:
            names += [e.workflow_id for e in store.read(after=len(names), limit=400)]
            assert len(store._reader._known) <= 1500
        assert names == [f"run{n}" for n in range(3000)]
        assert len(store.read(limit=10_000)) == 3000
        assert len(store._reader._known) <= 1500


# --- Y03 -------------------------------------------------------------------------------------

AHEAD, OLD, YOUNG = -YEAR, 2 * HOUR, 60.0


@pytest.mark.parametrize("ahead", [-DAY, -YEAR, -10 * YEAR])
@pytest.mark.parametrize(
    ("ages", "kept"),
    [
        ([AHEAD] * 10 + [OLD] * 20 + [YOUNG] * 5, 5),
        ([OLD] * 5 + [AHEAD] * 10 + [OLD] * 5 + [YOUNG], 1),
        ([OLD, AHEAD] * 10 + [YOUNG] * 3, 4),
        ([AHEAD] * 30 + [OLD], 0),
    ],
)
def test_y03_events_of_a_clock_that_was_ahead_do_not_stop_the_trimming(
    path: Path, quick: None, ahead: float, ages: List[float], kept: int
) -> None:
    with SqliteStore(path, max_age=HOUR) as store:
        write(store, "run", [ahead if age == AHEAD else age for age in ages])
        settle(store, (len(ages) - kept + 1, len(ages)))
        stays(store, (len(ages) - kept + 1, len(ages)))


def test_y03_more_events_of_a_clock_ahead_than_are_trimmed_at_once(path: Path, quick: None) -> None:
    with SqliteStore(path, max_age=HOUR) as store:
        write(store, "run", [AHEAD] * 12_000 + [OLD] * 10 + [YOUNG] * 3)
        settle(store, (12_011, 12_013))


@pytest.mark.parametrize(
    "ages",
    [
        [AHEAD] * 10,
        [AHEAD] * 10 + [YOUNG] * 5,
        [YOUNG] * 5 + [AHEAD] * 10 + [YOUNG] * 5,
        [YOUNG] * 5 + [OLD] * 5 + [YOUNG],  # from a clock that was behind
        [YOUNG, 50 * YEAR, YOUNG],
    ],
)
def test_y03_what_is_young_is_kept_whatever_stands_beside_it(
    path: Path, quick: None, ages: List[float]
) -> None:
    with SqliteStore(path, max_age=HOUR) as store:
        write(store, "run", ages)
        stays(store, (1, len(ages)))


@pytest.mark.parametrize("ahead", [2 * HOUR, DAY, 20 * YEAR])
@pytest.mark.parametrize("runs_before", [1, 3])
def test_y03_one_run_with_the_clock_ahead_does_not_delete_the_log(
    path: Path, quick: None, monkeypatch: pytest.MonkeyPatch, ahead: float, runs_before: int
) -> None:
    for n in range(runs_before):
        with SqliteStore(path, max_age=HOUR) as store:
            write(store, f"before{n}", [YOUNG] * 10)
    real: Callable[[], float] = time.time
    with monkeypatch.context() as clock:
        clock.setattr(time, "time", lambda: real() + ahead)
        with SqliteStore(path, max_age=HOUR) as store:
            write(store, "ahead", [0.0] * 10)
            stays(store, (1, 10 * runs_before + 10))
    with SqliteStore(path, max_age=HOUR) as store:
        write(store, "after", [0.0] * 10)
        stays(store, (1, 10 * runs_before + 20))


def test_y03_a_first_run_with_the_clock_ahead_does_no_harm_later(
    path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[[], float] = time.time
    with monkeypatch.context() as clock:
        clock.setattr(time, "time", lambda: real() + YEAR)
        with SqliteStore(path, max_age=HOUR) as store:
            write(store, "ahead", [0.0] * 10)
    with SqliteStore(path, max_age=HOUR) as store:
        write(store, "right", [OLD] * 5 + [0.0] * 5)
        settle(store, (16, 20))


def test_y03_a_clock_that_is_set_right_is_believed_by_and_by(
    path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restart of the machine, which cannot be told from a clock that was set."""
    with SqliteStore(path, max_age=HOUR) as store:
        write(store, "first", [0.0] * 10)
    real: Callable[[], float] = time.time
    monkeypatch.setattr(time, "time", lambda: real() + DAY)
    for n in range(4):
        with SqliteStore(path, max_age=HOUR) as store:
            write(store, f"next{n}", [0.0])
            store._writer.do(lambda c: store._writer.committer._housekeeping(c, 0))  # noqa: B023
            first = store.bounds().first
    assert first == 11


@pytest.mark.parametrize(("count", "max_events"), [(500, 100), (150, 100), (100, 100), (20, 100)])
def test_y03_never_more_than_asked_by_number(
    path: Path, quick: None, count: int, max_events: int
) -> None:
    with SqliteStore(path, max_events=max_events) as store:
        write(store, "run", [AHEAD, OLD] * (count // 2))
        settle(store, (max(1, count - max_events + 1), count))
        stays(store, (max(1, count - max_events + 1), count))
