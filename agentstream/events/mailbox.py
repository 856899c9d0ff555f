"""Mailbox: one subscriber's bounded queue, and the way back from it to the store.

What a publisher does here waits for nobody; what a reader does here runs in the
reader's own thread.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, FrozenSet, List, Optional

from agentstream import threads
from agentstream.errors import LogError
from agentstream.events.model import TERMINAL, Event, EventType, FrozenDict

if TYPE_CHECKING:
    from agentstream.events.stream import EventStream

__all__ = ["Callback", "Mailbox"]

logger = logging.getLogger("agentstream.events")

Callback = Callable[[Event], object]

_CLOSE = object()  # in a queue: nothing comes after this
_CATCH_UP = object()  # in a queue: go on from the store
_PAGE = 500


class Mailbox:
    """What a publisher sees of a subscription, and what its reader does with it.

    It is live, and then events come through the queue; or it is behind, and
    then its reader fetches them from the store.  The reader turns it live again
    first and reads the rest afterwards, so that nothing falls between; what
    then comes twice, it knows by its offset.
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
        self._max_queue = max_queue
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._behind = False
        self._reading = False  # the reader is fetching from the store
        self._last_pass = False  # ... and live again
        self._page: Deque[Event] = deque()
        self._seam: Dict[str, int] = {}
        self._finished_at: Optional[float] = None
        self._newest = 0  # the last place offered while behind
        self._end_offered = False  # ... and the workflow's end was among what was offered
        self._done = False

    # --- the publisher's side: under the stream's lock, and never waiting -------------------

    def offer(self, event: Event) -> None:
        kind = event[3]
        ends = self.workflow_id is not None and kind in TERMINAL
        if self._behind:
            place = event[1] if self.workflow_id is not None else event[2]
            self._newest = place or self._newest
            self._end_offered = self._end_offered or ends
            return
        if self._types is not None and kind not in self._types and not ends:
            return
        if self._queue.qsize() >= self._max_queue:
            self.fall_behind()
        else:
            self._queue.put(event)

    def fall_behind(self) -> None:
        self._behind = True
        self._queue.put(_CATCH_UP)

    def finish(self) -> None:
        """What is queued is still delivered; then it ends."""
        if self._finished_at is None:
            self._finished_at = time.time()
            self._queue.put(_CLOSE)

    # --- the reader's side: in one thread ---------------------------------------------------

    def take(self, timeout: Optional[float] = None) -> Optional[Event]:
        """The next event; None if none came in time.

        Raises:
            StopIteration: there are no more.
        """
        while not self._done:
            if self._page:
                event: Any = self._page.popleft()
            elif self._reading:
                self._fetch()
                continue
            else:
                try:
                    event = self._queue.get(timeout=timeout)
                except queue.Empty:
                    return None
                if event is _CATCH_UP:
                    self._reading, self._last_pass = True, False
                    continue
                if event is _CLOSE:
                    break
                if self._was_read(event):
                    continue
                self._advance(event)
            kind = event[3]
            if self.workflow_id is not None and kind in TERMINAL:
                self._done = True
            if self._types is None or kind in self._types or kind is EventType.EVENTS_MISSED:
                return event  # type: ignore[no-any-return]
        self._done = True
        self._stream._remove(self)
        raise StopIteration

    def _advance(self, event: Event) -> None:
        place = event[1] if self.workflow_id is not None else event[2]
        if place is not None:
            self.cursor = place

    def _was_read(self, event: Event) -> bool:
        """True if an event in the queue came out of the store already."""
        place = event[1] if self.workflow_id is not None else event[2]
        if place is not None:
            return place <= self.cursor
        return event[1] <= self._seam.get(event[4], 0)

    def _fetch(self) -> None:
        """Read one page of the store; at its end turn live, and read once more."""
        if not self._last_pass:
            events = self._read_page()
            if len(events) < _PAGE:
                with self._stream._lock:
                    self._behind = False
                self._last_pass = True
                self._seam.clear()
            return
        events = self._read_page()
        for event in events:
            self._seam[event.workflow_id] = event.offset
        if len(events) < _PAGE:
            self._reading = False
            if self.cursor < self._newest:  # gone from the store, and nothing kept follows
                self._tell_missed(self.cursor + 1, self._newest)
                if self._end_offered:
                    self.finish()

    def _read_page(self) -> List[Event]:
        store = self._stream.store
        try:
            events = store.read(workflow_id=self.workflow_id, after=self.cursor, limit=_PAGE)
        except LogError:
            logger.exception("a subscriber could not read back what its queue had no room for")
            self.finish()
            return []
        for event in events:
            if self._finished_at is not None and event.timestamp > self._finished_at:
                return []  # appended after the close
            place = event.offset if self.workflow_id is not None else event.position or 0
            if place > self.cursor + 1:
                self._tell_missed(self.cursor + 1, place - 1)
            self.cursor = place
            self._page.append(event)
        return events

    def _tell_missed(self, first: int, last: int) -> None:
        self.missed += last - first + 1
        unit = "position" if self.workflow_id is None else "offset"
        data = FrozenDict({"first": first, "last": last, "unit": unit})
        self.cursor = last
        self._page.append(
            Event(None, 0, None, EventType.EVENTS_MISSED, self.workflow_id or "", None,
                  time.time(), data)
        )  # fmt: skip

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
        while True:
            try:
                event = self.take()
            except StopIteration:
                return
            assert event is not None
            try:
                callback(event)
            except BaseException:
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
        # The reader's thread stayed in the parent, and with it what was queued.
        finished = self._finished_at is not None
        self._queue = queue.SimpleQueue()
        self._page.clear()
        self._behind = self._reading = False
        if finished:
            self._queue.put(_CLOSE)
        elif self.thread is not None and self.callback is not None:
            self.start(self.callback)
