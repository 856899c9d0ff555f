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

import collections.abc
import functools
import logging
import time
from collections import OrderedDict
from typing import Any, Callable, Iterable, Mapping, Optional, Union

from agentstream import checks, threads
from agentstream.errors import LogError, OffsetGone
from agentstream.events.entry import check_entry_type, check_id, check_size, check_type
from agentstream.events.lock import StreamLock
from agentstream.events.mailbox import UNKNOWN, Callback, Mailbox
from agentstream.events.memory import MemoryStore
from agentstream.events.model import (
    TERMINAL,
    Event,
    EventType,
    FrozenDict,
    freeze_mapping,
    make_event,
)
from agentstream.events.run_log import RunLog
from agentstream.events.store import EventStore
from agentstream.events.subscribers import Subscribers
from agentstream.events.subscription import CLOSE_S, Subscription
from agentstream.events.tail import StreamTail
from agentstream.text import replace_surrogates
from agentstream.threads.weak import WeakValues

__all__ = ["EventStream", "RunLog", "Subscription"]

logger = logging.getLogger("agentstream.events")
_MOST_LOGS = 16  # that `append` keeps at hand


class EventStream:
    """A log of events with subscribers.

    Args:
        store: where events are kept; default `MemoryStore()`.
        keep_inputs: keep what runs are given, beside their events, as `RunState.input`:
            the page of runs shows it.  Events never hold it.
    """

    _exit_order = 1  # after the runtimes, whose last events it delivers

    def __init__(self, store: Optional[EventStore] = None, *, keep_inputs: bool = True) -> None:
        checks.instance("store", store, EventStore, optional=True)
        self.keep_inputs: bool = checks.flag("keep_inputs", keep_inputs)
        self.store = store or MemoryStore()
        self._lock = StreamLock()
        self._publishing = False  # whoever holds the lock is in the middle of an append
        self._closed = False
        self._subscribers = Subscribers()
        self._logs: WeakValues[str, RunLog] = WeakValues()
        self._recent: OrderedDict[str, RunLog] = OrderedDict()  # those of `append`, kept alive
        self._tail: Optional[StreamTail] = None
        if self.store.shared:
            self._tail = StreamTail(
                self.store,
                self._lock,
                self._subscribers,
                is_closed=lambda: self._closed,
                leave=self._finish,
                sweep=self._lock.catch_up,
            )
        self._append = self.store.append
        settles = type(self.store).settle is not EventStore.settle
        self._settle: Optional[Callable[[Event], None]] = self.store.settle if settles else None
        threads.after_fork(self)
        threads.after_fork(self.store)
        threads.at_exit(self)

    def __repr__(self) -> str:
        return f"<EventStream over {self.store!r}>"

    @property
    def closed(self) -> bool:
        """True once it takes no more events."""
        return self._closed

    # --- writing ----------------------------------------------------------------------------

    def open_log(self, workflow_id: str, parent_workflow_id: Optional[str] = None) -> RunLog:
        """Begin a workflow's log; its caller is its one owner.

        Raises:
            ConfigError: an id is no text that can be kept: of 1 to 256 characters, in UTF-8.
            LogError: the store has events of that workflow already, or it has another owner.
        """
        workflow_id = check_id("workflow_id", workflow_id)
        if parent_workflow_id is not None:
            parent_workflow_id = check_id("parent_workflow_id", parent_workflow_id)
        self.store.claim(workflow_id, parent_workflow_id)
        log = RunLog(self, workflow_id, parent_workflow_id)
        with self._lock.after, self._lock.lock:
            self._logs[workflow_id] = log
        return log

    def note_input(self, workflow_id: str, text: str) -> None:
        """See `RunLog.note_input`."""
        if self.keep_inputs:
            self.store.note_input(workflow_id, replace_surrogates(text))

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
        if event is None or (kind in TERMINAL and event.id is not None):
            with self._lock.after, self._lock.lock:
                self._recent.pop(str.__str__(workflow_id), None)
        if event is None:
            raise LogError(f"workflow {workflow_id!r} has ended: its log takes no more events")
        return event

    def _log_of(self, workflow_id: str, parent_workflow_id: Optional[str]) -> RunLog:
        """The log that `append` writes to; of one that is not at hand, the store knows the end."""
        log = self._recent.get(workflow_id) if workflow_id.__class__ is str else None
        if log is not None:
            return log
        workflow_id = check_id("workflow_id", workflow_id)
        if parent_workflow_id is not None:
            parent_workflow_id = check_id("parent_workflow_id", parent_workflow_id)
        with self._lock.after, self._lock.lock:
            log = self._logs.get(workflow_id)
            if log is None:
                log = self._logs[workflow_id] = RunLog(self, workflow_id, parent_workflow_id)
                log.ended = log.unsure = log.has_many_writers = True
            elif not log.has_many_writers:
                trouble = "has ended" if log.ended else "has another owner"
                raise LogError(f"workflow {workflow_id!r} {trouble}: choose another id")
            self._recent[workflow_id] = log
            while len(self._recent) > _MOST_LOGS:
                self._recent.popitem(last=False)
        try:
            self._ask_how_far(log, fresh=True)
        except BaseException:
            with self._lock.after, self._lock.lock:
                self._recent.pop(workflow_id, None)
                self._logs.pop(workflow_id)
            raise
        return log

    def _publish(self, log: RunLog, kind: EventType, data: Mapping[str, Any]) -> Optional[Event]:
        frozen = data if data.__class__ is FrozenDict else _frozen(data)
        workflow_id = log.workflow_id
        lock = self._lock
        event: Optional[Event] = None
        try:
            with lock.lock:
                if self._publishing:
                    return self._publish_later(log, kind, frozen)
                try:
                    # Before anything is looked at: from here on a signal handler leaves its
                    # events for later.
                    self._publishing = True
                    if not log.ended:
                        if self._closed:
                            raise LogError("the event stream is closed")
                        offset = log.offset + 1
                        fields = (
                            f"{workflow_id}:{offset}",
                            offset,
                            None,
                            kind,
                            workflow_id,
                            log.parent_workflow_id,
                            time.time(),
                            frozen,
                        )
                        try:
                            event = self._append(fields)
                            log.offset = offset
                            if kind in TERMINAL:
                                log.ended = True
                            subscribers = self._subscribers
                            for mailbox in subscribers.everything:
                                mailbox.offer(event)
                            if subscribers.by_workflow:
                                for mailbox in subscribers.by_workflow.get(workflow_id, ()):
                                    mailbox.offer(event)
                        except BaseException:
                            log.ended = log.unsure = True
                            raise
                finally:
                    self._publishing = False
        except BaseException as error:
            self._recover(log, refused=isinstance(error, LogError))
            raise
        if lock.later or lock.deferred:
            lock.catch_up()
        if event is None:
            if log.unsure:
                self._ask_how_far(log)
                return self._publish(log, kind, frozen)
            logger.debug("%s came after the end of %s", kind.value, workflow_id)
        return event

    def _publish_later(self, log: RunLog, kind: EventType, data: FrozenDict) -> Event:
        """For a signal handler that came in the middle of its thread's own append."""
        self._lock.defer(functools.partial(self._publish, log, kind, data))
        return make_event(
            (None, 0, None, kind, log.workflow_id, log.parent_workflow_id, time.time(), data)
        )

    def _recover(self, log: RunLog, *, refused: bool) -> None:
        """An append was broken off, by the store or by Ctrl-C: what the store has counts."""
        try:
            if log.unsure:
                self._ask_how_far(log)
        except Exception:
            logger.exception("it is not known how far the log of %s has come", log.workflow_id)
            if refused:  # by a store that cannot even be asked: it has not kept it
                with self._lock.after, self._lock.lock:
                    log.ended = log.unsure = False
        self._lock.catch_up()

    def _ask_how_far(self, log: RunLog, *, fresh: bool = False) -> None:
        """Ask the store how far a log has come that is `unsure`; it is claimed if it is new."""
        last = self.store.bounds(log.workflow_id).last
        ended = self.store.has_ended(log.workflow_id)
        if not last and not ended:
            try:
                self.store.claim(log.workflow_id, log.parent_workflow_id)
            except LogError:
                if log.unsure:  # else another one has just begun it
                    raise
        with self._lock.after, self._lock.lock:
            if not log.unsure:
                return  # another thread was faster
            log.offset = last
            log.ended = ended
            log.unsure = False
            if last and not fresh:  # not all of them may have been offered it
                self._subscribers.fall_behind(log.workflow_id, UNKNOWN, last, ended)

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


def _frozen(data: Any) -> FrozenDict:
    """An event's data as JSON values, in bounds.

    Raises:
        LogError: it is no mapping, or cannot be written down.
    """
    if not isinstance(data, collections.abc.Mapping):
        raise LogError(f"an event's data must be a mapping, not {type(data).__name__}")
    try:
        frozen = freeze_mapping(data)
    except LogError:
        raise
    except Exception as error:  # of a method of somebody's class
        trouble = type(error).__name__
        raise LogError(f"an event's data cannot be written down: {trouble}") from error
    check_size(frozen)
    return frozen
