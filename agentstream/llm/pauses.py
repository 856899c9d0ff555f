"""Pauses: which of several clients is asked next, and which are left alone until when.  Pure.

A client that failed is left alone: for as long as its server asked, else for a time that
grows with each failure.  When that is over one call tries it, and the others go on as if it
were not, until that call has its first delta.
"""

from __future__ import annotations

import threading
import time
from typing import Callable, Collection, List, NamedTuple, Optional

from agentstream import threads

__all__ = ["Pauses", "Ticket"]


class Ticket(NamedTuple):
    """A call's leave to ask a client.

    Attributes:
        place: the client's, from 0.
        number: grows with each ticket and each failure: what is older is less.
    """

    place: int
    number: int


class _State:
    """How one client stands."""

    __slots__ = ("due", "failed", "failures", "probe")

    def __init__(self) -> None:
        self.failures = 0  # since its last answer
        self.failed = 0  # the number of the last one
        self.due = 0.0  # when its pause is over, on the clock's scale
        self.probe = 0  # the ticket of the call that tries it after its pause; 0 for none


class Pauses:
    """How several clients stand; for any number of threads.

    Args:
        clients: how many there are.
        first, most: seconds of a client's first pause, which is doubled for each further
            failure, and of its longest.
        clock: gives the time, in seconds.
    """

    def __init__(
        self,
        clients: int,
        *,
        first: float,
        most: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._states = [_State() for _ in range(clients)]
        self._first, self._most = first, most
        self._clock = clock
        self._numbers = 0
        self._lock = threading.Lock()
        threads.after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # another thread of the parent's may have held it
        for state in self._states:
            state.probe = 0  # its call went on in the parent

    def take(self, asked: Collection[int], *, paused: bool) -> Optional[Ticket]:
        """Leave to ask the next client; None if there is none.

        Args:
            asked: the places of those that the call has asked.
            paused: if all others are left alone, take the one that is due first.
        """
        with self._lock:
            place = self._first_ready(asked)
            if place is None and paused:
                left = [place for place in range(len(self._states)) if place not in asked]
                place = min(left, key=self._when, default=None)
            return None if place is None else self._ticket(place)

    def ready(self, asked: Collection[int]) -> bool:
        """True if there is a client besides those asked that is not left alone."""
        with self._lock:
            return self._first_ready(asked) is not None

    def _first_ready(self, asked: Collection[int]) -> Optional[int]:
        now = self._clock()
        for place, state in enumerate(self._states):
            free = not state.failures or (state.due <= now and not state.probe)
            if free and place not in asked:
                return place
        return None

    def _when(self, place: int) -> List[float]:
        state = self._states[place]
        return [state.probe > 0, state.due]

    def _ticket(self, place: int) -> Ticket:
        self._numbers += 1
        state = self._states[place]
        if state.failures and not state.probe:
            state.probe = self._numbers
        return Ticket(place, self._numbers)

    def failed(self, ticket: Ticket, asked: Optional[float]) -> float:
        """The client failed; returns the seconds for which it is left alone.

        Of calls that were under way together, the first to fail makes the pause longer.

        Args:
            asked: seconds that its server asked to wait; None if it did not say.
        """
        with self._lock:
            state = self._states[ticket.place]
            now = self._clock()
            if ticket.number > state.failed:
                state.failures += 1
                self._numbers += 1
                state.failed = self._numbers
                seconds = min(self._most, self._first * 2.0 ** min(state.failures - 1, 32))
                state.due = now + (seconds if asked is None else asked)
            elif asked is not None:
                state.due = max(state.due, now + asked)
            self._end(state, ticket)
            return max(0.0, state.due - now)

    def answered(self, ticket: Ticket) -> None:
        """The client answers.  That of a call from before its last failure proves nothing."""
        with self._lock:
            state = self._states[ticket.place]
            if ticket.number > state.failed:
                state.failures = 0
            self._end(state, ticket)

    def left(self, ticket: Ticket) -> None:
        """The call has come to its end, whatever that is; may follow the others."""
        with self._lock:
            self._end(self._states[ticket.place], ticket)

    @staticmethod
    def _end(state: _State, ticket: Ticket) -> None:
        if state.probe == ticket.number:
            state.probe = 0
