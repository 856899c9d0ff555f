"""StopRequests: while runs are under way, looks for requests of other processes to stop them."""

from __future__ import annotations

import logging
import threading
from typing import Callable, Iterable, Optional, Tuple

from agentstream import threads
from agentstream.errors import LogError
from agentstream.events.stop_callbacks import StopCallbacks

__all__ = ["StopRequests"]

logger = logging.getLogger("agentstream.events.sqlite")

_POLL_S = 0.05
_LINGER = 20  # polls without a run under way before the thread ends


class StopRequests:
    """Polls the log in a thread of its own: a slow disk or a locked file holds up no stop.

    Args:
        read: returns the requests there are, (workflow id, reason) each; may raise LogError.
        is_writing: returns True while runs of this process are under way.

    Attributes:
        stops: whom it tells.
    """

    def __init__(
        self, read: Callable[[], Iterable[Tuple[str, str]]], is_writing: Callable[[], bool]
    ) -> None:
        self._read = read
        self._is_writing = is_writing
        self.stops = StopCallbacks(logger)
        self._lock = threading.Lock()
        self._thread: Optional[threading.Thread] = None
        self._ended = threading.Event()

    def start(self) -> None:
        """Start the thread, if it is not there; it ends when no run is under way.

        Called by the log's writer alone, and so by no signal handler.
        """
        if self._thread is not None or not self.stops.callbacks:
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
                    self.stops.tell(workflow_id, reason)
            except LogError:
                logger.debug("no looking for requests to stop", exc_info=True)
            with self._lock:
                idle = 0 if self._is_writing() else idle + 1
                if idle > _LINGER:
                    self._thread = None
                    self.stops.forget_all()
                    return
