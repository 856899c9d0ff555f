"""A subscription as a stream of Server-Sent Events: what one GET .../stream answers."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Deque, Iterator, Optional, Protocol, Set, Tuple

from agentstream.errors import OffsetGone
from agentstream.events.model import Event, EventType, freeze
from agentstream.events.store import EventStore
from agentstream.events.stream import EventStream
from agentstream.llm.sse import encode_comment, encode_event

__all__ = ["Streams"]

#: What a browser waits before it comes back, in milliseconds.
RETRY_MS = 1000


class Streams:
    """The streams that are open, counted and closed together.

    Args:
        events: what they show.
        most: as many as may be open at once.
        heartbeat: seconds of quiet after which a comment is sent; a client that
            is gone is noticed by it.
    """

    def __init__(self, events: EventStream, most: int, heartbeat: float) -> None:
        self._events = events
        self._most = most
        self._heartbeat = heartbeat
        self._lock = threading.Lock()
        self._open: Set[SSEStream] = set()
        self._closed = False

    def open(self, workflow_id: Optional[str], after: Optional[int]) -> Optional[SSEStream]:
        """A stream of one workflow's events, or of all; None if there are too many, or no more.

        Raises:
            OffsetGone: `after` is above the end.
        """
        with self._lock:
            if self._closed or len(self._open) >= self._most:
                return None
            source, missed = _source(self._events, workflow_id, after)
            stream = SSEStream(self, source, missed, workflow_id is not None)
            self._open.add(stream)
        return stream

    @property
    def heartbeat(self) -> float:
        return self._heartbeat

    def forget(self, stream: SSEStream) -> None:
        with self._lock:
            self._open.discard(stream)

    def __len__(self) -> int:
        return len(self._open)

    def close(self) -> None:
        """End every stream; its client is told to come back."""
        with self._lock:
            self._closed = True
            streams = list(self._open)
        for stream in streams:
            stream.end()


class Source(Protocol):
    """Where a stream's events come from; a `Subscription` is one."""

    def get(self, timeout: Optional[float]) -> Optional[Event]: ...

    def close(self, timeout: Optional[float]) -> bool: ...


class LogReader:
    """All events by their positions, from the store: a subscription's may have none yet."""

    def __init__(self, store: EventStore, after: Optional[int]) -> None:
        first, last = store.bounds()
        if after is not None and after > last:
            raise OffsetGone(f"the log ends at {last}", first=first, last=last)
        self._store = store
        self._cursor = last if after is None else after
        self._page: Deque[Event] = deque()
        self._closed = False

    def get(self, timeout: Optional[float] = None) -> Optional[Event]:
        """The next event, or None if none came in time.

        Raises:
            StopIteration: it is closed.
        """
        if not self._page:
            self._page.extend(self._store.read(after=self._cursor, limit=200))
            if not self._page and self._store.wait(self._cursor, timeout or 60.0):
                self._page.extend(self._store.read(after=self._cursor, limit=200))
        if self._closed:
            raise StopIteration
        if not self._page:
            return None
        place = self._page[0].position or 0
        if place > self._cursor + 1:
            missed = missed_event(self._cursor + 1, place - 1, "position")
            self._cursor = place - 1
            return missed
        self._cursor = place
        return self._page.popleft()

    def close(self, timeout: Optional[float] = None) -> bool:
        self._closed = True
        return True


def missed_event(first: int, last: int, unit: str) -> Event:
    """The event that says what is gone; outside the numbering."""
    data = freeze({"first": first, "last": last, "unit": unit})
    return Event(None, 0, None, EventType.EVENTS_MISSED, "", None, time.time(), data)


def _source(
    events: EventStream, workflow_id: Optional[str], after: Optional[int]
) -> Tuple[Source, Optional[Event]]:
    """Where to read on after `after`, and what to say first of what is gone."""
    if workflow_id is None:
        return LogReader(events.store, after), None
    begin = after or 0
    missed: Optional[Event] = None
    while True:
        try:
            return events.subscribe(workflow_id=workflow_id, after=begin), missed
        except OffsetGone as gone:
            if begin > gone.last:
                raise
            begin = max(gone.first - 1, begin)  # more may go in this moment: once more
            missed = missed_event((after or 0) + 1, begin, "offset")


class SSEStream:
    """One client's stream: an iterable of bytes for WSGI, with `close`."""

    def __init__(
        self,
        streams: Streams,
        source: Source,
        missed: Optional[Event],
        by_offset: bool,
    ) -> None:
        self._streams = streams
        self._source = source
        self._missed = missed
        self._by_offset = by_offset
        self._ending = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._run()
        finally:
            self.close()

    def _run(self) -> Iterator[bytes]:
        # At once, so that proxies and browsers see the headers.
        yield encode_comment("agentstream") + f"retry: {RETRY_MS}\n\n".encode()
        if self._missed is not None:
            yield self._encode(self._missed)
        while not self._ending:
            try:
                event = self._source.get(self._streams.heartbeat)
            except StopIteration:
                break
            yield encode_comment() if event is None else self._encode(event)
        if self._ending:
            yield f"retry: {RETRY_MS}\n\n".encode()

    def _encode(self, event: Event) -> bytes:
        place = event.offset if self._by_offset else event.position
        return encode_event(
            event.to_json(), event=event.type.value, id=place if event.id is not None else None
        )

    def end(self) -> None:
        """End it from another thread, with what is queued delivered."""
        self._ending = True
        self._source.close(0)

    def close(self) -> None:
        """The client is gone, or has had it all.  WSGI servers call it."""
        self._source.close(0)
        self._streams.forget(self)
