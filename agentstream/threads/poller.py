"""Poller: something done again and again, in a thread of its own, until it is closed."""

from __future__ import annotations

import logging
import threading
from typing import Callable, Optional

from agentstream.threads.lifecycle import after_fork
from agentstream.threads.start import start_thread
from agentstream.threads.wakeup import Wakeup

__all__ = ["Poller"]

logger = logging.getLogger("agentstream.threads")


class Poller:
    """Calls `look` every `poll_s` seconds; nothing happens before `start`.

    Args:
        name: of the thread, behind "agentstream-".
        look: what it calls; what that raises is logged, and it is called again.
        poll_s: seconds between the end of a look and the next one.
    """

    def __init__(self, name: str, look: Callable[[], object], poll_s: float) -> None:
        self._name = name
        self._look = look
        self._poll_s = poll_s
        self.closed = False
        self._after_fork()
        after_fork(self)

    def _after_fork(self) -> None:
        """Begin anew in a forked child, at its next `start`: the thread is the parent's."""
        self._lock = threading.Lock()
        self._wakeup = Wakeup()
        self._thread: Optional[threading.Thread] = None

    def start(self) -> None:
        """Start the thread, unless it is there or all is over.

        Raises:
            RuntimeError: there is none to be had.
        """
        if self._thread is not None or self.closed:
            return
        with self._lock:
            if self._thread is None and not self.closed:
                self._thread = start_thread(self._name, self._main)

    def wake(self) -> None:
        """Look now, if it was started."""
        self._wakeup.set()

    def close(self) -> None:
        """Look no more; a look under way comes to its end.  Idempotent."""
        self.closed = True
        self._wakeup.set()

    def join(self, timeout: float) -> None:
        """Wait until it has come to its end, up to `timeout` seconds."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _main(self) -> None:
        while not self.closed:
            try:
                self._look()
            except Exception:
                logger.exception("a look in the thread %s failed", self._name)
            if not self.closed:
                self._wakeup.wait(self._poll_s)
