"""agentstream stop: ends a run that another process runs, or that rests."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from agentstream.cli.exits import DONE, FAILED
from agentstream.cli.output import note, say
from agentstream.cli.runs import named
from agentstream.cli.settings import log_of

if TYPE_CHECKING:
    import argparse

__all__ = ["stop"]


def stop(given: argparse.Namespace) -> int:
    """Stop a run and wait for its end; returns the exit code."""
    log = log_of(given)
    with log.open(create=False) as store:
        workflow_id = named(store, given.id, log)
        if not store.request_stop(workflow_id, given.reason):
            state = store.run(workflow_id)
            say(f"run {workflow_id} is not under way: {'' if state is None else state.status}")
            return FAILED
        until = time.monotonic() + given.wait
        position = store.bounds().last
        while not store.has_ended(workflow_id):
            left = until - time.monotonic()
            if left <= 0:
                say(f"run {workflow_id} was asked to stop, and has not ended yet")
                return FAILED
            store.wait(position, min(left, 1.0))
            position = store.bounds().last
    note(f"run {workflow_id} was stopped")
    return DONE
