"""agentstream approve: somebody's answer to a run that asks whether it may make a tool call."""

from __future__ import annotations

import contextlib
import getpass
from typing import TYPE_CHECKING, Optional

from agentstream.agent.approval import Approval
from agentstream.cli.exits import DONE
from agentstream.cli.log_place import LogPlace
from agentstream.cli.output import note
from agentstream.cli.resting import goes_on, in_short, lines_of, title_of
from agentstream.cli.runs import named
from agentstream.cli.settings import log_of
from agentstream.errors import ConfigError, LogError
from agentstream.results import PendingCall
from agentstream.runtime import answers

if TYPE_CHECKING:
    import argparse

    from agentstream.events.store import EventStore

__all__ = ["approve", "author", "tell_next"]


def approve(given: argparse.Namespace) -> int:
    """Answer a pending call; returns the exit code."""
    log = log_of(given)
    with log.open(create=False) as store:
        workflow_id = named(store, given.id, log, outermost=True)
        call = _chosen(store, workflow_id, given.call, log)
        answer, said = Approval.yes(), "yes"
        if given.no is not None:
            answer, said = Approval.no(given.no), "no"
        elif given.arguments is not None:
            answer, said = Approval.change(given.arguments), "yes, with these arguments"
        answers.approve(store, workflow_id, call.id, answer, by=author(given))
        if not given.quiet:
            note(f"run {workflow_id}: {title_of(call)}: {said}")
            tell_next(store, workflow_id, log)
    return DONE


def author(given: argparse.Namespace) -> str:
    """Who answers: `--by`, else the user's login name, if there is one."""
    if given.by is not None:
        return str(given.by)
    with contextlib.suppress(Exception):  # a container may have no user of that number
        return getpass.getuser()
    return ""


def tell_next(store: EventStore, workflow_id: str, log: LogPlace) -> None:
    """Say what a run waits for still, and what goes on with it."""
    left = answers.unanswered(store, workflow_id)
    still = f"it waits for {in_short(left)} still; " if left else ""
    note(f"{still}{goes_on(store, workflow_id, log)}")


def _chosen(
    store: EventStore, workflow_id: str, given: Optional[str], log: LogPlace
) -> PendingCall:
    """The call that is meant: by its id, the beginning of that, or its tool.

    Raises:
        ConfigError: it is not clear which.
        LogError: the run waits for no such call.
    """
    asked = answers.unanswered(store, workflow_id)
    calls = [each for each in asked if isinstance(each, PendingCall)]
    found = [each for each in calls if given in (None, each.id)]
    if given is not None:
        found = found or [each for each in calls if each.id.startswith(given)]
        found = found or [each for each in calls if each.tool == given]
    if len(found) == 1:
        return found[0]
    if found:
        head = f"run {workflow_id} asks about {len(found)} calls: which of them?"
        raise ConfigError("\n".join([head, *lines_of(workflow_id, found, log)]))
    state = store.run(workflow_id)
    why = f"is {'unknown' if state is None else state.status}, and asks nothing"
    if state is not None and state.status == "suspended":
        waits = f"it waits for {in_short(asked)}" if asked else "all it asked has its answer"
        why = f"asks about no {'call' if given is None else f'call {given!r}'}: {waits}"
    raise LogError(f"run {workflow_id} {why}")
