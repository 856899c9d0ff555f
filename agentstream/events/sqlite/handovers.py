"""HandOvers: whose an event is, of a run that was not always this process's.

A stream offers its own events to its subscribers itself, and those of others as it finds
them in the log.  Where a run's owner changes, the log's `runs.owner` does not tell which
is which: this does, from before the commit that makes the change until its readers have
come past it.
"""

from __future__ import annotations

import sys
import threading
from typing import Dict, List, Tuple

from agentstream.events.model import Event

__all__ = ["HandOvers"]

_MOST = 1000  # without a reader nothing is ever passed: then the oldest go


class HandOvers:
    """The runs that this process has taken from others, and those that it has left.

    Attributes:
        count: how many were taken.
    """

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.RLock()
        self._taken: List[Tuple[int, int]] = []  # run, and the position up to which it was others'
        self._left: Dict[str, List[Tuple[int, int, int]]] = {}  # first and last offset, position

    def took(self, run: int, position: int) -> None:
        """Up to `position`, the events of `run` may be others', though it is ours now."""
        with self._lock:
            self._taken = [*self._taken[-_MOST:], (run, position)]
            self.count += 1

    def left(self, workflow_id: str, first: int, last: int, position: int = sys.maxsize) -> None:
        """Though the run is no longer ours, these offsets are; they end at that position."""
        with self._lock:
            self._left.setdefault(workflow_id, []).append((first, last, position))
            while len(self._left) > _MOST:
                del self._left[next(iter(self._left))]

    def placed(self, workflow_id: str, position: int) -> None:
        """What `left` told of a run is in the log now, up to that position at most."""
        with self._lock:
            stints = self._left.get(workflow_id)
            if stints:
                stints[-1] = (*stints[-1][:2], position)

    def taken_after(self, position: int) -> List[Tuple[int, int]]:
        """What `took` told that is not past; all readers have come to `position`."""
        if not self._taken and not self._left:
            return []
        with self._lock:
            self._taken = [one for one in self._taken if one[1] > position]
            for name, stints in list(self._left.items()):
                if stints[-1][2] <= position:
                    del self._left[name]
            return self._taken

    def is_ours(self, event: Event) -> bool:
        """True for an event of a run that we left, if we wrote it."""
        stints = self._left.get(event.workflow_id)
        return stints is not None and any(a <= event.offset <= b for a, b, _ in stints)
