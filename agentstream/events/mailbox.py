"""Mailbox: one subscriber's bounded queue, and the way back from it to the store.

What a publisher does here waits for nobody; what a reader does here runs in the
reader's own thread.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, FrozenSet, Mapping, Optional

from agentstream import threads
from agentstream.errors import LogError
from agentstream.events import payloads
from agentstream.events.model import TERMINAL, Event, EventType, FrozenDict

if TYPE_CHECKING:
    from agentstream.events.stream import EventStream

__all__ = ["UNKNOWN", "Callback", "Mailbox"]

logger = logging.getLogger("agentstream.events")

Callback = Callable[[Event], object]

# In a queue, where an event has its position: it has none.
_CLOSE = ("close", None, None)  # nothing comes after this
_CATCH_UP = ("catch up", None, None)  # go on from the store
_MARK = "mark"  # as the first of three: the place that follows is reached
_PAGE = 500
UNKNOWN = _UNKNOWN = sys.maxsize  # as a place: beyond all that is known
_MOST_SEEN = 1000


class _Rest:
    """Lets a callback's thread wait a little where events come by the thousand a second.

    To be woken for every one of them costs more than all else that is done with
    it, and in its turn wakes whoever else waits for the interpreter: with 256
    streams at once, a fifth of the CPU time and most of the delay.  So, once
    events have come at that pace for a while, it lets two milliseconds' worth
    of them gather.  An event that comes alone is never kept waiting.
    """

    _SECONDS = 0.002
    _PACE = 0.001  # seconds an event: what comes more slowly is waited for
    _AFTER = 16  # times in a row that the queue ran dry at that pace

    def __init__(self) -> None:
        self._since = 0.0
        self._quick = 0
        self._gate = threading.Lock()
        self._gate.acquire()

    def ran_dry(self, count: int) -> None:
        """The queue is empty, `count` events after the last time: rest, if that is worth while."""
        now = time.monotonic()
        self._quick = self._quick + 1 if now - self._since < self._PACE * count else 0
        self._since = now
        if self._quick > self._AFTER:
            self._gate.acquire(timeout=self._SECONDS)


class Mailbox:
    """What a publisher sees of a subscription, and what its reader does with it.

    It is live, and then events come through the queue; or it is behind, and
    then its reader fetches them from the store.  When little is left there, the
    reader turns it live again, notes up to where it was behind (the goal) and
    reads on to just there: what lies beyond comes through the queue.
    """

    def __init__(
        self,
        stream: EventStream,
        workflow_id: Optional[str],
        types: Optional[FrozenSet[EventType]],
        max_queue: int,
    ) -> None:
        self.workflow_id = workflow_id
        self.thread: Optional[threading.Thread] = None
        self.callback: Optional[Callback] = None
        self.cursor = 0  # the last offset (of one workflow) or position (of all) dealt with
        self.errors = 0
        self.missed = 0
        self._stream = stream
        self._types = types
        # The end is offered whether it is wanted or not: it ends the reading.
        self._offered = types if types is None or workflow_id is None else types | TERMINAL
        self._max_queue = max_queue
        self._renew_queue()
        self._page: Deque[Event] = deque()
        self._behind = False
        self._reading = False  # the reader is fetching from the store
        self._goal: Optional[int] = None  # up to where; None while it is behind
        self._newest = 0  # the last place offered while behind
        self._end_offered = False  # ... and the workflow's end was among what was offered
        self._closed = False
        self._done = False
        self._reader: Optional[int] = None
        # Of events without a position: the last offset of each workflow that was delivered.
        self._seen: Dict[str, int] = {}

    def _renew_queue(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._put, self._waiting = self._queue.put, self._queue.qsize

    # --- the publisher's side: under the stream's lock, and never waiting -------------------

    def offer(self, event: Event) -> None:
        if self._offered is not None and event[3] not in self._offered:
            return
        if not self._behind and self._waiting() < self._max_queue:
            self._put(event)
            return
        place = event[2] if self.workflow_id is None else event[1]
        self.fall_behind(_UNKNOWN if place is None else place, event[3] in TERMINAL)

    def fall_behind(self, newest: int, ended: bool) -> None:
        """From here on up to `newest`, and further while behind, read the store."""
        self._newest = max(self._newest, newest)
        self._end_offered = self._end_offered or (ended and self.workflow_id is not None)
        if not self._behind:
            self._behind = True
            self._put(_CATCH_UP)

    def mark(self, position: int) -> None:
        """All events up to `position` have been offered, with or without it."""
        if not self._behind and self._waiting() < self._max_queue:
            self._put((_MARK, position, None))

    def pass_over(self, offsets: Mapping[str, int]) -> None:
        """Of those workflows, what comes before is not wanted.  Before anything is offered."""
        self._seen.update(offsets)

    def finish(self) -> None:
        """What was offered is still delivered; then it ends.  Nothing may be offered any more."""
        if not self._closed:
            self._closed = True
            self._put(_CLOSE)

    def drop(self) -> None:
        """Nobody will read: keep nothing, and take nothing in.  Needs no lock."""
        self._behind = True
        self._renew_queue()
        self._page.clear()

    # --- the reader's side: in one thread ---------------------------------------------------

    def take(self, timeout: Optional[float] = None) -> Optional[Event]:
        """The next event; None if none came in time.

        Raises:
            StopIteration: there are no more.
            RuntimeError: another thread is reading.
        """
        me = threading.get_ident()
        if self._reader is not None and self._reader != me:
            raise RuntimeError("two threads read one subscription: subscribe once for each")
        self._reader = me
        try:
            return self._next(timeout)
        finally:
            self._reader = None

    def _next(self, timeout: Optional[float]) -> Optional[Event]:
        end = None if timeout is None else time.monotonic() + timeout
        while not self._done:
            if self._page:
                event: Any = self._page.popleft()
            elif self._reading:
                self._fetch()
                continue
            else:
                try:
                    event = threads.get_within(self._queue, timeout)
                except queue.Empty:
                    return None
                if not self._is_due(event):
                    if end is not None:
                        timeout = max(0.0, end - time.monotonic())
                    continue
            kind = event[3]
            if kind in TERMINAL and self.workflow_id is not None:
                self._done = True
            if self._types is None or kind in self._types or kind is EventType.EVENTS_MISSED:
                return event  # type: ignore[no-any-return]
        self._stream._remove(self)
        raise StopIteration

    def _is_due(self, item: Any) -> bool:
        """Look at what came through the queue; True for an event that is to be delivered."""
        place = item[2] if self.workflow_id is None else item[1]
        if place is not None:
            if place <= self.cursor:
                return False  # of another process, and read already
            self.cursor = place
            return True
        if item is _CATCH_UP:
            self._reading, self._goal = True, None
            return False
        if item is _CLOSE:
            self._done = True
            return False
        if item[0] is _MARK:
            self.cursor = max(self.cursor, item[1])
            return False
        return self._is_news(item)

    def _is_news(self, event: Event) -> bool:
        """Tell by its offset whether an event without a position has been delivered."""
        if event.offset <= self._seen.get(event.workflow_id, 0):
            return False
        self._seen[event.workflow_id] = event.offset
        if len(self._seen) > _MOST_SEEN:
            with self._stream._lock:  # the store knows the positions by now
                self.fall_behind(_UNKNOWN, False)
        return True

    def _fetch(self) -> None:
        """Read one page of the store; at its end turn live, and read on to the goal."""
        more = self._read_page()
        if self._goal is None:
            if more:
                return
            with self._stream._lock:
                self._behind = False
                self._goal, self._newest = self._newest, 0
            self._seen.clear()
            if self.cursor < self._goal:
                return
        elif more and self.cursor < self._goal:
            return
        elif self.cursor < self._goal != _UNKNOWN:
            self._tell_missed(self._goal)  # let go, and nothing kept follows
        self._reading = False
        if self._end_offered:
            self.finish()

    def _read_page(self) -> bool:
        """Put the next events on the page; False if there are none beyond them."""
        store = self._stream.store
        try:
            events = store.read(workflow_id=self.workflow_id, after=self.cursor, limit=_PAGE)
            if self._closed and self._newest == _UNKNOWN:
                self._newest = store.bounds().last
        except Exception:
            logger.exception("a subscriber could not read back what its queue had no room for")
            if self._goal == _UNKNOWN:
                self.finish()
            return False
        limit = self._goal
        if limit is None:
            limit = self._newest if self._closed else _UNKNOWN
        for event in events:
            place = event.offset if self.workflow_id is not None else event.position or 0
            if place > limit:
                return False  # it comes through the queue, or was appended after the close
            if place > self.cursor + 1:
                self._tell_missed(place - 1)
            self.cursor = place
            if event.offset <= self._seen.get(event.workflow_id, 0):
                continue
            if self._goal == _UNKNOWN:
                self._seen[event.workflow_id] = event.offset
            self._page.append(event)
        return len(events) == _PAGE

    def _tell_missed(self, last: int) -> None:
        first = self.cursor + 1
        self.missed += last - self.cursor
        self.cursor = last
        unit = "position" if self.workflow_id is None else "offset"
        data = FrozenDict(payloads.events_missed(first, last, unit))
        self._page.append(
            Event(
                None,
                0,
                None,
                EventType.EVENTS_MISSED,
                self.workflow_id or "",
                None,
                time.time(),
                data,
            )
        )

    # --- with a callback --------------------------------------------------------------------

    def start(self, callback: Callback) -> None:
        self.callback = callback
        try:
            self.thread = threads.start_thread("subscriber", self._deliver)
        except RuntimeError:
            self._stream._remove(self)
            raise LogError("no thread could be started for a subscriber") from None

    def _deliver(self) -> None:
        callback = self.callback
        assert callback is not None
        rest = _Rest()
        while True:
            live = self.workflow_id is None and not self._reading and not self._page
            event = self._deliver_live(callback, rest) if live else None
            if event is None or not self._is_due(event):
                try:
                    event = self._next(None)
                except StopIteration:
                    return
            try:
                callback(event)  # type: ignore[arg-type] # there is no timeout
            except BaseException:  # noqa: BLE001 - counted and logged
                self._note_raised(event)

    def _deliver_live(self, callback: Callback, rest: _Rest) -> Any:
        """The way of most events in short; returns the first item that may need another."""
        mine = self._queue
        get, waiting = mine.get, mine.qsize
        count = 0
        while True:
            ready = waiting()
            if not ready:
                rest.ran_dry(count)
                count, ready = 0, 1
            for _ in range(ready):
                event = get()
                place = event[2]
                if place is None or place <= self.cursor:
                    return event
                self.cursor = place
                try:
                    callback(event)
                except BaseException:  # noqa: BLE001 - counted and logged
                    self._note_raised(event)
                if mine is not self._queue:  # it has forked: this is the child
                    return None
            count += ready

    def _note_raised(self, event: Any) -> None:
        self.errors += 1
        logger.exception("a subscriber's callback raised on %s", event.id)

    def join(self, timeout: Optional[float]) -> bool:
        thread = self.thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout)
        if thread.is_alive():
            logger.warning("a subscriber's callback did not come back; it is left behind")
        return not thread.is_alive()

    def after_fork(self) -> None:
        self._reader = None
        old = self._queue
        self._renew_queue()
        if self.callback is None or self.thread is threading.current_thread():
            while not old.empty():  # an iterator goes on in the child with what it had
                self._put(old.get_nowait())
            return
        # The reader's thread stayed in the parent, and what was queued is delivered there.
        self._page.clear()
        self._behind = self._reading = False
        self._newest = 0
        if self._closed or self._end_offered:
            self._stream._remove(self)
            return
        try:
            self.start(self.callback)
        except LogError:
            logger.exception("a subscriber ends with the fork")
