"""CancelToken: a flag, a wait that it ends, and callbacks.

Lock-free on purpose: `cancel` may be called by a signal handler that interrupted
this very code, so there must be no lock for it to find held.  What makes that
safe is that taking an entry out of a dict is atomic: each callback is run by
whoever takes it out, and so exactly once or never.
"""

from __future__ import annotations

import itertools
import logging
import threading
from typing import Callable, Dict, Optional

__all__ = ["CancelToken"]

logger = logging.getLogger("agentstream.cancel")


class CancelToken:
    """Tells work that it shall stop.

    Hand the same token to any number of calls; `cancel` ends them all.  Every
    method may be called from any thread, any number of times, and `cancel` from
    a signal handler too.
    """

    __slots__ = ("__weakref__", "_callbacks", "_keys", "cancelled", "reason")

    def __init__(self) -> None:
        #: True once `cancel` has been called; to be read only.  Plain attribute,
        #: because it is looked at for every line of a stream.
        self.cancelled = False
        self._callbacks: Dict[int, Callable[[], object]] = {}
        self._keys = itertools.count()
        #: Why, as given to the `cancel` that came first; "" until then.
        self.reason = ""

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled else "active"
        return f"<CancelToken {state}>"

    def cancel(self, reason: str = "cancelled") -> None:
        """Set the flag, then run the callbacks in this thread; returns at once.  Idempotent."""
        if not self.cancelled:
            self.reason = reason
            self.cancelled = True
        while self._callbacks:
            try:
                _, callback = self._callbacks.popitem()
            except KeyError:  # another canceller took the last one
                return
            _call(callback)

    def add_callback(self, callback: Callable[[], object]) -> int:
        """Run `callback` on cancel, in the cancelling thread; at once if that has happened.

        It must be quick and must not block.  What it raises is logged.  Returns
        the key that `remove_callback` takes.
        """
        key = next(self._keys)
        self._callbacks[key] = callback
        # Looked at after the entry is in: a cancel before this line may have
        # missed the entry, a cancel after it finds it.  Whoever pops it calls it.
        if self.cancelled and self._callbacks.pop(key, None) is not None:
            _call(callback)
        return key

    def remove_callback(self, key: int) -> bool:
        """Take a callback out again.

        Returns True if it was still there: then it has not run and never will.
        False means that it has run, or is running at this moment.
        """
        return self._callbacks.pop(key, None) is not None

    def wait(self, seconds: Optional[float] = None) -> bool:
        """Sleep until cancelled or until `seconds` have passed (None: no bound).

        Returns True if the token is cancelled.  This is the library's only sleep.
        """
        if self.cancelled:
            return True
        gate = threading.Lock()
        gate.acquire()
        key = self.add_callback(gate.release)
        try:
            if seconds is None:
                gate.acquire()
            else:
                gate.acquire(timeout=min(max(seconds, 0.0), threading.TIMEOUT_MAX))
        finally:
            self.remove_callback(key)
        return self.cancelled


def _call(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception:
        logger.exception("a cancel callback raised")
