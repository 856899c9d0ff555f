"""StopRequests: while runs are under way, looks for requests of other processes to stop them."""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any, List, Optional, Set

from agentstream import threads
from agentstream.errors import LogError
from agentstream.events.store import StopCallback

if TYPE_CHECKING:
    from agentstream.events.sqlite import SqliteStore

__all__ = ["StopRequests"]

logger = logging.getLogger("agentstream.events.sqlite")

_POLL_S = 0.05
_LINGER = 20  # polls without a run under way before the thread ends


class StopRequests:
    """A thread of its own: neither a slow disk nor a locked file may hold up a stop."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.callbacks: List[weakref.WeakMethod[Any]] = []
        self._lock = threading.Lock()
        self._thread: Optional[threading.Thread] = None
        self._ended = threading.Event()
        self._told: Set[str] = set()

    def add(self, callback: StopCallback) -> None:
        """Call that bound method, for as long as its object lives."""
        self.callbacks.append(weakref.WeakMethod(callback))

    def start(self) -> None:
        """Watch, from now until no run is under way."""
        with self._lock:
            if self._thread is None and self.callbacks and not self._ended.is_set():
                try:
                    self._thread = threads.start_thread("log-watch", self._main)
                except RuntimeError:
                    logger.warning("no thread to look for requests to stop")

    def end(self) -> None:
        """Watch no more; waits for the thread, unless called by it."""
        self._ended.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(5.0)

    def _main(self) -> None:
        idle = 0
        while not self._ended.wait(_POLL_S):
            try:
                for workflow_id, reason in self._store.stop_requests():
                    self._tell(workflow_id, reason)
            except LogError:
                logger.debug("no looking for requests to stop", exc_info=True)
            with self._lock:
                idle = 0 if self._store.is_writing() else idle + 1
                if idle > _LINGER:
                    self._thread = None
                    self._told.clear()
                    return

    def _tell(self, workflow_id: str, reason: str) -> None:
        if workflow_id in self._told:
            return
        for reference in self.callbacks:
            callback = reference()
            try:
                if callback is not None and callback(workflow_id, reason):
                    self._told.add(workflow_id)
            except Exception:
                logger.exception("a run could not be stopped")
