"""Subscription: a subscriber's end of the bus, an iterator or a callback's keeper."""

from __future__ import annotations

from typing import Callable, Iterator, Optional

from agentstream import threads
from agentstream.errors import Closed
from agentstream.events.mailbox import Callback, Mailbox
from agentstream.events.model import Event

__all__ = ["CLOSE_S", "Subscription"]

#: Seconds that a close waits for callbacks.
CLOSE_S = 5.0


class Subscription(Iterator[Event]):
    """A subscriber's end.  Iterate it, or leave it to its callback; `close` when done.

    An iterator that is dropped closes itself.  `EventStream.subscribe` makes one; with it
    come two ways back to the stream: `unregister`, which also enqueues the end marker and
    returns False if that comes later, and `forget`, which waits for nothing.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        callback: Optional[Callback],
        *,
        unregister: Callable[[Mailbox], bool],
        forget: Callable[[Mailbox], object],
    ) -> None:
        self._has_callback = callback is not None
        self._mailbox = mailbox
        self._unregister = unregister
        self._forget = forget
        if callback is not None:
            mailbox.start(callback)

    def __iter__(self) -> Subscription:
        return self

    def __next__(self) -> Event:
        """The next event; waits for it.

        Raises:
            RuntimeError: the subscription has a callback, or another thread reads it.
        """
        try:
            for seconds in threads.slices(None):
                event = self._take(seconds)
                if event is not None:
                    return event
        except Closed:
            raise StopIteration from None
        raise AssertionError("a wait without an end has ended")

    def get(self, timeout: Optional[float] = None) -> Optional[Event]:
        """The next event, or None if none came within `timeout` seconds.

        Raises:
            Closed: there are no more.
            RuntimeError: the subscription has a callback, or another thread reads it.
        """
        return self._take(timeout)

    def _take(self, timeout: Optional[float]) -> Optional[Event]:
        if self._has_callback:
            raise RuntimeError("this subscription has a callback: it cannot be iterated as well")
        return self._mailbox.take(timeout)

    def get_now(self) -> Optional[Event]:
        """The next event if it has come already; None if not.  Reads no store, waits for nothing.

        For one thread that reads many subscriptions: see `ring`.

        Raises:
            NotLive: `get` has to go on: it is behind and reads from the store, or there
                are no more.
        """
        return self._mailbox.take_now()

    def ring(self, bell: Optional[Callable[[], object]]) -> None:
        """Have `bell` called whenever something has come, until it is called with None.

        Publishers call it, and wait for it: it must not wait, nor touch the stream.
        """
        self._mailbox.ring(bell)

    @property
    def errors(self) -> int:
        """How often the callback raised."""
        return self._mailbox.errors

    @property
    def missed(self) -> int:
        """How many events the store had let go before they could be read."""
        return self._mailbox.missed

    def close(self, timeout: Optional[float] = CLOSE_S) -> bool:
        """Take no more events; those queued are still delivered.  Idempotent.

        With a callback, waits up to `timeout` seconds until it has had them
        all; called from the callback itself, it does not wait.  Returns False
        if the callback is stuck and was left behind, or is still to be closed:
        a signal handler that comes in the middle of its thread's own append
        leaves that to it.
        """
        return self._unregister(self._mailbox) and self._mailbox.join(timeout)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._has_callback:
            self._mailbox.drop()
            self._forget(self._mailbox)
