"""A subscription as a stream of Server-Sent Events: what one GET .../stream answers."""

from __future__ import annotations

import threading
from typing import Dict, Iterator, List, Optional, Protocol, Set, Tuple

from agentstream.errors import OffsetGone
from agentstream.events.model import Event
from agentstream.events.stream import EventStream
from agentstream.llm.sse import encode_comment, encode_event
from agentstream.web.log_tail import LogTail, missed_event

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
        self._tail = LogTail(events)
        # Re-entrant: a server's signal handler may close it.
        self._changed = threading.Condition(threading.RLock())
        self._open: Set[SSEStream] = set()
        self._opening = 0
        self._closed = False
        # Many streams show the same events.
        self._encoded: Dict[Tuple[Optional[str], Optional[int]], bytes] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(self, workflow_id: Optional[str], after: Optional[int]) -> Optional[SSEStream]:
        """A stream of one workflow's events, or of all; None if there are too many, or no more.

        Raises:
            OffsetGone: `after` is above the end.
            LogError: the log cannot be read.
        """
        with self._changed:
            if self._closed or len(self._open) + self._opening >= self.most:
                return None
            self._opening += 1
        try:
            stream = self._begin(workflow_id, after)
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

    def _begin(self, workflow_id: Optional[str], after: Optional[int]) -> SSEStream:
        if workflow_id is None:
            reader = self._tail.open(after)
            # One that begins with what is new gets its place at once: if it is cut
            # off before the first event, it can still come back to it.
            return SSEStream(self, reader, place=reader.cursor if after is None else None)
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
                return SSEStream(self, subscription, missed=missed, by_offset=True)

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
            return self._changed.wait_for(lambda: not self._open, wait)


class SSEStream:
    """One client's stream: an iterable of bytes for WSGI, with `close`."""

    def __init__(
        self,
        streams: Streams,
        source: Source,
        *,
        place: Optional[int] = None,
        missed: Optional[Event] = None,
        by_offset: bool = False,
    ) -> None:
        self._streams = streams
        self._source = source
        self._place = place
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
        # At once, so that proxies and browsers see the headers.
        place = "" if self._place is None else f"id: {self._place}\n"
        yield encode_comment("agentstream") + f"retry: {RETRY_MS}\n{place}\n".encode()
        if self._missed is not None:
            yield self._streams.encode(self._missed, None)
        while not (self._ending or self._over):
            data = self._next()
            if data:
                yield data
            elif not (self._ending or self._over):
                yield encode_comment()
        if self._ending:
            yield f"retry: {RETRY_MS}\n\n".encode()

    def _next(self) -> bytes:
        """The events that are there, waiting for the first; b"" if none came in time."""
        pieces: List[bytes] = []
        size = 0
        wait = self._streams.heartbeat
        while size < _MOST_AT_ONCE:
            try:
                event = self._source.get(wait)
            except StopIteration:
                self._over = True
                break
            if event is None:
                break
            place = event.offset if self._by_offset else event.position
            pieces.append(self._streams.encode(event, place))
            size += len(pieces[-1])
            wait = 0.0  # a client that has much to catch up gets it in few writes
        return b"".join(pieces)

    def end(self) -> None:
        """End it, from any thread; what it has not sent, the client gets when it comes back."""
        self._ending = True
        self._source.close(0)

    def close(self) -> None:
        """The client is gone, or has had it all.  WSGI servers call it."""
        self._source.close(0)
        self._streams.forget(self)
