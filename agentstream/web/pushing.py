"""Writes the events of many streams in one thread, where the server lets any thread write.

By WSGI each stream has a thread that waits for its next event.  With a thousand of them each
event wakes a thousand threads, which then want the interpreter one after the other: that costs
several times what they have to send.  So a stream that is up to date is lent to the one thread
here, which writes to each connection what has come; its own thread sleeps.  It gets its stream
back as soon as something is to be done that may wait: the store is to be read, the client is
slow or gone, the stream is over, or has been quiet for so long that a comment is due.
"""

from __future__ import annotations

import functools
import logging
import queue
import threading
import time
from typing import List, Optional, Protocol, Tuple

from agentstream import threads
from agentstream.events.subscription import Subscription
from agentstream.threads.wakeup import Wakeup

__all__ = ["KEY", "Loan", "Push", "Pusher"]

logger = logging.getLogger("agentstream.web")

#: In a request's WSGI environment: its `Push`, of a server that has such.
KEY = "agentstream.push"
#: Seconds that the thread stays when no stream is lent.
_LINGER_S = 0.25
#: ... and that it writes before it wakes the threads of streams that it gives back.
_LONGEST_S = 0.1


class Push(Protocol):
    """Writes to a request's connection, from any thread, while its own one does not."""

    def is_direct(self, size: int) -> bool:
        """True if the first `size` bytes of the body went to the connection as they are.

        If not, a middleware changes the body or holds it back: it must have the rest as well.
        """

    def has_room(self) -> bool:
        """True if a write would wait for nothing."""

    def write(self, data: bytes) -> None:
        """Write a part of the answer's body; raises what it will if the client is gone."""

    def settle(self) -> None:
        """Send what a write has left over, in the request's own thread, which may wait."""


class Stream(Protocol):
    """A stream that can be lent."""

    def take_now(self) -> Tuple[bytes, bool]:
        """What has come for the client, and whether no more than that is to be done."""

    def end(self) -> None:
        """End it: its client is gone, or comes back for what it has not had."""


class Pusher:
    """The thread that writes for all streams which are lent to it; there while some are."""

    def __init__(self) -> None:
        self._due: queue.SimpleQueue[Optional[Loan]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: Optional[threading.Thread] = None
        self._loans = 0

    def enter(self) -> bool:
        """A stream is lent from now on; False if no thread can be started for it."""
        with self._lock:
            if self._thread is None:
                try:
                    self._thread = threads.start_thread("pusher", self._main)
                except RuntimeError:
                    return False
            self._loans += 1
            return True

    def leave(self) -> None:
        """A stream is lent no longer."""
        with self._lock:
            self._loans -= 1
            if not self._loans:
                self._due.put(None)  # the thread waits without an end

    def call(self, loan: Loan) -> None:
        """Something has come for that stream."""
        self._due.put(loan)

    def _main(self) -> None:
        while True:
            try:
                loan = self._due.get(timeout=None if self._loans else _LINGER_S)
            except queue.Empty:
                with self._lock:
                    if not self._loans:
                        self._thread = None
                        return
                continue
            self._push_all(loan)

    def _push_all(self, loan: Optional[Loan]) -> None:
        """Write for that stream, and for all that are due; then wake those who have to go on.

        A thread that is woken before would want the interpreter while others wait for their
        events: at the end of a run all of them do.
        """
        back: List[Loan] = []
        until = time.monotonic() + _LONGEST_S
        while True:
            if loan is not None and not loan.push():
                back.append(loan)
            if time.monotonic() > until:
                break
            try:
                loan = self._due.get_nowait()
            except queue.Empty:
                break
        for each in back:
            each.give_back()


class Loan:
    """One stream that can be lent to a pusher, and taken back.

    Args:
        pusher: who writes.
        stream: what is written.
        source: where its events come from.
        push: where they go.
    """

    def __init__(self, pusher: Pusher, stream: Stream, source: Subscription, push: Push) -> None:
        self._pusher = pusher
        self._stream = stream
        self._source = source
        self._push = push
        self._turn = threading.Lock()  # held by who writes
        self._lent = False
        self._back = Wakeup()
        self._pushed_at = 0.0

    def is_direct(self, size: int) -> bool:
        """True if nothing stands between the stream and its connection: see `Push`."""
        return self._push.is_direct(size)

    def lend(self, quiet: float) -> bool:
        """Have what comes written by the pusher.  Called by the stream's own thread, which waits.

        Returns False once nothing has come for `quiet` seconds; True if that thread has
        to go on.
        """
        if not self._pusher.enter():
            return True
        self._pushed_at = time.monotonic()
        self._lent = True
        self._source.ring(functools.partial(self._pusher.call, self))
        self._pusher.call(self)  # for what has come before
        try:
            while True:
                left = self._pushed_at + quiet - time.monotonic()
                if left <= 0:
                    return False
                if self._back.wait(left):
                    return True
        finally:
            self._source.ring(None)
            with self._turn:
                self._lent = False
            self._pusher.leave()
            self._push.settle()

    def give_back(self) -> None:
        """Wake the stream's own thread, or have it not wait."""
        self._back.set()

    def push(self) -> bool:
        """Write what has come; False if the stream's own thread has to go on.

        In the pusher's thread.
        """
        with self._turn:
            if not self._lent:
                return True
            try:
                if self._push.has_room():
                    data, goes_on = self._stream.take_now()
                    if data:
                        self._push.write(data)
                        self._pushed_at = time.monotonic()
                    if goes_on and self._push.has_room():
                        return True
            except Exception:  # of the server's own: the client is gone
                logger.debug("a stream cannot be written to", exc_info=True)
                self._stream.end()
            self._lent = False
            return False
