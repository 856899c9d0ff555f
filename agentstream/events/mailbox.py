"""Mailbox: one subscriber's bounded queue, and the way back from it to the store.

What a publisher does here waits for nobody; what a reader does here runs in the
reader's own thread.  A mailbox knows its store, the lock of whoever offers it
events, and how to leave; it knows no stream.
"""

from __future__ import annotations

import functools
import logging
import queue
import sys
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, FrozenSet, Optional

from agentstream import threads
from agentstream.errors import Closed, LogError
from agentstream.events import payloads
from agentstream.events.gathering import Gathering
from agentstream.events.lock import StreamLock
from agentstream.events.model import TERMINAL, Event, EventType, FrozenDict
from agentstream.events.raised import Raised
from agentstream.events.store import EventStore

__all__ = ["UNKNOWN", "Callback", "Mailbox", "NotLive", "missed_event"]

logger = logging.getLogger("agentstream.events")

Callback = Callable[[Event], object]

# In a queue, where an event has its position: it has none.
_CLOSE = ("close", None, None)  # nothing comes after this
_CATCH_UP = ("catch up", None, None)  # go on from the store
_REACHED = "reached"  # (_REACHED, None, None, position): all up to there has been offered
_GONE = "gone"  # (_GONE, None, None, first, last): nobody can have those any more
_PAGE = 500
UNKNOWN = sys.maxsize  # as a place: beyond all that is known
_MOST_SEEN = 1000


def missed_event(first: int, last: int, unit: str, workflow_id: str = "") -> Event:
    """The event that says what is gone; outside the numbering."""
    data = FrozenDict(payloads.events_missed(first, last, unit))
    return Event(None, 0, None, EventType.EVENTS_MISSED, workflow_id, None, time.time(), data)


def _put_and_ring(put: Callable[[Any], None], bell: Callable[[], object], item: Any) -> None:
    put(item)
    bell()


class NotLive(Exception):
    """What comes next is not in the queue: the store is to be read, or there is no more."""


class Mailbox:
    """What a publisher sees of a subscription, and what its reader does with it.

    It is live, and then events come through the queue; or it is behind, and
    then its reader fetches them from the store.  When little is left there, the
    reader turns it live again, notes up to where it was behind (the goal) and
    reads on to just there: what lies beyond comes through the queue.

    A new one is behind, and keeps its reader waiting until `begin`: so it may
    be offered events while the store is asked where it begins.

    Args:
        store: where it reads what its queue had no room for.
        lock: held by whoever offers it something.
        leave: called with it when its reader has had the last event.
        workflow_id: of one workflow's events; None for all.
        types: the types to deliver; None for all.
        max_queue: events that may wait in the queue.
    """

    def __init__(
        self,
        store: EventStore,
        lock: StreamLock,
        leave: Callable[[Mailbox], object],
        *,
        workflow_id: Optional[str],
        types: Optional[FrozenSet[EventType]],
        max_queue: int,
    ) -> None:
        self.workflow_id = workflow_id
        self.thread: Optional[threading.Thread] = None
        self.callback: Optional[Callback] = None
        self.cursor = 0  # the last offset (of one workflow) or position (of all) dealt with
        self.missed = 0
        self._raised = Raised()
        self._store = store
        self._lock = lock
        self._leave = leave
        self._types = types
        # The end is offered whether it is wanted or not: it ends the reading.
        self._offered = types if types is None or workflow_id is None else types | TERMINAL
        self._max_queue = max_queue
        self._renew_queue()
        self._page: Deque[Event] = deque()
        self._behind = True
        self._reading = False  # the reader is fetching from the store
        self._goal: Optional[int] = None  # up to where; None while it is behind
        self._newest = 0  # the last place offered while behind
        self._tail = 0  # the last offset that a tail of the log has brought
        self._end_offered = False  # ... and the workflow's end was among what was offered
        self._closed = False
        self._done = False
        self._reader: Optional[int] = None
        # Of events without a position: the last offset of each workflow that was delivered.
        self._seen: Dict[str, int] = {}
        self._had = 0  # all up to this position was delivered, if nobody else writes to the log
        self._settled: Optional[int] = 0  # the cursor as left by no other's event; None: there was

    def _renew_queue(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._put: Callable[[Any], None] = self._queue.put
        self._waiting = self._queue.qsize

    # --- the publisher's side: under the lock, and never waiting ----------------------------

    def begin(self, cursor: int, last: int, ended: bool) -> None:
        """Deliver what comes after `cursor`, of a log that goes to `last`."""
        self.cursor = cursor
        self._tail = max(self._tail, last)
        self._end_offered = self._end_offered or ended
        if cursor < last or self._newest:
            self._newest = max(self._newest, last)
            self._put(_CATCH_UP)
        else:
            self._behind = False
            if ended:
                self.finish()

    def offer(self, event: Event) -> None:
        """Put an event into the queue, or note that the store has it."""
        if self._offered is not None and event[3] not in self._offered:
            return
        if not self._behind and self._waiting() < self._max_queue:
            self._put(event)
            return
        place = event[2] if self.workflow_id is None else event[1]
        self.fall_behind(UNKNOWN if place is None else place, event[3] in TERMINAL)

    def offer_read(self, event: Event) -> None:
        """`offer` for one that a tail has read: of a workflow, those before it may be gone."""
        offset = event[1]
        if self.workflow_id is not None and offset > self._tail:
            if offset > self._tail + 1:
                self.miss(self._tail + 1, offset - 1)
            self._tail = offset
        self.offer(event)

    def miss(self, first: int, last: int) -> None:
        """Nobody can have the events of these places any more, and some were to be offered."""
        if not self._behind:  # else its reader finds out
            self._put((_GONE, None, None, first, last))

    def fall_behind(self, newest: int, ended: bool) -> None:
        """From here on up to `newest`, and further while behind, read the store."""
        self._newest = max(self._newest, newest)
        if self.workflow_id is not None and newest != UNKNOWN:
            self._tail = max(self._tail, newest)  # what is missing up to there, its reader finds
        self._end_offered = self._end_offered or (ended and self.workflow_id is not None)
        if not self._behind:
            self._behind = True
            self._put(_CATCH_UP)

    def note_own(self, offset: int) -> None:
        """Its workflow has come to `offset` in this process: no tail brings what was before."""
        self._tail = max(self._tail, offset)

    def reach(self, position: int) -> None:
        """Raise the high-water mark: all events up to `position` were offered, or unwanted."""
        if not self._behind and self._waiting() < self._max_queue:
            self._put((_REACHED, None, None, position))

    def finish(self) -> None:
        """Deliver what was offered, then end.  Nothing may be offered any more."""
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
            Closed: there are no more.
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
        end = None if timeout is None else time.monotonic() + threads.bounded(timeout)
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
        self._leave(self)
        raise Closed("the subscription has ended")

    def take_now(self) -> Optional[Event]:
        """The next event if it is in the queue; None if nothing is.

        Raises:
            NotLive: `take` has to go on.
        """
        while not (self._reading or self._page or self._done):
            try:
                event: Any = self._queue.get_nowait()
            except queue.Empty:
                return None
            if not self._is_due(event):
                continue
            kind = event[3]
            self._done = kind in TERMINAL and self.workflow_id is not None
            if self._types is None or kind in self._types:
                return event  # type: ignore[no-any-return]
        raise NotLive

    def ring(self, bell: Optional[Callable[[], object]]) -> None:
        """Have `bell` called with all that is put into the queue from now on; None: no more.

        Publishers call it, under the lock: it may wait for nothing.
        """
        with self._lock.after, self._lock.lock:
            put = self._put = self._queue.put
            if bell is not None:
                self._put = functools.partial(_put_and_ring, put, bell)

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
        if item[0] is _REACHED:
            if self._settled == self.cursor:
                self._settled = max(self.cursor, item[3])
            self.cursor = max(self.cursor, item[3])
            return False
        if item[0] is _GONE:
            self._tell_missed(item[3], item[4])
            return False
        return self._is_news(item)

    def _is_news(self, event: Event) -> bool:
        """Tell by its offset whether an event without a position has been delivered."""
        if event.offset <= self._seen.get(event.workflow_id, 0):
            return False
        self._seen[event.workflow_id] = event.offset
        if self._settled == self.cursor:
            self._had = max(self._had, self.cursor) + 1
        else:  # an event with a position has moved it, which another process has written
            self._settled = None
        if len(self._seen) > _MOST_SEEN:
            with self._lock.after, self._lock.lock:  # the store knows the positions by now
                self.fall_behind(UNKNOWN, False)
        return True

    def _fetch(self) -> None:
        """Read one page of the store; at its end turn live, and read on to the goal."""
        missed = self.missed
        more = self._read_page()
        if self._goal is None:
            if more:
                return
            with self._lock.after, self._lock.lock:
                # In this order: a signal handler may close it in between.
                self._behind = False
                self._goal = self._newest
            self._seen.clear()
            if self.cursor < self._goal:
                return
        elif self._goal == UNKNOWN and missed < self.missed:
            self._read_again()
            return
        elif more and self.cursor < self._goal:
            return
        elif self.cursor < self._goal != UNKNOWN:
            self._tell_missed(self.cursor + 1, self._goal)  # let go, and nothing kept follows
        self._reading = False
        if self._end_offered:
            self.finish()

    def _read_again(self) -> None:
        """Be behind once more, and leave to the store what is queued.

        The queue may hold events whose places nobody knows, and which the store has let
        go: delivered now, they would come behind later ones, and were told as missed.
        """
        queued = self._queue
        with self._lock.after, self._lock.lock:
            self._behind, self._newest = True, UNKNOWN
            for _ in range(queued.qsize()):
                if queued.get_nowait() is _CLOSE:
                    queued.put(_CLOSE)
        self._goal = None

    def _read_page(self) -> bool:
        """Put the next events on the page; False if there are none beyond them."""
        store = self._store
        try:
            events = store.read(workflow_id=self.workflow_id, after=self.cursor, limit=_PAGE)
            if self._closed and self._newest == UNKNOWN:
                self._newest = store.bounds().last
        except Exception:
            logger.exception("a subscriber could not read back what its queue had no room for")
            if self._goal == UNKNOWN:
                self.finish()
            return False
        settled = self._settled == self.cursor
        limit = self._goal
        if limit is None:
            limit = self._newest if self._closed else UNKNOWN
        for event in events:
            place = event.offset if self.workflow_id is not None else event.position or 0
            if place > limit:
                return False  # it comes through the queue, or was appended after the close
            if place > self.cursor + 1:
                self._tell_missed(self.cursor + 1, place - 1)
            self.cursor = place
            if settled:
                self._settled = place
            if event.offset <= self._seen.get(event.workflow_id, 0):
                continue
            if self._goal == UNKNOWN:
                self._seen[event.workflow_id] = event.offset
            self._page.append(event)
        return len(events) == _PAGE

    def _tell_missed(self, first: int, last: int) -> None:
        """Have the reader told that what it has not had of these places is gone."""
        first = max(first, self.cursor + 1)
        if self.workflow_id is None and self._settled is not None:
            first = max(first, self._had + 1)
        if last < first:
            return
        self.missed += last - first + 1
        if self._settled == self.cursor:
            self._settled = last
        self.cursor = last
        unit = "position" if self.workflow_id is None else "offset"
        self._page.append(missed_event(first, last, unit, self.workflow_id or ""))

    # --- with a callback --------------------------------------------------------------------

    def start(self, callback: Callback) -> None:
        self.callback = callback
        try:
            self.thread = threads.start_thread("subscriber", self._deliver)
        except RuntimeError:
            self._leave(self)
            raise LogError("no thread could be started for a subscriber") from None

    def _deliver(self) -> None:
        callback = self.callback
        assert callback is not None
        rest = Gathering()
        while True:
            live = self.workflow_id is None and not self._reading and not self._page
            event = self._deliver_live(callback, rest) if live else None
            if event is None or not self._is_due(event):
                try:
                    event = self._next(None)
                except Closed:
                    self._raised.end()
                    return
            try:
                callback(event)  # type: ignore[arg-type] # there is no timeout
            except BaseException as error:  # noqa: BLE001 - counted and logged
                self._raised.add(error, event.id)  # type: ignore[union-attr]

    def _deliver_live(self, callback: Callback, rest: Gathering) -> Any:
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
                except BaseException as error:  # noqa: BLE001 - counted and logged
                    self._raised.add(error, event.id)
                if mine is not self._queue:  # it has forked: this is the child
                    return None
            count += ready

    @property
    def errors(self) -> int:
        """How often the callback raised."""
        return self._raised.count

    def join(self, timeout: Optional[float]) -> bool:
        thread = self.thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(None if timeout is None else threads.bounded(timeout))
        if thread.is_alive():
            logger.warning("a subscriber's callback did not come back; it is left behind")
        return not thread.is_alive()

    def after_fork(self) -> None:
        """Go on in the child."""
        self._reader = None
        self._tail = UNKNOWN  # what was told to the parent is no gap
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
            self._leave(self)
            return
        try:
            self.start(self.callback)
        except LogError:
            logger.exception("a subscriber ends with the fork")
