"""Runs whose process has died: finding them, and ending them as failed (interrupted)."""

from __future__ import annotations

import json
import sqlite3
import time
from typing import Any, Dict, List, Optional, Tuple

from agentstream.errors import AgentStreamError
from agentstream.events import accessors, payloads
from agentstream.events.model import EventType
from agentstream.events.sqlite import rows
from agentstream.events.sqlite.leases import is_alive
from agentstream.events.sqlite.statements import add_event
from agentstream.results import Usage

__all__ = ["close_interrupted", "find_dead"]

#: The log of no workflow, an agent's own say, is whole that ends with one of these.
_WHOLE = {
    EventType.AGENT_COMPLETED.value,
    EventType.AGENT_FAILED.value,
    EventType.SYSTEM_WARNING.value,
    EventType.SYSTEM_ERROR.value,
}


def find_dead(
    connection: sqlite3.Connection, path: str, me: Optional[int], *, idle: bool = False
) -> List[int]:
    """The numbers of leases on active runs (with `idle`, of all) whose processes have died."""
    active = "SELECT owner FROM runs WHERE status IN ('queued', 'running')"
    owners = connection.execute(
        "SELECT id, token, pid, started, boot FROM owners WHERE id IS NOT ? "
        f"AND (? OR id IN ({active}))",
        (me, idle),
    ).fetchall()
    return [row[0] for row in owners if not is_alive(path, *row[1:])]


def close_interrupted(connection: sqlite3.Connection, owners: List[int]) -> int:
    """End the runs of these leases as failed; returns how many there were."""
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
    if not name and newest is not None and newest[0] in _WHOLE:  # a workflow has a name
        connection.execute("UPDATE runs SET status = 'closed' WHERE id = ?", (number,))
        return
    begun, output = _said(connection, number)
    usage = Usage().to_dict()
    now = max(time.time(), started or 0.0)  # a clock that was set back makes no negative time
    end = payloads.run_end(name, output, usage, now - started if started else 0.0)
    if last:
        kind = EventType.WORKFLOW_FAILED
        data = payloads.workflow_failed(
            end,
            _interruption(pid),
            failed_step=begun.get("name"),
            failed_at=begun.get("step"),
        )
    else:
        kind = EventType.WORKFLOW_CANCELLED
        reason = f"it never began: the process that had queued it, {pid}, died"
        data = payloads.workflow_cancelled(end, reason=reason)
    add_event(connection, number, last + 1, kind, data)
    connection.execute(
        "UPDATE runs SET status = ?, ended = ?, usage = ? WHERE id = ?",
        (accessors.status_of(kind), now, rows.encode(usage), number),
    )
    connection.execute("DELETE FROM stops WHERE workflow_id = ?", (workflow_id,))


def _interruption(pid: int) -> Dict[str, Any]:
    """`payloads.failure` of a run whose process, number `pid`, died."""
    error = AgentStreamError(
        f"interrupted: the process that ran it, {pid}, died", retryable=True, outcome="unknown"
    )
    return {**payloads.failure(error), "error": "Interrupted"}


def _said(connection: sqlite3.Connection, run: int) -> Tuple[Dict[str, Any], str]:
    """What the start of a run's last step says, and the text of its chunks since."""
    begun = connection.execute(
        "SELECT offset, data FROM events WHERE run = ? AND type = ? ORDER BY offset DESC LIMIT 1",
        (run, EventType.WORKFLOW_STEP_STARTED.value),
    ).fetchone()
    chunks = connection.execute(
        "SELECT data FROM events WHERE run = ? AND offset > ? AND type = ? ORDER BY offset",
        (run, begun[0] if begun else 0, EventType.AGENT_LLM_STREAM_CHUNK.value),
    )
    output = "".join(accessors.text(_object(row[0]), "chunk") for row in chunks)
    return (_object(begun[1]) if begun else {}), output


def _object(text: str) -> Dict[str, Any]:
    """An event's data; {} for a damaged row, which must not keep the run from its end."""
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
