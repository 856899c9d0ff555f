"""Follower: brings to a stream's subscribers what other processes append to its store.

A thread that lives while there are subscribers.  What this process appends, its
subscribers have had at once; here they only learn how far the whole log has come.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, List, Optional

from agentstream import threads
from agentstream.errors import LogError
from agentstream.events.model import Event

if TYPE_CHECKING:
    from agentstream.events.stream import EventStream

__all__ = ["Follower"]

logger = logging.getLogger("agentstream.events")

_WAIT_S = 0.25  # how long it takes to notice that there are no more subscribers
_PAGE = 500
_RETRIES = 20


class Follower:
    """Reads a shared store for a stream."""

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream
        self._thread: Optional[threading.Thread] = None
        self._position = 0

    def start(self) -> None:
        """Follow from the log's end on, while there are subscribers.  Under the stream's lock.

        Raises:
            LogError: the store cannot be read, or no thread can be started.
        """
        if self._thread is None:
            self._position = self._stream.store.bounds().last
            try:
                self._thread = threads.start_thread("follower", self._main)
            except RuntimeError:
                raise LogError("no thread could be started to follow the log") from None

    def join(self, timeout: float) -> None:
        """Wait for the thread, of a stream that is closed."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def after_fork(self) -> None:
        """In the child: the thread stayed in the parent."""
        started, self._thread = self._thread is not None, None
        if started and self._stream._mailboxes():
            self.start()

    def _main(self) -> None:
        store = self._stream.store
        failures = 0
        while self._is_wanted():
            try:
                store.wait(self._position, _WAIT_S)
                self._offer(*store.read_others(self._position, _PAGE))
                failures = 0
            except LogError:
                failures += 1
                if failures > _RETRIES:
                    logger.exception("the log can no longer be followed")
                    self._give_up()
                    return
                threading.Event().wait(_WAIT_S)

    def _is_wanted(self) -> bool:
        stream = self._stream
        with stream._lock:
            stream._sweep()
            if stream._mailboxes() and not stream._closed:
                return True
            self._thread = None
            return False

    def _offer(self, events: List[Event], position: int) -> None:
        stream = self._stream
        with stream._lock:
            for event in events:
                for mailbox in stream._everything:
                    mailbox.offer(event)
                for mailbox in stream._by_workflow.get(event.workflow_id, ()):
                    mailbox.offer(event)
            if position > self._position:
                self._position = position
                for mailbox in stream._everything:
                    mailbox.mark(position)

    def _give_up(self) -> None:
        stream = self._stream
        with stream._lock:
            self._thread = None
            mailboxes = stream._mailboxes()
        for mailbox in mailboxes:
            stream._remove(mailbox, close=True)
