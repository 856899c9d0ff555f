"""Waking one thread, from wherever: also from a signal handler."""

from __future__ import annotations

import threading
from typing import Optional

from agentstream.threads.start import bounded

__all__ = ["Wakeup"]


class Wakeup:
    """Lets one thread wait until another calls `set`, which takes no lock.

    `threading.Event.set` and `Condition.notify` hold a lock for a moment; a signal
    handler that calls them while the code it interrupted is inside waits for ever.
    """

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()

    def set(self) -> None:
        """End the wait, or the next one if there is none.  Idempotent until then."""
        try:
            self._gate.release()
        except RuntimeError:  # it is set
            pass

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Wait up to `timeout` seconds, None for no bound; True if `set` was called."""
        if timeout is None:
            return self._gate.acquire()
        return self._gate.acquire(timeout=bounded(timeout))
