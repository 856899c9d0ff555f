"""StopCallbacks: whom a shared store tells of requests to stop runs; each run is told of once."""

from __future__ import annotations

import logging
import weakref
from typing import Any, Callable, List, Set, Tuple

from agentstream.events.store import StopCallback

__all__ = ["StopCallbacks"]


class StopCallbacks:
    """The callbacks of `EventStore.watch_stops`, and the runs that were stopped by them.

    Args:
        logger: told what a callback raises.

    Attributes:
        callbacks: an object, while it lives, and a function of its class each.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self.callbacks: List[Tuple[weakref.ref[Any], Callable[..., bool]]] = []
        self._logger = logger
        self._told: Set[str] = set()

    def __contains__(self, workflow_id: str) -> bool:
        """True if that run was stopped."""
        return workflow_id in self._told

    def __len__(self) -> int:
        """How many runs were stopped, and are remembered."""
        return len(self._told)

    def add(self, callback: StopCallback) -> None:
        """Call that bound method, for as long as its object lives."""
        # Not a WeakMethod, which runs Python as its object goes: see threads/weak.py.
        method: Any = callback
        self.callbacks.append((weakref.ref(method.__self__), method.__func__))

    def forget(self, workflow_id: str) -> None:
        """Tell of the next request for a run, whatever was told before."""
        self._told.discard(workflow_id)

    def forget_all(self) -> None:
        """... for any run."""
        self._told.clear()

    def tell(self, workflow_id: str, reason: str) -> None:
        """Have a run stopped, unless it is being stopped."""
        if workflow_id in self._told:
            return
        for reference, function in self.callbacks:
            owner = reference()
            try:
                if owner is not None and function(owner, workflow_id, reason):
                    self._told.add(workflow_id)
            except Exception:
                self._logger.exception("a run could not be stopped")
