"""Runs that nobody has: finding those whose process has died, and ending what is to end.

What can be resumed is "interrupted" then; all else has failed.
"""

from __future__ import annotations

import json
import sqlite3
import time
from typing import Any, Dict, List, Optional, Set, Tuple

from agentstream.errors import AgentStreamError
from agentstream.events import accessors, payloads
from agentstream.events.model import EventType
from agentstream.events.resting import INTERRUPTED, RESTING, cancelled
from agentstream.events.sqlite import resumable, rows
from agentstream.events.sqlite.entries import add_event
from agentstream.events.sqlite.leases import is_alive
from agentstream.events.sqlite.resumable import Kept
from agentstream.results import Usage

__all__ = ["close_interrupted", "find_dead", "stop_if_asked", "stop_resting"]

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
    """Leave the runs of these leases to others, or end them; returns how many there were."""
    count = 0
    for owner in owners:
        pid = connection.execute("SELECT pid FROM owners WHERE id = ?", (owner,)).fetchone()
        runs = resumable.owned_by(connection, owner)
        rested = _leave_to_others(connection, runs)
        for kept in sorted(runs, key=lambda kept: kept.root is None):  # a root closes the others
            if kept.id not in rested:
                _interrupt(connection, kept, pid[0] if pid else 0)
        connection.execute("DELETE FROM owners WHERE id = ?", (owner,))
        count += len(runs)
    return count


def _leave_to_others(connection: sqlite3.Connection, runs: List[Kept]) -> Set[int]:
    """Have the runs of a dead process rest that can be resumed; returns which those are."""
    rested = set()
    for kept in runs:
        if kept.can_be_resumed and (kept.deaths or 0) < (kept.recover or 0):
            inner = {one.id for one in resumable.inner_of(connection, kept.id)}
            resumable.rest(connection, kept.id, INTERRUPTED, inner=True, deaths=1)
            rested |= {kept.id, *inner}
            stop_if_asked(connection, kept.workflow_id)
    return rested


def _interrupt(connection: sqlite3.Connection, kept: Kept, pid: int) -> None:
    number, name, last, started = kept.id, kept.name, kept.last, kept.started
    newest = connection.execute(
        "SELECT type FROM events WHERE run = ? AND offset = ?", (number, last)
    ).fetchone()
    if not name and newest is not None and newest[0] in _WHOLE:  # a workflow has a name
        connection.execute("UPDATE runs SET status = 'closed' WHERE id = ?", (number,))
        resumable.end(connection, number)
        return
    begun, output = _said(connection, number)
    now = max(time.time(), started or 0.0)  # a clock that was set back makes no negative time
    end = payloads.run_end(name, output, Usage().to_dict(), now - started if started else 0.0)
    if last or name:  # one that was queued has its name from the beginning
        kind = EventType.WORKFLOW_FAILED
        data = payloads.workflow_failed(
            end,
            _interruption(pid, kept),
            failed_step=begun.get("name"),
            failed_at=begun.get("step"),
        )
    else:
        kind = EventType.WORKFLOW_CANCELLED
        reason = f"it never began: the process that had queued it, {pid}, died"
        data = payloads.workflow_cancelled(end, reason=reason)
    _end(connection, kept, kind, data, now)


def _end(
    connection: sqlite3.Connection, kept: Kept, kind: EventType, data: Dict[str, Any], now: float
) -> None:
    """Append the end of a run that nobody has."""
    usage = data["usage"]
    add_event(connection, kept.id, kept.last + 1, kind, data)
    connection.execute(
        "UPDATE runs SET status = ?, ended = ?, usage = ? WHERE id = ?",
        (
            accessors.status_of(kind),
            now,
            None if usage is None else rows.encode(usage),
            kept.id,
        ),
    )
    connection.execute("DELETE FROM stops WHERE workflow_id = ?", (kept.workflow_id,))
    resumable.end(connection, kept.id)


def _interruption(pid: int, kept: Kept) -> Dict[str, Any]:
    """`payloads.failure` of a run whose process, number `pid`, died.

    It may be tried again, unless it was resumed as often as it may be, and each time in vain.
    """
    message = f"interrupted: the process that ran it, {pid}, died"
    again = True
    if kept.refused is not None:
        message += f"; it cannot be resumed: {kept.refused}"
    elif kept.deaths is not None and kept.root is None:
        message += f"; so did {kept.deaths} before, and recover is {kept.recover}"
        again = not kept.deaths
    error = AgentStreamError(message, retryable=again, outcome="unknown")
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


# --- stopping what rests --------------------------------------------------------------------


def stop_resting(connection: sqlite3.Connection, workflow_id: str, reason: str) -> bool:
    """End a run that rests, and the whole it is part of, as cancelled; False if it does not."""
    root = resumable.find_root(connection, workflow_id)
    if root is None or not root.is_free:
        return False
    for kept in (*resumable.inner_of(connection, root.id), root):
        data = cancelled(_rest_of(connection, kept), kept.name, reason)
        if data["output"] is None:
            data["output"] = _said(connection, kept.id)[1]
        now = max(time.time(), kept.started or 0.0)
        _end(connection, kept, EventType.WORKFLOW_CANCELLED, data, now)
    return True


def stop_if_asked(connection: sqlite3.Connection, workflow_id: str) -> None:
    """Stop a run that has just been left, if its process was asked to and did not."""
    root = resumable.find_root(connection, workflow_id)
    if root is None or root.status not in RESTING:
        return
    for kept in (root, *resumable.inner_of(connection, root.id)):
        found = connection.execute(
            "SELECT reason FROM stops WHERE workflow_id = ?", (kept.workflow_id,)
        ).fetchone()
        if found is not None:
            stop_resting(connection, workflow_id, found[0])
            return


def _rest_of(connection: sqlite3.Connection, kept: Kept) -> Dict[str, Any]:
    """The data of a run's newest event, if that is a workflow_suspended; else {}."""
    found = connection.execute(
        "SELECT data FROM events WHERE run = ? AND offset = ? AND type = ?",
        (kept.id, kept.last, EventType.WORKFLOW_SUSPENDED.value),
    ).fetchone()
    return {} if found is None else _object(found[0])


def _object(text: str) -> Dict[str, Any]:
    """An event's data; {} for a damaged row, which must not keep the run from its end."""
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
