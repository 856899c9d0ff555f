"""RuntimeHost: what a runtime does for the runs under way in it, and which run some code is in."""

from __future__ import annotations

import contextvars
import logging
from typing import Callable, Dict, NamedTuple, Optional

from agentstream import threads
from agentstream.cancel import CancelToken
from agentstream.workflow.host import RunHost

__all__ = ["Place", "RuntimeHost", "current_place", "set_place"]

logger = logging.getLogger("agentstream.runtime")


class Place(NamedTuple):
    """Where in a run some code belongs.

    Attributes:
        runtime_id: the id of the run that was submitted to a runtime.
        stop: stops that run.
        workflow_id: that id, or the id of the run within it.
        token: stops the run within it, or the step of it.
    """

    runtime_id: str
    stop: CancelToken
    workflow_id: str
    token: CancelToken


#: Of the code that runs in this context; a step's and a tool's thread takes it along.
_current: contextvars.ContextVar[Optional[Place]] = contextvars.ContextVar(
    "agentstream_run", default=None
)


def current_place() -> Optional[Place]:
    """The place of the calling code; None outside all runs."""
    return _current.get()


def set_place(place: Place) -> None:
    """Make the calling code, in its own context, part of a run."""
    _current.set(place)


class RuntimeHost(RunHost):
    """The `RunHost` of a runtime: lends its threads, and stops runs within runs by their ids."""

    def __init__(self, pool: threads.WorkerPool) -> None:
        self._pool = pool
        self._inner: Dict[str, CancelToken] = {}  # runs within runs, in their threads
        threads.after_fork(self)

    def _after_fork(self) -> None:
        self._inner = {}  # they are the parent's

    def lend(self, work: Callable[[], object]) -> bool:
        """See `RunHost`."""
        try:
            self._pool.submit(work, at_once=True, late=True)
        except RuntimeError:
            logger.warning("no thread for a branch: it waits for the one before it")
            return False
        return True

    def bind(self, context: contextvars.Context, workflow_id: str, token: CancelToken) -> None:
        """See `RunHost`."""
        place = context.get(_current)
        if place is not None:
            context.run(_current.set, place._replace(workflow_id=workflow_id, token=token))

    def enter(self, workflow_id: str, token: CancelToken) -> None:
        """See `RunHost`."""
        self._inner[workflow_id] = token

    def leave(self, workflow_id: str) -> None:
        """See `RunHost`."""
        self._inner.pop(workflow_id, None)

    def stop(self, workflow_id: str, reason: str) -> bool:
        """Stop a run within a run; False if there is none of that id."""
        token = self._inner.get(workflow_id)
        if token is None:
            return False
        token.cancel(reason)
        return True
