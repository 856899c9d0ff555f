"""Which runs a list has: the newest, or those of some statuses, with some words in them."""

from __future__ import annotations

from typing import List, Sequence

from werkzeug.exceptions import BadRequest

from agentstream.events.store import EventStore, RunState

__all__ = ["STATUSES", "list_runs"]

#: What `RunState.status` may be.
STATUSES = ("queued", "running", "completed", "failed", "cancelled", "closed", "suspended",
            "interrupted")  # fmt: skip
#: The newest runs among which those that fit are looked for.
_MOST_SEARCHED = 10_000


def list_runs(
    store: EventStore, limit: int, statuses: Sequence[str] = (), text: str = ""
) -> List[RunState]:
    """The newest `limit` runs that fit, the newest first; looks at the newest 10,000.

    Args:
        statuses: a run has one of these; none for any.
        text: words that stand, each of them, somewhere in the run's name, its id or the first
            line of its input, in capitals or not; "" for any.

    Raises:
        BadRequest: there is no such status.
    """
    unknown = [status for status in statuses if status not in STATUSES]
    if unknown:
        raise BadRequest(f"a status is one of {', '.join(STATUSES)}; not {unknown[0][:64]!r}")
    words = text.casefold().split()
    if not statuses and not words:
        return store.runs(limit=limit)
    found = store.runs(limit=_MOST_SEARCHED)
    return [run for run in found if _fits(run, statuses) and _has(run, words)][:limit]


def _fits(run: RunState, statuses: Sequence[str]) -> bool:
    return not statuses or run.status in statuses


def _has(run: RunState, words: Sequence[str]) -> bool:
    if not words:
        return True
    place = "\n".join((run.name, run.workflow_id, run.input or "")).casefold()
    return all(word in place for word in words)
