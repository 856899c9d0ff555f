"""Tails: threads that read a store's log as it grows, while somebody wants it.

`StreamTail` brings to a stream's subscribers what other processes append;
`LogTail` hands out the whole log by its positions, which a subscription does
not: it has an event before its store has placed it.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from typing import AbstractSet, Any, Callable, Deque, FrozenSet, List, Optional, Set, Tuple

from agentstream import threads
from agentstream.errors import Closed, LogError, OffsetGone
from agentstream.events.mailbox import missed_event
from agentstream.events.model import Event
from agentstream.events.store import EventStore
from agentstream.events.subscribers import Subscribers

__all__ = ["LogReader", "LogTail", "StreamTail"]

logger = logging.getLogger("agentstream.events")

_WAIT_S = 0.25  # within which a tail notices that nobody wants it any more
_PAGE = 500
_MOST_RECENT = 1000
_RETRIES = 20


class Tail(ABC):
    """Reads a store's log from its end on, in a thread: setup, running, teardown.

    Attributes:
        store: what it reads.
        lock: guards whatever the events are handed to.
        is_closed: true once nothing more is to be read.
        position: up to where it has read.
    """

    def __init__(
        self, name: str, store: EventStore, lock: Any, is_closed: Callable[[], bool]
    ) -> None:
        self.store = store
        self.lock = lock
        self.is_closed = is_closed
        self.position = 0
        self._name = name
        self._thread: Optional[threading.Thread] = None

    # --- setup: from any thread, and without the lock ---------------------------------------

    def start(self) -> None:
        """Read on from the log's end, if nobody does yet.

        Raises:
            LogError: the store cannot be read, or no thread can be started.
        """
        if self.is_running():
            return
        last = self.store.bounds().last  # it may take its time: whoever publishes does not wait
        with self.lock:
            if self.is_running():
                return
            self.position = last
            self._begin()
            try:
                self._thread = threads.start_thread(self._name, self._main)
            except RuntimeError:
                raise LogError("no thread could be started to follow the log") from None

    def is_running(self) -> bool:
        """True while its thread reads."""
        return self._thread is not None

    def join(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for the thread, which nobody wants any more."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    # --- running ----------------------------------------------------------------------------

    def _main(self) -> None:
        failures = 0
        while self._goes_on():
            began = time.monotonic()
            try:
                self.store.wait(self.position, _WAIT_S)
                moved = self._read()
                failures = 0
            except LogError as error:
                moved = False
                failures += not error.retryable  # a server that is away comes back
                if failures > _RETRIES:
                    logger.exception("the log can no longer be followed")
                    break
            left = began + _WAIT_S - time.monotonic()
            if not moved and left > 0:  # a store that is closed, or cannot be read, does not wait
                threading.Event().wait(left)
        self._end(failed=failures > _RETRIES)

    def _goes_on(self) -> bool:
        with self.lock:
            if self._is_wanted() and not self.is_closed():
                return True
            self._thread = None
            return False

    # --- teardown, and what the two do differently ------------------------------------------

    def _end(self, *, failed: bool) -> None:
        if failed:
            with self.lock:
                self._thread = None
        if failed or self.is_closed():
            self._give_up()

    def _begin(self) -> None:  # noqa: B027 - one needs nothing
        """Under the lock: `position` is set, the thread about to start."""

    @abstractmethod
    def _is_wanted(self) -> bool:
        """Under the lock: somebody still reads."""

    @abstractmethod
    def _read(self) -> bool:
        """Read a page, hand it out, move `position`; False if it did not move."""

    @abstractmethod
    def _give_up(self) -> None:
        """Tell whoever still reads that nothing more will come."""


class StreamTail(Tail):
    """Offers to a stream's subscribers what other processes append to its store.

    Args:
        store: a shared one.
        lock: the stream's.
        subscribers: whom to offer it to.
        is_closed: true once the stream takes no more events.
        leave: called with each mailbox if the log can no longer be read.
        sweep: unregisters those whose readers are gone.
    """

    def __init__(
        self,
        store: EventStore,
        lock: Any,
        subscribers: Subscribers,
        *,
        is_closed: Callable[[], bool],
        leave: Callable[[Any], object],
        sweep: Callable[[], object],
    ) -> None:
        super().__init__("follower", store, lock, is_closed)
        self._subscribers = subscribers
        self._leave = leave
        self._sweep = sweep
        # A store that somebody wrote for 0.1 does not.
        self._takes_only = "only" in inspect.signature(store.read_others).parameters

    def _goes_on(self) -> bool:
        self._sweep()
        return super()._goes_on()

    def _is_wanted(self) -> bool:
        return bool(self._subscribers)

    def _read(self) -> bool:
        with self.lock:
            only = self._subscribers.wanted()
        try:
            events, position = self._read_others(only)
        except OffsetGone as gone:  # trimmed while this process was suspended, or too slow
            position = gone.first - 1
            with self.lock:
                self._subscribers.miss(self.position + 1, position)
                self.position = max(self.position, position)
            return True
        with self.lock:
            self._subscribers.offer_read(events)
            if position <= self.position:
                return False
            if only is not None and not self._subscribers.are_within(only):
                return True  # somebody has come since, whose events are among those passed by
            self.position = position
            self._subscribers.reach(position)
            return True

    def _read_others(self, only: Optional[AbstractSet[str]]) -> Tuple[List[Event], int]:
        if only is None or not self._takes_only:
            return self.store.read_others(self.position, _PAGE)
        return self.store.read_others(self.position, _PAGE, only=only)

    def _give_up(self) -> None:
        if not self.is_closed():
            self._subscribers.each(self._leave)

    def after_fork(self) -> None:
        """In the child: the thread stayed in the parent."""
        started, self._thread = self._thread is not None, None
        if started and self._subscribers:
            self.start()


class LogTail(Tail):
    """What is new in a store, read once for all its readers.

    Args:
        store: any.
        is_closed: true once nothing more will be read.
    """

    def __init__(self, store: EventStore, is_closed: Callable[[], bool]) -> None:
        self.lock = threading.RLock()
        super().__init__("log-tail", store, self.lock, is_closed)
        self._recent: Deque[Event] = deque()  # all events after `_since`, up to `position`
        self._since = 0
        self._readers: Set[LogReader] = set()
        threads.after_fork(self)

    def open(self, after: Optional[int], only: FrozenSet[str] = frozenset()) -> LogReader:
        """A reader of all events after a position; None for those from now on.

        One who wants `only` those of some workflows is not woken by others'; some of these
        come to it all the same.

        Raises:
            OffsetGone: `after` is above the log's end.
            LogError: the log cannot be read, or no thread can be started.
        """
        if self.is_closed():
            raise LogError("the event stream is closed")
        reader = LogReader(self, only)
        with self.lock:
            self._readers.add(reader)
        try:
            self.start()
            first, last = self.store.bounds()
            if after is not None and after > last:
                raise OffsetGone(f"the log ends at {last}", first=first, last=last)
        except BaseException:
            self.close(reader)
            raise
        reader.cursor = last if after is None else after
        if after is not None and last and first > after + 1:
            reader.skip(first - 1)
        return reader

    def close(self, reader: LogReader) -> None:
        """It reads no more."""
        with self.lock:
            self._readers.discard(reader)
            reader.news.notify_all()

    def recent(self, after: int) -> Optional[List[Event]]:
        """What has been read after a position; None if some of it is no longer here.

        Under the lock.
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

    def _begin(self) -> None:
        self._recent.clear()
        self._since = self.position

    def _is_wanted(self) -> bool:
        return bool(self._readers)

    def _read(self) -> bool:
        events = self.store.read_new(self.position, _PAGE)
        if not events:
            return False
        with self.lock:
            self._recent.extend(events)
            while len(self._recent) > _MOST_RECENT:
                self._since = self._recent.popleft().position or 0
            before, self.position = self.position, events[-1].position or self.position
            whole = self.position - before == len(events)  # else they are to be told of a gap
            runs = {event.workflow_id for event in events}
            for reader in self._readers:
                if not (whole and reader.passes(before, self.position, runs)):
                    reader.news.notify_all()
            return True

    def _give_up(self) -> None:
        with self.lock:
            for reader in self._readers:
                reader.closed = True
                reader.news.notify_all()
            self._readers.clear()

    def _after_fork(self) -> None:
        self.lock = threading.RLock()
        self._readers = set()
        self._thread = None


class LogReader:
    """One reader's place in the log.

    Attributes:
        cursor: the position up to which it has been given events, or wanted none.
        news: notified when some have come; over the tail's lock.
    """

    def __init__(self, tail: LogTail, only: FrozenSet[str] = frozenset()) -> None:
        self.cursor = 0
        self.closed = False
        self.news = threading.Condition(tail.lock)
        self._only = only
        self._waits = False
        self._tail = tail
        self._page: Deque[Event] = deque()

    def skip(self, last: int) -> None:
        """What comes up to `last` is gone: the next event says so."""
        self._page.append(missed_event(self.cursor + 1, last, "position"))
        self.cursor = last

    def get(self, timeout: Optional[float] = None) -> Optional[Event]:
        """The next event, or None if none came within `timeout` seconds.

        Raises:
            Closed: there are no more.
        """
        if not self._page and not self._fill(timeout):
            return None
        return self._page.popleft()

    def passes(self, before: int, position: int, runs: Set[str]) -> bool:
        """True if it waits, and events of these workflows are nothing to it: it has passed them.

        Under the lock.
        """
        if not (self._waits and self._only and self.cursor == before):
            return False
        if not self._only.isdisjoint(runs):
            return False
        self.cursor = position
        return True

    def _fill(self, timeout: Optional[float]) -> bool:
        tail = self._tail
        with self.news:
            within = None if timeout is None else threads.bounded(timeout)
            self._waits = True
            try:
                self.news.wait_for(lambda: self.closed or tail.position > self.cursor, within)
            finally:
                self._waits = False
            if self.closed:
                raise Closed("the log is read no more")
            events = tail.recent(self.cursor) if tail.position > self.cursor else []
        if events is None:
            events = tail.store.read(after=self.cursor, limit=_PAGE)
            if not events:  # all that was there has gone
                self.skip(tail.position)
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
