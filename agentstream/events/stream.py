"""EventStream: the queue-based observer bus.

The one place where events cross threads.  A publisher gives an event its
offset, keeps it, and puts it into each subscription's queue, all under one lock
and none of it waiting for anybody; a subscriber takes it out in its own thread.
A queue is bounded: what it cannot take, its reader fetches from the store, and
what the store has let go, it is told about.

A store that does not answer holds up who asks it, and nobody else: it is asked
without the lock, and what was published meanwhile is looked at afterwards.

What a signal handler appends or closes in the middle of its thread's own append, that
thread does when it is through (lock.py).
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any, Iterable, Mapping, Optional, Tuple, Union

from agentstream import checks, threads
from agentstream.errors import LogError, OffsetGone
from agentstream.events.checkpoints import Entry
from agentstream.events.entry import check_entry_type, check_id, check_type
from agentstream.events.mailbox import Callback, Mailbox
from agentstream.events.memory import MemoryStore
from agentstream.events.model import RELEASING, Event, EventType
from agentstream.events.publishing import Publishing
from agentstream.events.run_log import RunLog
from agentstream.events.store import EventStore
from agentstream.events.subscription import CLOSE_S, Subscription

if TYPE_CHECKING:
    from agentstream.events.tail import StreamTail

__all__ = ["EventStream", "RunLog", "Subscription"]


class EventStream(Publishing):
    """A log of events with subscribers.

    Args:
        store: where events are kept; default `MemoryStore()`.
        keep_inputs: keep what runs are given, beside their events, as `RunState.input`:
            the page of runs shows it.  Events never hold it.
    """

    _exit_order = 1  # after the runtimes, whose last events it delivers

    def __init__(self, store: Optional[EventStore] = None, *, keep_inputs: bool = True) -> None:
        checks.instance("store", store, EventStore, optional=True)
        super().__init__(
            store or MemoryStore(), keep_inputs=checks.flag("keep_inputs", keep_inputs)
        )
        self._tail: Optional[StreamTail] = None
        if self.store.shared:
            from agentstream.events.tail import StreamTail  # noqa: PLC0415 - memory has no others

            self._tail = StreamTail(
                self.store,
                self._lock,
                self._subscribers,
                is_closed=lambda: self._closed,
                leave=self._finish,
                sweep=self._lock.catch_up,
            )
        self.store.publish_through(self._publish_own)
        threads.after_fork(self)
        threads.after_fork(self.store)
        threads.at_exit(self)

    def __repr__(self) -> str:
        return f"<EventStream over {self.store!r}>"

    @property
    def closed(self) -> bool:
        """True once it takes no more events."""
        return self._closed

    @property
    def subscribers(self) -> int:
        """Subscriptions that are open."""
        return len(self._subscribers)

    @property
    def missed(self) -> int:
        """Events that subscriptions have missed, of those that were closed too."""
        return self._subscribers.missed

    # --- writing ----------------------------------------------------------------------------

    def open_log(self, workflow_id: str, parent_workflow_id: Optional[str] = None) -> RunLog:
        """Begin a workflow's log; its caller is its one owner.

        Raises:
            ConfigError: an id is no text that can be kept: of 1 to 256 characters, in UTF-8.
            LogError: the store has events of that workflow already, or it has another owner.
        """
        return self._open(workflow_id, parent_workflow_id)

    def reopen_log(self, workflow_id: str) -> Tuple[RunLog, Entry]:
        """Take a run that was left, suspended or interrupted, and go on with its log.

        Returns the log, whose next event has the offset after `Entry.last`, and what its
        store has kept of the run (`CheckpointStore.resume`).  `RunLog.reopen_child` goes
        on with those of `Entry.inner`.

        Raises:
            ConfigError: the id is none.
            Busy: a living process has the run.
            LogError: there is no such run, it has ended or cannot be resumed, or the
                store keeps no checkpoints.
        """
        workflow_id = check_id("workflow_id", workflow_id)
        if self._closed:
            raise LogError("the event stream is closed")
        if self.store.checkpoints is None:
            raise LogError(f"{self.store!r} keeps no checkpoints: no run in it can be resumed")
        entry = self.store.checkpoints.resume(workflow_id)
        state = self.store.run(workflow_id)
        parent = None if state is None else state.parent_workflow_id
        return self._reopen(workflow_id, parent, entry.last), entry

    def note_input(self, workflow_id: str, text: str) -> None:
        """See `RunLog.note_input`."""
        self._note_input(workflow_id, text)

    def append(
        self,
        type: Union[EventType, str],
        workflow_id: str,
        data: Optional[Mapping[str, Any]] = None,
        *,
        parent_workflow_id: Optional[str] = None,
    ) -> Event:
        """Append an event of your own to a workflow's log; returns it as it was kept.

        The first one begins the log, a terminal one ends it.  Called by a signal
        handler: see `RunLog.append`.

        Raises:
            ConfigError: there is no such type, it is no part of a log, or an id is no
                text that can be kept: of 1 to 256 characters, in UTF-8.
            LogError: the workflow has ended or has another owner, the data cannot
                be kept, or the stream is closed.
        """
        kind = check_entry_type(type)
        event = self._log_of(workflow_id, parent_workflow_id).append(kind, data or {})
        if event is None or (kind in RELEASING and event.id is not None):
            with self._lock.after, self._lock.lock:
                self._recent.pop(str.__str__(workflow_id), None)
        if event is None:
            raise LogError(f"workflow {workflow_id!r} has ended: its log takes no more events")
        return event

    # --- reading ----------------------------------------------------------------------------

    def subscribe(
        self,
        callback: Optional[Callback] = None,
        *,
        types: Optional[Iterable[Union[EventType, str]]] = None,
        workflow_id: Optional[str] = None,
        after: Optional[int] = None,
        max_queue: int = 1024,
    ) -> Subscription:
        """Subscribe to what is appended from now on, or from an offset on.

        With a callback, it is called with each event in a thread of its own;
        what it raises is logged and counted (`Subscription.errors`).  Without
        one, iterate the subscription.  One of a single workflow ends after the
        terminal event; one of all ends when it or the stream is closed.

        Args:
            callback: takes an `Event`.
            types: only these.
            workflow_id: only this workflow's; default all.
            after: the offset (of one workflow) or the position (of all) after
                which to begin; 0 for everything.
            max_queue: events that may wait in memory; further ones are read back
                from the store, and `events_missed` tells what that no longer has.

        Raises:
            OffsetGone: the history after `after` is not, or not all, there.
            ConfigError: an argument makes no sense.
            LogError: the stream is closed, or no thread can be started.
        """
        checks.function("callback", callback, optional=True)
        if after is not None:
            checks.whole("after", after)
        mailbox = self._mailbox(types, workflow_id, max_queue)
        with self._lock.after, self._lock.lock:
            if self._closed:
                raise LogError("the event stream is closed")
            self._subscribers.add(mailbox)
        try:
            self._place(mailbox, after)
        except BaseException:
            self._remove(mailbox)
            raise
        return Subscription(
            mailbox,
            callback,
            unregister=functools.partial(self._remove, close=True),
            forget=self._forget,
        )

    def _mailbox(
        self,
        types: Optional[Iterable[Union[EventType, str]]],
        workflow_id: Optional[str],
        max_queue: int,
    ) -> Mailbox:
        names = [types] if isinstance(types, str) else types
        wanted = None if names is None else frozenset(map(check_type, names))
        checks.whole("max_queue", max_queue, 1)
        if workflow_id is not None:
            workflow_id = check_id("workflow_id", workflow_id)
        return Mailbox(
            self.store,
            self._lock,
            self._remove,
            workflow_id=workflow_id,
            types=wanted,
            max_queue=max_queue,
        )

    def _place(self, mailbox: Mailbox, after: Optional[int]) -> None:
        """Ask the store where a new mailbox begins, which is offered events already."""
        workflow_id = mailbox.workflow_id
        if self._tail is not None:
            self._tail.start()
        ended = workflow_id is not None and self.store.has_ended(workflow_id)
        first, last = self.store.bounds(workflow_id)
        if after is not None and (after > last or (last and after + 1 < first)):
            where = "the log" if workflow_id is None else f"workflow {workflow_id!r}"
            have = f"{first} to {last} can be read" if first <= last and last else "there is none"
            raise OffsetGone(
                f"{where} cannot be read on after {after}: {have}", first=first, last=last
            )
        with self._lock.after, self._lock.lock:
            if self._closed:
                raise LogError("the event stream is closed")
            mailbox.begin(last if after is None else after, last, ended)

    def _remove(self, mailbox: Mailbox, *, close: bool = False) -> bool:
        """Unregister it; with `close`, also enqueue the end marker.  False: that comes later."""
        if self._lock.is_mine():
            self._lock.defer(functools.partial(self._remove, mailbox, close=close))
            return False
        with self._lock.after, self._lock.lock:
            self._subscribers.remove(mailbox)
            if close:
                mailbox.finish()
            return True

    def _forget(self, mailbox: Mailbox) -> None:
        """Unregister it with the next append: its owner, the garbage collector, may not wait."""
        self._lock.later.append(functools.partial(self._remove, mailbox))

    def _finish(self, mailbox: Mailbox) -> None:
        self._remove(mailbox, close=True)

    # --- the end ----------------------------------------------------------------------------

    def close(self, timeout: float = CLOSE_S) -> None:
        """Take no more events, deliver what is queued, end every subscription.  Idempotent.

        Waits up to `timeout` seconds for the callbacks; one that is stuck is
        left behind, and logged.  Called by a signal handler in the middle of
        its thread's own append, it does nothing yet: that thread closes the
        stream when it is through.
        """
        if self._lock.is_mine():
            self._lock.defer(functools.partial(self.close, timeout))
            return
        self._lock.catch_up()
        with self._lock.after, self._lock.lock:
            self._closed = True
            mailboxes = self._subscribers.all()
        until = time.monotonic() + threads.bounded(timeout)
        for mailbox in mailboxes:
            self._remove(mailbox, close=True)
        for mailbox in mailboxes:
            mailbox.join(max(0.0, until - time.monotonic()))
        self.store.close()
        if self._tail is not None:
            self._tail.join(1.0)

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _at_exit(self) -> None:
        self.close(timeout=1.0)

    def _before_fork(self) -> None:
        self._lock.lock.acquire()

    def _after_fork_in_parent(self) -> None:
        self._lock.lock.release()

    def _after_fork(self) -> None:
        self._lock.renew()
        self._publishing = False
        for mailbox in self._subscribers.all():
            mailbox.after_fork()
        if self._tail is not None:
            self._tail.after_fork()
