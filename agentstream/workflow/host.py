"""RunHost: what a run may ask of whoever runs it, such as a runtime."""

from __future__ import annotations

import contextvars
from typing import Callable, Protocol

from agentstream.cancel import CancelToken

__all__ = ["NoHost", "RunHost"]


class RunHost(Protocol):
    """Gives a run threads for its branches, and makes the runs within it known by their ids."""

    def lend(self, work: Callable[[], object]) -> bool:
        """Run `work` in another thread, at once; False if there is none to be had."""

    def bind(self, context: contextvars.Context, workflow_id: str, token: CancelToken) -> None:
        """Have what is submitted in `context` belong to that run, and be stopped by `token`."""

    def enter(self, workflow_id: str, token: CancelToken) -> None:
        """Register a run within this one that has begun: `token` stops it."""

    def leave(self, workflow_id: str) -> None:
        """Unregister a run within this one that has ended."""


class NoHost(RunHost):
    """The host of a run that nobody hosts: it lends no threads and knows no runs."""

    def lend(self, work: Callable[[], object]) -> bool:
        """See `RunHost`."""
        return False

    def bind(self, context: contextvars.Context, workflow_id: str, token: CancelToken) -> None:
        """See `RunHost`."""

    def enter(self, workflow_id: str, token: CancelToken) -> None:
        """See `RunHost`."""

    def leave(self, workflow_id: str) -> None:
        """See `RunHost`."""
