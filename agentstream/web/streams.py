"""A subscription as a stream of Server-Sent Events: what one GET .../stream answers."""

from __future__ import annotations

import threading
import time
from typing import Collection, Dict, FrozenSet, Iterator, List, Optional, Protocol, Set, Tuple

from agentstream import threads
from agentstream.errors import Closed, OffsetGone
from agentstream.events.mailbox import NotLive, missed_event
from agentstream.events.model import Event
from agentstream.events.stream import EventStream
from agentstream.events.subscription import Subscription
from agentstream.events.tail import LogTail
from agentstream.llm.sse import encode_comment, encode_event
from agentstream.web.pushing import Loan, Push, Pusher

__all__ = ["RETRY_MS", "Streams"]

#: What a browser waits before it comes back, in milliseconds.
RETRY_MS = 1000
_MOST_ENCODED = 256
#: Bytes, about, of one write.
_MOST_AT_ONCE = 65536


class Source(Protocol):
    """Where a stream's events come from: a `Subscription`, or a `LogReader`."""

    def get(self, timeout: Optional[float]) -> Optional[Event]: ...

    def close(self, timeout: Optional[float]) -> bool: ...


class Streams:
    """The streams that are open, counted and closed together.

    Args:
        events: what they show.
        most: as many as may be open at once.
        heartbeat: seconds of quiet after which a comment is sent; a client that
            is gone is noticed by it.
    """

    def __init__(self, events: EventStream, most: int, heartbeat: float) -> None:
        self.heartbeat = heartbeat
        self.most = most
        self._events = events
        self._tail = LogTail(events.store, lambda: events.closed)
        self._closed = False
        # Many streams show the same events.
        self._encoded: Dict[Tuple[Optional[str], Optional[int]], bytes] = {}
        self._have_none()
        threads.after_fork(self)

    def _have_none(self) -> None:
        self._pusher = Pusher()
        # Re-entrant: a server's signal handler may close it.
        self._changed = threading.Condition(threading.RLock())
        self._open: Set[SSEStream] = set()
        self._opening = 0

    def _after_fork(self) -> None:
        """In the child: the streams, and the thread that writes them, are the parent's."""
        self._have_none()

    def __len__(self) -> int:
        return len(self._open)

    def open(
        self,
        workflow_id: Optional[str],
        after: Optional[int],
        only: Collection[str] = (),
        push: Optional[Push] = None,
    ) -> Optional[SSEStream]:
        """A stream of one workflow's events, or of all; None if there are too many, or no more.

        Of all, those of the workflows in `only` are sent, if it names any.  `push` is the
        connection's, of a server that has such.

        Raises:
            OffsetGone: `after` is above the end.
            LogError: the log cannot be read.
        """
        with self._changed:
            if self._closed or len(self._open) + self._opening >= self.most:
                return None
            self._opening += 1
        try:
            stream = self._begin(workflow_id, after, frozenset(only), push)
            with self._changed:
                self._open.add(stream)
        finally:
            with self._changed:
                self._opening -= 1
        if self._is_closed():  # in this moment, and `close` may have missed it
            stream.end()
        return stream

    def _is_closed(self) -> bool:
        return self._closed

    def _begin(
        self,
        workflow_id: Optional[str],
        after: Optional[int],
        only: FrozenSet[str],
        push: Optional[Push],
    ) -> SSEStream:
        if workflow_id is None:
            reader = self._tail.open(after, only)
            # One that begins with what is new gets its place at once: if it is cut
            # off before the first event, it can still come back to it.
            place = reader.cursor if after is None else None
            return SSEStream(self, reader, place=place, only=only)
        begin = after or 0
        missed: Optional[Event] = None
        while True:
            try:
                subscription = self._events.subscribe(workflow_id=workflow_id, after=begin)
            except OffsetGone as gone:
                if begin > gone.last:
                    raise
                begin = max(gone.first - 1, begin)  # more may go in this moment: once more
                missed = missed_event((after or 0) + 1, begin, "offset", workflow_id)
            else:
                stream = SSEStream(self, subscription, missed=missed, by_offset=True)
                if push is not None:
                    stream.loan = Loan(self._pusher, stream, subscription, push)
                return stream

    def encode(self, event: Event, place: Optional[int]) -> bytes:
        """An event on the wire; `place` becomes its id."""
        if event.id is None:
            return encode_event(event.to_json(), event=event.type.value)
        key = event.id, place
        data = self._encoded.get(key)
        if data is None:
            if len(self._encoded) >= _MOST_ENCODED:
                self._encoded = {}
            data = encode_event(event.to_json(), event=event.type.value, id=place)
            self._encoded[key] = data
        return data

    def forget(self, stream: SSEStream) -> None:
        """It is over."""
        with self._changed:
            self._open.discard(stream)
            self._changed.notify_all()

    def close(self, wait: float = 0.0) -> bool:
        """End every stream; its client is told to come back.

        Waits up to `wait` seconds until all are over; returns whether they are.
        """
        with self._changed:
            self._closed = True
            streams = list(self._open)
        for stream in streams:
            stream.end()
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, threads.bounded(wait))


class SSEStream:
    """One client's stream: an iterable of bytes for WSGI, with `close`.

    Attributes:
        place: the position it begins after, if it begins with what is new; else None.
        loan: lends it to who writes for many; None where that cannot be.
    """

    def __init__(
        self,
        streams: Streams,
        source: Source,
        *,
        place: Optional[int] = None,
        missed: Optional[Event] = None,
        by_offset: bool = False,
        only: FrozenSet[str] = frozenset(),
    ) -> None:
        self._streams = streams
        self._source = source
        self.place = place
        self.loan: Optional[Loan] = None
        self._only = only
        self._began = False
        self._missed = missed
        self._by_offset = by_offset
        self._ending = False
        self._over = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._run()
        finally:
            self.close()

    def _run(self) -> Iterator[bytes]:
        # At once, so that proxies and browsers see the headers.  A comment and no more: some
        # clients take a block of `retry` and `id` alone for an event.
        first = encode_comment("agentstream")
        yield first
        if self.loan is not None and not self.loan.is_direct(len(first)):
            self.loan = None
        if self._missed is not None:
            yield self._with_retry(self._streams.encode(self._missed, None))
        heartbeat = threads.bounded(self._streams.heartbeat)
        waits = self.loan is None
        while self._goes_on():
            data = self._next(heartbeat if waits else 0.0)
            if not data and not waits and self._goes_on():
                assert self.loan is not None
                waits = self.loan.lend(heartbeat)
                if waits:
                    continue  # what is to be done takes this thread
            waits = self.loan is None
            if data:
                yield self._with_retry(data)
            elif self._goes_on():
                yield encode_comment()
        if self._ending:
            yield f"retry: {RETRY_MS}\n\n".encode()

    def _goes_on(self) -> bool:
        return not (self._ending or self._over)

    def _with_retry(self, data: bytes) -> bytes:
        """`data`, the first of it with the time after which to come back."""
        if self._began:
            return data
        self._began = True
        return b"retry: %d\n" % RETRY_MS + data

    def _next(self, patience: float) -> bytes:
        """The events that are there, waiting for the first; b"" if none came in time."""
        pieces: List[bytes] = []
        size = 0
        until = time.monotonic() + patience
        while size < _MOST_AT_ONCE:
            try:
                # A client that has much to catch up gets it in few writes.
                event = self._source.get(0.0 if pieces else max(0.0, until - time.monotonic()))
            except Closed:
                self._over = True
                break
            if event is None:
                break
            if self._only and event.workflow_id not in self._only and event.id is not None:
                if not pieces and time.monotonic() > until:
                    break  # a long log of others' events: the client is told that it lives
                continue
            place = event.offset if self._by_offset else event.position
            pieces.append(self._streams.encode(event, place))
            size += len(pieces[-1])
        return b"".join(pieces)

    def take_now(self) -> Tuple[bytes, bool]:
        """See `pushing.Stream`; a subscription's only, while it is lent."""
        source = self._source
        assert isinstance(source, Subscription)
        pieces: List[bytes] = []
        size = 0
        goes_on = not self._ending
        while goes_on and size < _MOST_AT_ONCE:
            try:
                event = source.get_now()
            except NotLive:
                goes_on = False
                break
            if event is None:
                break
            pieces.append(self._streams.encode(event, event.offset))
            size += len(pieces[-1])
        else:
            goes_on = False
        data = b"".join(pieces)
        return (self._with_retry(data) if data else b""), goes_on

    def end(self) -> None:
        """End it, from any thread; what it has not sent, the client gets when it comes back."""
        self._ending = True
        self._source.close(0)
        loan = self.loan
        if loan is not None:
            loan.give_back()

    def close(self) -> None:
        """The client is gone, or has had it all.  WSGI servers call it."""
        self._source.close(0)
        self._streams.forget(self)
