"""What is written to the log's tables, each change within a transaction of the writer's."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from typing import Any, Dict, List, Optional, Tuple

from agentstream.errors import LogError
from agentstream.events import payloads
from agentstream.events.model import TERMINAL, Event, EventType
from agentstream.events.sqlite import rows
from agentstream.events.sqlite.leases import WriterLease, is_alive

__all__ = ["ACTIVE", "Run", "write_events"]

logger = logging.getLogger("agentstream.events.sqlite")

ACTIVE = ("queued", "running")
_STATUS = {
    EventType.WORKFLOW_COMPLETED: "completed",
    EventType.WORKFLOW_FAILED: "failed",
    EventType.WORKFLOW_CANCELLED: "cancelled",
}
#: Logs that end with one of these are whole, though no workflow's end is in them.
_WHOLE = {
    EventType.AGENT_COMPLETED.value,
    EventType.AGENT_FAILED.value,
    EventType.SYSTEM_WARNING.value,
    EventType.SYSTEM_ERROR.value,
}
_INSERT = (
    "INSERT INTO events (position, run, offset, type, timestamp, data) VALUES (?, ?, ?, ?, ?, ?)"
)


_MOST_TRIMMED = 5000  # events a transaction


class Run:
    """A workflow that this process writes."""

    __slots__ = ("committed", "ended", "id", "last", "owner", "parent", "refused", "workflow_id")

    def __init__(self, workflow_id: str, parent: Optional[str]) -> None:
        self.workflow_id = workflow_id
        self.parent = parent
        self.id: Optional[int] = None  # None: not in the log's table yet
        self.owner: Optional[int] = None
        self.last = 0  # the offset appended last
        self.committed = 0
        self.ended = False
        self.refused: Optional[str] = None  # why nothing more is written


def last_position(connection: sqlite3.Connection) -> int:
    """The position given last."""
    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return int(found[0])


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
        if offset == 1 or kind in TERMINAL:
            notable.append(event)
    connection.executemany(_INSERT, values)
    connection.executemany(
        "UPDATE runs SET last = ? WHERE id = ?",
        [(last, runs[name].id) for name, last in reached.items()],
    )
    for event in notable:
        _note_state(connection, runs[event[4]].id, event)
    return position


def _last_of(connection: sqlite3.Connection, run: Run) -> int:
    """How far a run's log has come, if it is still ours."""
    try:
        return _claimed(connection, run)
    except LogError as error:
        run.refused = str(error)
        logger.error("events of %r are not written: %s", run.workflow_id, error)
        return 0


def _claimed(connection: sqlite3.Connection, run: Run) -> int:
    if run.id is None:
        claim(connection, run)
    found = _state_of(connection, run)
    if found is None and not run.committed:  # the commit that made it was rolled back
        claim(connection, run)
        found = _state_of(connection, run)
    if found is None or found[1] != run.owner or found[2] not in ACTIVE:
        raise LogError(f"the log of {run.workflow_id!r} was closed by another process")
    return int(found[0])


def _state_of(connection: sqlite3.Connection, run: Run) -> Any:
    return connection.execute(
        "SELECT last, owner, status FROM runs WHERE id = ?", (run.id,)
    ).fetchone()


def _note_state(connection: sqlite3.Connection, run: Optional[int], event: Event) -> None:
    if event.offset == 1:
        connection.execute(
            "UPDATE runs SET status = 'running', started = ?, name = ? WHERE id = ?",
            (event.timestamp, payloads.text(event.data, "workflow"), run),
        )
    if event.type in TERMINAL:
        usage = payloads.usage_of(event.data)
        connection.execute(
            "UPDATE runs SET status = ?, ended = ?, usage = ? WHERE id = ?",
            (
                _STATUS[event.type],
                event.timestamp,
                None if usage is None else rows.encode(usage),
                run,
            ),
        )
        connection.execute("DELETE FROM stops WHERE workflow_id = ?", (event.workflow_id,))


# --- who writes what -----------------------------------------------------------------------


def add_owner(connection: sqlite3.Connection, owner: WriterLease) -> int:
    """Enter an owner; returns its id."""
    added = connection.execute(
        "INSERT INTO owners (token, pid, started, boot) VALUES (?, ?, ?, ?)",
        (owner.token, owner.pid, owner.started, owner.boot),
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
    if status in ACTIVE and owner != run.owner:
        raise LogError(f"workflow {run.workflow_id!r} is written by another owner, process {pid}")
    if last or status not in ACTIVE:
        raise LogError(f"workflow {run.workflow_id!r} has a log already: choose another id")
    run.id = number


def leave(connection: sqlite3.Connection, owner: int) -> None:
    """The owner writes no more; logs that it did not end are closed as they are."""
    connection.execute(
        "UPDATE runs SET status = 'closed' WHERE owner = ? AND status IN ('queued', 'running')",
        (owner,),
    )
    connection.execute("DELETE FROM owners WHERE id = ?", (owner,))


def find_dead(connection: sqlite3.Connection, path: str, me: Optional[int]) -> List[int]:
    """The owners of active runs whose processes have died."""
    owners = connection.execute(
        "SELECT id, token, pid, started, boot FROM owners WHERE id IS NOT ? AND id IN "
        "(SELECT owner FROM runs WHERE status IN ('queued', 'running'))",
        (me,),
    ).fetchall()
    return [row[0] for row in owners if not is_alive(path, *row[1:])]


def close_interrupted(connection: sqlite3.Connection, owners: List[int]) -> int:
    """End the runs of dead owners, as failed; returns how many there were."""
    count = 0
    for owner in owners:
        pid = connection.execute("SELECT pid FROM owners WHERE id = ?", (owner,)).fetchone()
        for run in connection.execute(
            "SELECT id, workflow_id, name, last, started FROM runs "
            "WHERE owner = ? AND status IN ('queued', 'running')",
            (owner,),
        ).fetchall():
            _interrupt(connection, run, pid[0] if pid else 0)
            count += 1
        connection.execute("DELETE FROM owners WHERE id = ?", (owner,))
    return count


def _interrupt(connection: sqlite3.Connection, run: Tuple[Any, ...], pid: int) -> None:
    number, workflow_id, name, last, started = run
    newest = connection.execute(
        "SELECT type FROM events WHERE run = ? AND offset = ?", (number, last)
    ).fetchone()
    if newest is not None and newest[0] in _WHOLE:
        connection.execute("UPDATE runs SET status = 'closed' WHERE id = ?", (number,))
        return
    begun, output = _said(connection, number)
    now = time.time()
    data = payloads.workflow_failed(
        payloads.run_end(name, output, None, (now - started) * 1000 if started else 0.0),
        payloads.interruption(pid),
        failed_step=begun.get("name"),
        failed_at=begun.get("step"),
    )
    _add_event(connection, number, last + 1, EventType.WORKFLOW_FAILED, data)
    connection.execute("UPDATE runs SET status = 'failed', ended = ? WHERE id = ?", (now, number))
    connection.execute("DELETE FROM stops WHERE workflow_id = ?", (workflow_id,))


def _said(connection: sqlite3.Connection, run: int) -> Tuple[Dict[str, Any], str]:
    """How a run's last step began, and what that had said."""
    begun = connection.execute(
        "SELECT offset, data FROM events WHERE run = ? AND type = ? ORDER BY offset DESC LIMIT 1",
        (run, EventType.WORKFLOW_STEP_STARTED.value),
    ).fetchone()
    chunks = connection.execute(
        "SELECT data FROM events WHERE run = ? AND offset > ? AND type = ? ORDER BY offset",
        (run, begun[0] if begun else 0, EventType.AGENT_LLM_STREAM_CHUNK.value),
    )
    output = "".join(payloads.text(json.loads(row[0]), "chunk") for row in chunks)
    return (json.loads(begun[1]) if begun else {}), output


def _add_event(
    connection: sqlite3.Connection, run: int, offset: int, kind: EventType, data: Any
) -> None:
    """Append an event in the name of nobody's process."""
    now = time.time()
    connection.execute(
        _INSERT,
        (last_position(connection) + 1, run, offset, rows.value_of(kind), now, rows.encode(data)),
    )
    # Nobody's: whoever follows the log must not take it for an event of its own.
    connection.execute("UPDATE runs SET last = ?, owner = NULL WHERE id = ?", (offset, run))


def warn(connection: sqlite3.Connection, log: str, message: str) -> None:
    """Append a system_warning to the log's own workflow."""
    found = connection.execute("SELECT id, last FROM runs WHERE workflow_id = ?", (log,)).fetchone()
    if found is None:
        added = connection.execute(
            "INSERT INTO runs (workflow_id, status) VALUES (?, 'closed')", (log,)
        )
        found = added.lastrowid, 0
    _add_event(
        connection,
        found[0],
        found[1] + 1,
        EventType.SYSTEM_WARNING,
        payloads.system_warning(message),
    )


# --- stopping, and letting go --------------------------------------------------------------


def ask_to_stop(connection: sqlite3.Connection, workflow_id: str, reason: str) -> bool:
    """Leave a request for the owner of an active run; False if there is no such run."""
    added = connection.execute(
        "INSERT OR REPLACE INTO stops SELECT workflow_id, ? FROM runs "
        "WHERE workflow_id = ? AND status IN ('queued', 'running')",
        (reason, workflow_id),
    )
    return added.rowcount > 0


def trim(
    connection: sqlite3.Connection, max_events: Optional[int], max_age: Optional[float]
) -> bool:
    """Let the oldest events go, some of them; True if there are more to go."""
    first = connection.execute("SELECT min(position) FROM events").fetchone()[0]
    if first is None:
        return False
    end = last_position(connection) + 1
    most = min(first + _MOST_TRIMMED, end)
    keep = first
    if max_events is not None:
        keep = max(keep, end - max_events)
    if max_age is not None:
        young = connection.execute(
            "SELECT position FROM events WHERE position < ? AND timestamp >= ? "
            "ORDER BY position LIMIT 1",
            (most, time.time() - max_age),
        ).fetchone()
        keep = max(keep, young[0] if young else most)
    keep = min(keep, most)
    if keep > first:
        connection.execute("DELETE FROM events WHERE position < ?", (keep,))
        _forget_runs(connection)
    return bool(keep == most < end)


def _forget_runs(connection: sqlite3.Connection) -> None:
    """Of runs without an event left, the newest 10,000 are remembered."""
    connection.execute(
        "DELETE FROM runs WHERE status NOT IN ('queued', 'running') AND id <= "
        "(SELECT max(id) FROM runs) - 10000 AND NOT EXISTS "
        "(SELECT 1 FROM events WHERE run = runs.id)"
    )
