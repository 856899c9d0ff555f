"""The log by its positions, for the streams that show all runs.

A subscription hands out an event before its store has given it a position; here
events come from the store, with theirs.  One thread reads what is new for all
readers, and lives while there are any.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Deque, List, Optional, Set

from agentstream import threads
from agentstream.errors import LogError, OffsetGone
from agentstream.events import payloads
from agentstream.events.model import Event, EventType, freeze
from agentstream.events.stream import EventStream

__all__ = ["LogReader", "LogTail", "missed_event"]

logger = logging.getLogger("agentstream.web")

_WAIT_S = 0.25
_PAGE = 500
_MOST_RECENT = 1000
_RETRIES = 20


def missed_event(first: int, last: int, unit: str, workflow_id: str = "") -> Event:
    """The event that says what is gone; outside the numbering."""
    data = freeze(payloads.events_missed(first, last, unit))
    return Event(None, 0, None, EventType.EVENTS_MISSED, workflow_id, None, time.time(), data)


class LogTail:
    """What is new in a stream's store, read once for all its readers."""

    def __init__(self, events: EventStream) -> None:
        self._events = events
        self.store = events.store
        self.news = threading.Condition()
        self.last = 0  # the position up to which it has read
        self._recent: Deque[Event] = deque()  # all events after `_since`, up to `last`
        self._since = 0
        self._readers: Set[LogReader] = set()
        self._thread: Optional[threading.Thread] = None
        threads.after_fork(self)

    def open(self, after: Optional[int]) -> LogReader:
        """A reader of all events after a position; None for those from now on.

        Raises:
            OffsetGone: `after` is above the log's end.
            LogError: the log cannot be read, or no thread can be started.
        """
        if self._events._closed:
            raise LogError("the event stream is closed")
        first, last = self.store.bounds()
        if after is not None and after > last:
            raise OffsetGone(f"the log ends at {last}", first=first, last=last)
        reader = LogReader(self, last if after is None else after)
        if after is not None and last and first > after + 1:
            reader.skip(first - 1)
        with self.news:
            self._readers.add(reader)
            if self._thread is None:
                self._recent.clear()
                self._since = self.last = last
                try:
                    self._thread = threads.start_thread("log-tail", self._main)
                except RuntimeError:
                    self._readers.discard(reader)
                    raise LogError("no thread could be started to follow the log") from None
        return reader

    def close(self, reader: LogReader) -> None:
        """It reads no more."""
        with self.news:
            self._readers.discard(reader)
            self.news.notify_all()

    def recent(self, after: int) -> Optional[List[Event]]:
        """What has been read after a position; None if some of it is no longer here.

        Under `news`.
        """
        if after < self._since:
            return None
        found: List[Event] = []
        for event in reversed(self._recent):
            if (event.position or 0) <= after:
                break
            found.append(event)
        found.reverse()
        return found

    def _main(self) -> None:
        failures = 0
        while self._is_wanted():
            began = time.monotonic()
            try:
                came = self.store.wait(self.last, _WAIT_S) and self._read()
                failures = 0
            except LogError:
                came = False
                failures += 1
                if failures > _RETRIES:
                    logger.exception("the log can no longer be followed")
                    self._end()
                    return
            if not came:  # a store that is closed, or cannot be read, does not wait
                left = began + _WAIT_S - time.monotonic()
                with self.news:
                    self.news.wait_for(lambda: not self._readers, max(0.0, left))

    def _is_wanted(self) -> bool:
        if self._events._closed:
            self._end()
            return False
        with self.news:
            if self._readers:
                return True
            self._thread = None
            return False

    def _read(self) -> bool:
        events = self.store.read(after=self.last, limit=_PAGE)
        if not events:
            return False
        with self.news:
            self._recent.extend(events)
            while len(self._recent) > _MOST_RECENT:
                self._since = self._recent.popleft().position or 0
            self.last = events[-1].position or self.last
            self.news.notify_all()
        return True

    def _end(self) -> None:
        with self.news:
            self._thread = None
            for reader in self._readers:
                reader.closed = True
            self._readers.clear()
            self.news.notify_all()

    def _after_fork(self) -> None:
        self.news = threading.Condition()
        self._readers = set()
        self._thread = None


class LogReader:
    """One reader's place in the log."""

    def __init__(self, tail: LogTail, cursor: int) -> None:
        self.cursor = cursor
        self.closed = False
        self._tail = tail
        self._page: Deque[Event] = deque()

    def skip(self, last: int) -> None:
        """What comes up to `last` is gone: the next event says so."""
        self._page.append(missed_event(self.cursor + 1, last, "position"))
        self.cursor = last

    def get(self, timeout: Optional[float] = None) -> Optional[Event]:
        """The next event, or None if none came in time.

        Raises:
            StopIteration: there are no more.
        """
        if not self._page and not self._fill(timeout):
            return None
        return self._page.popleft()

    def _fill(self, timeout: Optional[float]) -> bool:
        tail = self._tail
        with tail.news:
            tail.news.wait_for(lambda: self.closed or tail.last > self.cursor, timeout)
            if self.closed:
                raise StopIteration
            events = tail.recent(self.cursor) if tail.last > self.cursor else []
        if events is None:
            events = tail.store.read(after=self.cursor, limit=_PAGE)
            if not events:  # all that was there has gone
                self.skip(tail.last)
        for event in events:
            place = event.position or 0
            if place > self.cursor + 1:
                self.skip(place - 1)
            self._page.append(event)
            self.cursor = place
        return bool(self._page)

    def close(self, timeout: Optional[float] = None) -> bool:
        """No more, from any thread; who waits in `get` is woken."""
        self.closed = True
        self._tail.close(self)
        return True
