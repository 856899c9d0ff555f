"""The statements that write to the log's tables, each within a transaction of the writer's."""

from __future__ import annotations

import logging
import sqlite3
from typing import Any, Dict, List, Optional, Tuple

from agentstream.errors import LogError
from agentstream.events import accessors
from agentstream.events.model import RELEASING, TERMINAL, Event, EventType
from agentstream.events.resting import RESTING, status_of_rest
from agentstream.events.shared_writer import WrittenRun
from agentstream.events.sqlite import interrupted, resumable, rows
from agentstream.events.sqlite.entries import INSERT, last_position
from agentstream.events.sqlite.leases import WriterLease
from agentstream.events.sqlite.resumable import ACTIVE
from agentstream.events.store import has_log

__all__ = ["ACTIVE", "Run", "write_events"]

logger = logging.getLogger("agentstream.events.sqlite")

_STATUS = {
    EventType.WORKFLOW_COMPLETED: "completed",
    EventType.WORKFLOW_FAILED: "failed",
    EventType.WORKFLOW_CANCELLED: "cancelled",
}


class Run(WrittenRun):
    """A workflow that this process writes.

    Attributes:
        id: its number; None: not in the log's table yet.
        owner: the number of this process's lease.
        lost: it is refused as it is not this process's any more.
    """

    __slots__ = ("id", "lost", "owner")

    def __init__(self, workflow_id: str, parent: Optional[str]) -> None:
        super().__init__(workflow_id, parent)
        self.id: Optional[int] = None
        self.owner: Optional[int] = None
        self.lost = False


def write_events(connection: sqlite3.Connection, runs: Dict[str, Run], batch: List[Event]) -> int:
    """Insert events; returns the log's last position."""
    position = last_position(connection)
    if not batch:
        return position
    values: List[Tuple[Any, ...]] = []
    reached: Dict[str, int] = {}
    notable: List[Event] = []
    for event in batch:
        workflow_id, offset, kind = event[4], event[1], event[3]
        run = runs.get(workflow_id)
        if run is None or run.refused is not None:
            continue
        if workflow_id not in reached:
            reached[workflow_id] = _last_of(connection, run)
        if run.refused is not None or offset <= reached[workflow_id]:
            continue  # not ours, or committed by a commit that was said to have failed
        position += 1
        reached[workflow_id] = offset
        values.append(
            (position, run.id, offset, rows.value_of(kind), event[6], rows.encode(event[7]))
        )
        if offset == 1 or kind in RELEASING:
            notable.append(event)
    connection.executemany(INSERT, values)
    connection.executemany(
        "UPDATE runs SET last = ? WHERE id = ?",
        [(last, runs[name].id) for name, last in reached.items() if runs[name].refused is None],
    )
    for event in notable:
        _note_state(connection, runs, event)
    return position


def _last_of(connection: sqlite3.Connection, run: Run) -> int:
    """How far a run's log has come, if it is still ours."""
    try:
        return check_claimed(connection, run)
    except LogError as error:
        run.refused, run.lost = str(error), True
        logger.error("events of %r are not written: %s", run.workflow_id, error)
        return 0


def check_claimed(connection: sqlite3.Connection, run: Run) -> int:
    """How far the log of a run has come.

    Raises:
        LogError: it is not, or no longer, this process's.
    """
    if run.id is None:
        claim(connection, run)
    found = _state_of(connection, run)
    if found is None and not run.committed:  # the commit that made it was rolled back
        claim(connection, run)
        found = _state_of(connection, run)
    if found is None or found[1] != run.owner or found[2] not in ACTIVE:
        raise _lost(run, found)
    if len(found) > 3 and found[3] not in (None, run.fence):
        raise _lost(run, found)
    return int(found[0])


def _state_of(connection: sqlite3.Connection, run: Run) -> Any:
    if run.fence is None:
        sql = "SELECT last, owner, status FROM runs WHERE id = ?"
    else:
        sql = (
            "SELECT r.last, r.owner, r.status, c.fence FROM runs r "
            "LEFT JOIN resumable c ON c.run = r.id WHERE r.id = ?"
        )
    return connection.execute(sql, (run.id,)).fetchone()


def _lost(run: Run, found: Any) -> LogError:
    name = repr(run.workflow_id)
    if run.fence is None or found is None:
        return LogError(f"the log of {name} was closed by another process")
    if found[2] in RESTING:
        return LogError(f"the run {name} has been left, and is {found[2]}")
    if found[2] not in ACTIVE:
        return LogError(f"the run {name} has been ended: {found[2]}")
    return LogError(f"another process has taken the run {name} over")


def _note_state(connection: sqlite3.Connection, runs: Dict[str, Run], event: Event) -> None:
    run = runs[event.workflow_id]
    assert run.id is not None
    if event.offset == 1:
        if run.input is not None:
            connection.execute("INSERT OR REPLACE INTO inputs VALUES (?, ?)", (run.id, run.input))
        connection.execute(
            "UPDATE runs SET status = 'running', started = ?, name = ? WHERE id = ?",
            (
                None if event.type in TERMINAL else event.timestamp,  # None: it never began
                accessors.text(event.data, "workflow"),
                run.id,
            ),
        )
    if event.type in TERMINAL:
        usage = accessors.usage_of(event.data)
        connection.execute(
            "UPDATE runs SET status = ?, ended = ?, usage = ? WHERE id = ?",
            (
                _STATUS[event.type],
                event.timestamp,
                None if usage is None else rows.encode(usage),
                run.id,
            ),
        )
        connection.execute("DELETE FROM stops WHERE workflow_id = ?", (event.workflow_id,))
        if run.fence is not None:
            alive = {one.id for one in runs.values() if one.last > one.since and not one.released}
            resumable.end(connection, run.id, alive)
    elif event.type in RELEASING:
        usage = accessors.usage_of(event.data)
        connection.execute(
            "UPDATE runs SET usage = ? WHERE id = ?",
            (None if usage is None else rows.encode(usage), run.id),
        )
        status = status_of_rest(event.data)
        resumable.rest(connection, run.id, status, inner=run.fence is not None)
        interrupted.stop_if_asked(connection, event.workflow_id)


# --- who writes what -----------------------------------------------------------------------


def enter(connection: sqlite3.Connection, lease: WriterLease) -> int:
    """Enter a writer's lease, if it is not in the log; returns its number there."""
    found = connection.execute("SELECT id FROM owners WHERE token = ?", (lease.token,)).fetchone()
    if found is not None:
        return int(found[0])
    added = connection.execute(
        "INSERT INTO owners (token, pid, started, boot) VALUES (?, ?, ?, ?)",
        (lease.token, lease.pid, lease.started, lease.boot),
    )
    assert added.lastrowid is not None
    return added.lastrowid


def claim(connection: sqlite3.Connection, run: Run) -> None:
    """Make `run.owner` the one writer of a workflow.

    Raises:
        LogError: it has a log already, or another owner.
    """
    found = connection.execute(
        "SELECT r.id, r.owner, r.last, r.status, o.pid FROM runs r "
        "LEFT JOIN owners o ON o.id = r.owner WHERE workflow_id = ?",
        (run.workflow_id,),
    ).fetchone()
    if found is None:
        added = connection.execute(
            "INSERT INTO runs (workflow_id, parent, status, owner) VALUES (?, ?, 'queued', ?)",
            (run.workflow_id, run.parent, run.owner),
        )
        run.id = added.lastrowid
        return
    number, owner, last, status, pid = found
    if status in ACTIVE and owner is not None and owner != run.owner:
        raise LogError(f"workflow {run.workflow_id!r} is written by another owner, process {pid}")
    if last or status not in ACTIVE or owner is None:
        raise has_log(run.workflow_id)
    run.id = number


def leave(connection: sqlite3.Connection, owner: int) -> None:
    """Take a writer's lease out of the log.

    Runs that it did not end become "interrupted" if they can be resumed, else "closed".
    """
    resumable.leave(connection, owner)
    for kept in resumable.owned_by(connection, owner):
        resumable.end(connection, kept.id)
    connection.execute(
        "UPDATE runs SET status = 'closed' WHERE owner = ? AND status IN ('queued', 'running')",
        (owner,),
    )
    connection.execute("DELETE FROM owners WHERE id = ?", (owner,))


# --- stopping ------------------------------------------------------------------------------


def ask_to_stop(connection: sqlite3.Connection, workflow_id: str, reason: str) -> bool:
    """Leave a request to the writer of an active run; False if there is no such run."""
    added = connection.execute(
        "INSERT OR REPLACE INTO stops SELECT workflow_id, ? FROM runs "
        "WHERE workflow_id = ? AND status IN ('queued', 'running') AND owner IS NOT NULL",
        (reason, workflow_id),
    )
    return added.rowcount > 0
