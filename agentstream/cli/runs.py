"""agentstream runs: the runs in a log, whichever process runs them."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Dict, Iterator, List

from agentstream.cli.exits import DONE
from agentstream.cli.log_place import LogPlace
from agentstream.cli.output import Output
from agentstream.cli.resting import Pending, asked_of, in_short
from agentstream.cli.settings import log_of
from agentstream.errors import ConfigError
from agentstream.events.accessors import cost_of
from agentstream.events.model import EventType
from agentstream.events.resting import INTERRUPTED, RESTING, SUSPENDED
from agentstream.events.store import EventStore, RunState

if TYPE_CHECKING:
    import argparse

__all__ = ["MANY", "UNDER_WAY", "find", "named", "runs"]

#: Runs among which an id is looked for by its beginning.
MANY = 10_000
UNDER_WAY = ("queued", "running")
#: Characters of why a run did not complete.
_MOST_WHY = 60


def runs(given: argparse.Namespace) -> int:
    """List the runs; returns the exit code."""
    with log_of(given).open(create=False, reading=True) as store:
        wanted = (*(UNDER_WAY * given.active), *(RESTING * given.waiting))
        found = store.runs(limit=MANY if wanted else given.limit)
        if wanted:
            found = [state for state in found if state.status in wanted][: given.limit]
        output = Output(sys.stdout)
        if given.json:
            all(output.write_json(_as_dict(state, store)) for state in found)
        else:
            all(output.write(line + "\n") for line in _table(found, store, cost=given.cost))
    return DONE


def _as_dict(state: RunState, store: EventStore) -> Dict[str, Any]:
    usage = None if state.usage is None else dict(state.usage)
    return {**state.listed(), "usage": usage, "pending": _entries(_asked(state, store))}


def _entries(asked: List[Pending]) -> List[Dict[str, Any]]:
    if not asked:
        return []
    from agentstream.workflow.resting import entry_of  # noqa: PLC0415 - few runs are suspended

    return [entry_of(each) for each in asked]


def _asked(state: RunState, store: EventStore) -> List[Pending]:
    """What a run waits for."""
    if state.status != SUSPENDED or state.parent_workflow_id is not None:
        return []
    return asked_of(store, state.workflow_id)


def _table(states: List[RunState], store: EventStore, *, cost: bool) -> Iterator[str]:
    spent = f"{'ALL':>9}  {'COST':>9}  " if cost else ""
    yield f"{'ID':<18}{'STATUS':<13}{'STARTED':<21}{'TOOK':>8}  {'TOKENS':>7}  {spent}WORKFLOW"
    for state in states:
        started = (
            ""
            if state.started_at is None
            else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.started_at))
        )
        within = f" (within {state.parent_workflow_id})" if state.parent_workflow_id else ""
        tokens = (state.usage or {}).get("completion_tokens")
        yield (
            f"{state.workflow_id:<17} {state.status:<12} {started:<21}{_took(state):>8}  "
            f"{'' if tokens is None else tokens:>7}  {_spent(state) if cost else ''}"
            f"{state.name}{within}{_why(state, store)}"
        )


def _spent(state: RunState) -> str:
    """All tokens of a run, prompts and answers, and what they cost, where that is known."""
    tokens, cost = (state.usage or {}).get("total_tokens"), cost_of({"usage": state.usage})
    shown = "" if cost is None else f"{cost:.6f}"
    return f"{'' if tokens is None else tokens:>9}  {shown:>9}  "


def _why(state: RunState, store: EventStore) -> str:
    """Why it did not complete, as its last event has it; of a suspended one, what it asks."""
    if state.status not in ("failed", "cancelled", *RESTING):
        return ""
    asked = _asked(state, store)
    if asked:
        return f": waits for {in_short(asked)}"
    last = store.read(workflow_id=state.workflow_id, after=state.last_offset - 1, limit=1)
    data = last[0].data if last else {}
    why = " ".join(str(data.get("reason") or data.get("message") or "").split())
    if state.status == INTERRUPTED and last and last[0].type is not EventType.WORKFLOW_SUSPENDED:
        why = "its process died"
    if not why:
        return ""
    shown = why if len(why) <= _MOST_WHY else why[: _MOST_WHY - 3] + "..."
    return f": {shown}" if state.name else shown  # who never began has no name yet


def _took(state: RunState) -> str:
    if state.started_at is None:
        return ""
    # Never below zero: the clock may have been set back.
    ended = state.ended_at
    if ended is None and state.status in RESTING:
        return ""  # nobody works on it
    seconds = max(0.0, (ended or time.time()) - state.started_at)
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def named(store: EventStore, given: str, log: LogPlace, *, outermost: bool = False) -> str:
    """The id of the run of a log whose id that is, or begins so.

    Args:
        outermost: of a run within another that of the outermost one.

    Raises:
        ConfigError: none does, or several do.
    """
    found = given if store.run(given) is not None else find(store.runs(limit=MANY), given, str(log))
    state = store.run(found)
    while outermost and state is not None and state.parent_workflow_id is not None:
        found = state.parent_workflow_id
        state = store.run(found)
    return found


def find(states: List[RunState], beginning: str, where: str) -> str:
    """The id of the run whose id that is, or begins so.

    Raises:
        ConfigError: none does, or several do.
    """
    found = [state.workflow_id for state in states if state.workflow_id.startswith(beginning)]
    if beginning in found or len(found) == 1:
        return beginning if beginning in found else found[0]
    if found:
        raise ConfigError(f"run {beginning!r} could be {len(found)} runs: {', '.join(found[:5])}")
    raise ConfigError(f"there is no run {beginning!r} in {where}: `agentstream runs` lists them")
