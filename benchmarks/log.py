"""What the log costs: appends through a stream in both durabilities, and replay.

    python benchmarks/log.py [events]

Each figure stands beside a bare sqlite3 loop over the same rows in the same run
(same folder, same disk, same minute).  Prints a table.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import tempfile
import threading
import time
from typing import Any, Callable, Dict, List, Tuple

from agentstream import EventStream, EventType, SqliteStore

CHUNK = EventType.AGENT_LLM_STREAM_CHUNK
DATA = {"agent": "greeter", "step": "0", "chunk": "x" * 220}  # some 300 bytes an event


def normal(path: str, count: int) -> Tuple[float, float]:
    """Appends/s as the caller sees it, and as the disk does."""
    with EventStream(SqliteStore(path)) as stream:
        log = stream.open_log("run")
        began = time.perf_counter()
        for _ in range(count):
            log.append(CHUNK, DATA)
        appended = time.perf_counter() - began
        stream.store.flush()
        return count / appended, count / (time.perf_counter() - began)


def full(path: str, count: int, producers: int) -> Tuple[float, float, float]:
    """Appends/s, median and 99th percentile in ms, with so many threads."""
    times: List[float] = []
    with EventStream(SqliteStore(path, durability="full")) as stream:

        def produce(name: str) -> None:
            log = stream.open_log(name)
            mine = []
            for _ in range(count // producers):
                began = time.perf_counter()
                log.append(CHUNK, DATA)
                mine.append(time.perf_counter() - began)
            times.extend(mine)

        threads = [threading.Thread(target=produce, args=(f"run{n}",)) for n in range(producers)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - began
    times.sort()
    return len(times) / took, times[len(times) // 2] * 1e3, times[len(times) * 99 // 100] * 1e3


def replay(path: str) -> float:
    """Events/s read back, as Events."""
    with SqliteStore(path) as store:
        count = after = 0
        began = time.perf_counter()
        while True:
            events = store.read(after=after, limit=500)
            if not events:
                return count / (time.perf_counter() - began)
            count += len(events)
            after = events[-1].position or 0


def bare(path: str, count: int, a_commit: int, synchronous: str) -> float:
    """Rows/s of a plain loop over sqlite3, so many rows a transaction."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute(
        "CREATE TABLE events (position INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER, "
        "offset INTEGER, type TEXT, timestamp REAL, data TEXT)"
    )
    connection.execute("CREATE UNIQUE INDEX i ON events (run, offset)")
    text = json.dumps(DATA)
    began = time.perf_counter()
    for first in range(0, count, a_commit):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT INTO events (run, offset, type, timestamp, data) VALUES (?, ?, ?, ?, ?)",
            [(1, n, "agent_llm_stream_chunk", 0.0, text) for n in range(first, first + a_commit)],
        )
        connection.execute("COMMIT")
    took = time.perf_counter() - began
    connection.close()
    return count / took


def bare_replay(path: str) -> Tuple[float, float]:
    """Rows/s read by a plain loop, and with json.loads."""
    connection = sqlite3.connect(path)
    rates = []
    for parse in (lambda text: text, json.loads):
        count = after = 0
        began = time.perf_counter()
        while True:
            rows: List[Any] = connection.execute(
                "SELECT * FROM events WHERE position > ? ORDER BY position LIMIT 500", (after,)
            ).fetchall()
            if not rows:
                break
            for row in rows:
                parse(row[-1])
            count += len(rows)
            after = rows[-1][0]
        rates.append(count / (time.perf_counter() - began))
    connection.close()
    return rates[0], rates[1]


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:

        def path(name: str) -> str:
            return os.path.join(folder, f"{name}.db")

        few = max(count // 10, 800)
        seen, written = normal(path("normal"), count)
        one = full(path("full1"), few // 4, 1)
        eight = full(path("full8"), few * 2, 8)
        rows: Dict[str, Callable[[], str]] = {
            "NORMAL, appends as the caller sees them": lambda: f"{seen:10,.0f}/s",
            "NORMAL, until all are committed": lambda: f"{written:10,.0f}/s",
            "  bare sqlite3, hundreds a commit": lambda: (
                f"{bare(path('b1'), count, 100, 'NORMAL'):10,.0f}/s"
            ),
            "  bare sqlite3, one a commit": lambda: (
                f"{bare(path('b2'), count // 4, 1, 'NORMAL'):10,.0f}/s"
            ),
            "FULL, 1 producer": lambda: f"{one[0]:10,.0f}/s  p50 {one[1]:.2f} ms p99 {one[2]:.2f}",
            "FULL, 8 producers": lambda: (
                f"{eight[0]:10,.0f}/s  p50 {eight[1]:.2f} ms p99 {eight[2]:.2f}"
            ),
            "  bare sqlite3, one a commit, FULL": lambda: (
                f"{bare(path('b3'), few, 1, 'FULL'):10,.0f}/s"
            ),
            "  bare sqlite3, hundreds a commit, FULL": lambda: (
                f"{bare(path('b4'), count, 100, 'FULL'):10,.0f}/s"
            ),
            "replay, as Events": lambda: f"{replay(path('normal')):10,.0f}/s",
        }
        for name, figure in rows.items():
            print(f"{name:42}{figure()}")
        plain, parsed = bare_replay(path("b1"))
        print(f"{'  bare sqlite3 rows':42}{plain:10,.0f}/s, with json.loads {parsed:,.0f}/s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40_000)
