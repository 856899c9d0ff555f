"""The table of runs that are queued for whoever takes them: when each is due.

`jobs` has a row for each such run until its end; `due` is NULL while somebody has it.  It is a
time since the machine was started, which nobody sets; one from before a restart that is
further ahead than any can be is over.  All of it is done within a transaction.
"""

from __future__ import annotations

import sqlite3
from typing import Any, List, Sequence

from agentstream.events.checkpoints import QueuedRun, doubled
from agentstream.events.store import has_log
from agentstream.threads import uptime

__all__ = ["add", "bring_forward", "call", "forget", "take_due", "taken"]

#: So many times nobody is told of a run; and seconds that may be between two processes' pauses.
_EVER, _SLACK_S = 1000, 60.0


def add(connection: sqlite3.Connection, queued: QueuedRun) -> int:
    """Enter a run that nobody has; returns its number.

    Raises:
        LogError: there is such a run.
    """
    workflow_id, name, due = queued.workflow_id, queued.name, queued.due
    known = connection.execute("SELECT 1 FROM runs WHERE workflow_id = ?", (workflow_id,))
    if known.fetchone() is not None:
        raise has_log(workflow_id)
    added = connection.execute(
        "INSERT INTO runs (workflow_id, name, status) VALUES (?, ?, 'queued')", (workflow_id, name)
    )
    run = added.lastrowid
    assert run is not None
    connection.execute(
        "INSERT INTO resumable (run, fence, recover, keep) VALUES (?, 0, ?, ?)",
        (run, queued.recover, queued.keep),
    )
    # Who has it due later only tells somebody of it now.
    connection.execute(
        "INSERT INTO jobs VALUES (?, ?, ?, ?)", (run, name, uptime() + due, int(due > 0))
    )
    return run


def call(connection: sqlite3.Connection, run: int) -> None:
    """Nobody has a run, which is due now."""
    connection.execute("UPDATE jobs SET due = ?, calls = 0 WHERE run = ?", (uptime(), run))


def taken(connection: sqlite3.Connection, run: int) -> None:
    """Somebody has a run."""
    connection.execute("UPDATE jobs SET due = NULL WHERE run = ?", (run,))


def forget(connection: sqlite3.Connection, run: int) -> None:
    """A run has ended."""
    connection.execute("DELETE FROM jobs WHERE run = ?", (run,))


def bring_forward(connection: sqlite3.Connection, workflow_id: str, due: float) -> bool:
    """Have a run that nobody has due in so many seconds, unless it is earlier; False for none."""
    changed = connection.execute(
        "UPDATE jobs SET due = min(due, ?) WHERE due IS NOT NULL "
        "AND run = (SELECT id FROM runs WHERE workflow_id = ?)",
        (uptime() + due, workflow_id),
    )
    return changed.rowcount > 0


def is_any_due(connection: sqlite3.Connection, names: Sequence[str], pause: float) -> bool:
    """True if `take_due` would find any."""
    return bool(_due(connection, names, pause, 1))


def take_due(
    connection: sqlite3.Connection, names: Sequence[str], pause: float, limit: int
) -> List[str]:
    """The ids of runs that are due, which are due again after a while."""
    found = _due(connection, names, pause, limit)
    now = uptime()
    connection.executemany(
        "UPDATE jobs SET calls = calls + 1, due = ? WHERE run = ?",
        [(now + doubled(pause, calls + 1), run) for run, _, calls in found],
    )
    return [workflow_id for _, workflow_id, _ in found]


def _due(
    connection: sqlite3.Connection, names: Sequence[str], pause: float, limit: int
) -> List[Any]:
    now = uptime()
    marks = ", ".join("?" * len(names))
    return connection.execute(
        "SELECT run, workflow_id, calls FROM jobs JOIN runs ON id = run "
        f"WHERE (due <= ? OR due > ?) AND jobs.name IN ({marks}) ORDER BY due, run LIMIT ?",
        (now, now + _SLACK_S + doubled(pause, _EVER), *names, limit),
    ).fetchall()
