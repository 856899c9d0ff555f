"""StopRequests: while runs are under way, looks for requests of other processes to stop them."""

from __future__ import annotations

import logging
import threading
import weakref
from typing import Any, Callable, Iterable, List, Optional, Set, Tuple

from agentstream import threads
from agentstream.errors import LogError
from agentstream.events.store import StopCallback

__all__ = ["StopRequests"]

logger = logging.getLogger("agentstream.events.sqlite")

_POLL_S = 0.05
_LINGER = 20  # polls without a run under way before the thread ends


class StopRequests:
    """Polls the log in a thread of its own: a slow disk or a locked file holds up no stop.

    Args:
        read: returns the requests there are, (workflow id, reason) each; may raise LogError.
        is_writing: returns True while runs of this process are under way.
    """

    def __init__(
        self, read: Callable[[], Iterable[Tuple[str, str]]], is_writing: Callable[[], bool]
    ) -> None:
        self._read = read
        self._is_writing = is_writing
        self.callbacks: List[Tuple[weakref.ref[Any], Callable[..., bool]]] = []
        self._lock = threading.Lock()
        self._thread: Optional[threading.Thread] = None
        self._ended = threading.Event()
        self._told: Set[str] = set()

    def add(self, callback: StopCallback) -> None:
        """Call that bound method, for as long as its object lives."""
        # Not a WeakMethod, which runs Python as its object goes: see threads/weak.py.
        method: Any = callback
        self.callbacks.append((weakref.ref(method.__self__), method.__func__))

    def forget(self, workflow_id: str) -> None:
        """Tell of the next request for a run, whatever was told before."""
        self._told.discard(workflow_id)

    def start(self) -> None:
        """Start the thread, if it is not there; it ends when no run is under way.

        Called by the log's writer alone, and so by no signal handler.
        """
        if self._thread is not None or not self.callbacks:
            return
        with self._lock:
            if self._thread is None and not self._ended.is_set():
                try:
                    self._thread = threads.start_thread("log-watch", self._main)
                except RuntimeError:
                    logger.warning("no thread to look for requests to stop")

    def end(self, *, wait: bool) -> None:
        """End the thread; with `wait`, and unless it is the caller, wait for that."""
        self._ended.set()
        thread = self._thread
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join(5.0)

    def _main(self) -> None:
        idle = 0
        while not self._ended.wait(_POLL_S):
            try:
                for workflow_id, reason in self._read():
                    self._tell(workflow_id, reason)
            except LogError:
                logger.debug("no looking for requests to stop", exc_info=True)
            with self._lock:
                idle = 0 if self._is_writing() else idle + 1
                if idle > _LINGER:
                    self._thread = None
                    self._told.clear()
                    return

    def _tell(self, workflow_id: str, reason: str) -> None:
        if workflow_id in self._told:
            return
        for reference, function in self.callbacks:
            owner = reference()
            try:
                if owner is not None and function(owner, workflow_id, reason):
                    self._told.add(workflow_id)
            except Exception:
                logger.exception("a run could not be stopped")
