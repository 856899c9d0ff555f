"""agentstream signal: the value that a run waits for, or will."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentstream.cli.approve import author, tell_next
from agentstream.cli.exits import DONE
from agentstream.cli.output import note
from agentstream.cli.resting import in_short
from agentstream.cli.runs import named
from agentstream.cli.settings import log_of
from agentstream.runtime import answers

if TYPE_CHECKING:
    import argparse

__all__ = ["signal"]


def signal(given: argparse.Namespace) -> int:
    """Send a value; returns the exit code."""
    log = log_of(given)
    with log.open(create=False) as store:
        workflow_id = named(store, given.id, log, outermost=True)
        asked = answers.unanswered(store, workflow_id)
        answers.signal(store, workflow_id, given.name, given.value, by=author(given))
        if given.quiet:
            return DONE
        if asked and given.name not in (each.id for each in asked):
            note(
                f"run {workflow_id} has it, and does not wait for it now, but for {in_short(asked)}"
            )
            return DONE
        note(f"run {workflow_id} has the value {given.name!r}")
        tell_next(store, workflow_id, log)
    return DONE
