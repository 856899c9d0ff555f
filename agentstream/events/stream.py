"""EventStream and Subscription: the queue-based observer bus.

The one place where events cross threads.  A publisher gives an event its
offset, keeps it, and puts it into each subscription's queue, all under one lock
and none of it waiting for anybody; a subscriber takes it out in its own thread.
A queue is bounded: what it cannot take, its reader fetches from the store, and
what the store has let go, it is told about.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Tuple,
    Union,
)

from agentstream import checks, threads
from agentstream.errors import ConfigError, LogError, OffsetGone
from agentstream.events.follower import Follower
from agentstream.events.mailbox import UNKNOWN, Callback, Mailbox
from agentstream.events.model import (
    TERMINAL,
    Event,
    EventType,
    FrozenDict,
    freeze_mapping,
    make_event,
)
from agentstream.events.store import EventStore, MemoryStore

__all__ = ["EventStream", "RunLog", "Subscription"]

logger = logging.getLogger("agentstream.events")

_CLOSE_S = 5.0


class RunLog:
    """The writer of one workflow's events; a workflow has one.

    Any number of threads may append.  After the terminal event nothing is
    taken: what comes late, from a tool that was left behind say, is dropped.
    """

    __slots__ = ("_stream", "ended", "offset", "parent_workflow_id", "workflow_id")

    def __init__(
        self, stream: EventStream, workflow_id: str, parent_workflow_id: Optional[str]
    ) -> None:
        self._stream = stream
        self.workflow_id = workflow_id
        self.parent_workflow_id = parent_workflow_id
        self.offset = 0
        self.ended = False

    def append(self, kind: EventType, data: Mapping[str, Any]) -> Optional[Event]:
        """Append an event; returns it, or None if the workflow has ended.

        Raises:
            LogError: the store refused it, or the stream is closed.
        """
        event = self._stream._publish(self, kind, data)
        if self._stream._settle is not None and event is not None:
            self._stream._settle(event)
        return event

    def open_child(self, workflow_id: str) -> RunLog:
        """Begin the log of a run within this one, whose events name this one as their parent.

        Raises:
            LogError: the stream has events of that workflow already.
        """
        return self._stream.open_log(workflow_id, self.workflow_id)


class EventStream:
    """A log of events with subscribers.

    Args:
        store: where events are kept; default `MemoryStore()`.
    """

    _exit_order = 1  # after the runtimes, whose last events it delivers

    def __init__(self, store: Optional[EventStore] = None) -> None:
        checks.instance("store", store, EventStore, optional=True)
        self.store = store or MemoryStore()
        self._lock = threading.RLock()  # re-entrant: a signal handler may come by
        self._closed = False
        self._logs: Dict[str, RunLog] = {}  # of workflows that `append` was asked for
        # Copied when they change, so that publishing reads them as they are.
        self._everything: Tuple[Mailbox, ...] = ()
        self._by_workflow: Dict[str, Tuple[Mailbox, ...]] = {}
        # A dropped iterator's __del__ may run inside any line of any thread, and so must
        # take no lock: it leaves its mailbox here for the next who holds it.
        self._dropped: Deque[Mailbox] = deque()
        self._follower = Follower(self) if self.store.shared else None
        self._keep = _keeper(self.store)
        settles = type(self.store).settle is not EventStore.settle
        self._settle = self.store.settle if settles else None
        threads.after_fork(self)
        threads.after_fork(self.store)
        threads.at_exit(self)

    def __repr__(self) -> str:
        return f"<EventStream over {self.store!r}>"

    # --- writing ----------------------------------------------------------------------------

    def open_log(self, workflow_id: str, parent_workflow_id: Optional[str] = None) -> RunLog:
        """Begin a workflow's log; its caller is its one owner.

        Raises:
            LogError: the store has events of that workflow already, or it has another owner.
        """
        self.store.claim(workflow_id, parent_workflow_id)
        return RunLog(self, workflow_id, parent_workflow_id)

    def append(
        self,
        type: Union[EventType, str],
        workflow_id: str,
        data: Optional[Mapping[str, Any]] = None,
        *,
        parent_workflow_id: Optional[str] = None,
    ) -> Event:
        """Append an event of your own to a workflow's log; returns it as it was kept.

        The first one begins the log, a terminal one ends it.

        Raises:
            ConfigError: there is no such type, or it is no part of a log.
            LogError: the workflow has ended or has another owner, the data cannot
                be kept, or the stream is closed.
        """
        try:
            kind = EventType(type)
        except ValueError:
            known = ", ".join(t.value for t in EventType)
            raise ConfigError(f"unknown event type {type!r}: use one of {known}") from None
        if kind is EventType.EVENTS_MISSED:
            raise ConfigError("events_missed is told to a subscriber, it is no part of a log")
        with self._lock:
            log = self._logs.get(workflow_id)
        if log is None:
            log = self.open_log(workflow_id, parent_workflow_id)
            with self._lock:
                log = self._logs.setdefault(workflow_id, log)
        event = log.append(kind, data or {})
        if event is None:
            raise LogError(f"workflow {workflow_id!r} has ended: its log takes no more events")
        if kind in TERMINAL:
            with self._lock:
                self._logs.pop(workflow_id, None)
        return event

    def _publish(self, log: RunLog, kind: EventType, data: Mapping[str, Any]) -> Optional[Event]:
        frozen = data if data.__class__ is FrozenDict else freeze_mapping(data)
        workflow_id = log.workflow_id
        with self._lock:
            if self._dropped:
                self._sweep()
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
                    event = self._keep(fields)
                    log.offset = offset
                    if kind in TERMINAL:
                        log.ended = True
                    for mailbox in self._everything:
                        mailbox.offer(event)
                    if self._by_workflow:
                        for mailbox in self._by_workflow.get(workflow_id, ()):
                            mailbox.offer(event)
                except BaseException:
                    self._recover(log, offset, kind)
                    raise
                return event
        logger.debug("%s came after the end of %s", kind.value, workflow_id)
        return None

    def _recover(self, log: RunLog, offset: int, kind: EventType) -> None:
        """An append was broken off, by Ctrl-C perhaps: what the store has counts."""
        try:
            if self.store.bounds(log.workflow_id).last < offset:
                return
            newest = self.store.bounds().last
        except Exception:
            logger.exception("it is not known whether event %d of its log was kept", offset)
            return
        log.offset = offset
        log.ended = kind in TERMINAL
        for mailbox in self._everything:
            mailbox.fall_behind(newest, False)
        for mailbox in self._by_workflow.get(log.workflow_id, ()):
            mailbox.fall_behind(offset, log.ended)

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
        wanted = None if types is None else frozenset(_kinds(types))
        checks.whole("max_queue", max_queue, 1)
        checks.function("callback", callback, optional=True)
        mailbox = Mailbox(self, workflow_id, wanted, max_queue)
        with self._lock:
            if self._closed:
                raise LogError("the event stream is closed")
            # Positions that come later: what has none yet is known by its offset.
            late = workflow_id is None and self._follower is not None
            if self._follower is not None:
                self._follower.start()
                if late and after is None:
                    mailbox.pass_over(self.store.unplaced())
            last = self.store.bounds(workflow_id).last
            mailbox.cursor = last if after is None else self._check_after(after, workflow_id)
            ended = workflow_id is not None and self.store.has_ended(workflow_id)
            if mailbox.cursor < last or (late and after is not None):
                mailbox.fall_behind(UNKNOWN if late else last, ended)
            elif ended:
                mailbox.finish()
            self._sweep()
            self._add(mailbox)
        return Subscription(self, mailbox, callback)

    def _check_after(self, after: int, workflow_id: Optional[str]) -> int:
        checks.whole("after", after)
        first, last = self.store.bounds(workflow_id)
        if after > last or (last and after + 1 < first):
            where = "the log" if workflow_id is None else f"workflow {workflow_id!r}"
            have = f"{first} to {last} can be read" if first <= last and last else "there is none"
            raise OffsetGone(
                f"{where} cannot be read on after {after}: {have}", first=first, last=last
            )
        return after

    def _add(self, mailbox: Mailbox) -> None:
        if mailbox.workflow_id is None:
            self._everything = (*self._everything, mailbox)
        else:
            others = self._by_workflow.get(mailbox.workflow_id, ())
            self._by_workflow[mailbox.workflow_id] = (*others, mailbox)

    def _remove(self, mailbox: Mailbox, *, close: bool = False) -> None:
        """Offer it nothing more; with `close`, tell it so in the same breath."""
        with self._lock:
            if mailbox.workflow_id is None:
                self._everything = tuple(m for m in self._everything if m is not mailbox)
            else:
                others = self._by_workflow.get(mailbox.workflow_id, ())
                left = tuple(m for m in others if m is not mailbox)
                if left:
                    self._by_workflow[mailbox.workflow_id] = left
                else:
                    self._by_workflow.pop(mailbox.workflow_id, None)
            if close:
                mailbox.finish()

    def _sweep(self) -> None:
        while self._dropped:
            self._remove(self._dropped.popleft())

    def _mailboxes(self) -> List[Mailbox]:
        found = list(self._everything)
        for mailboxes in self._by_workflow.values():
            found.extend(mailboxes)
        return found

    # --- the end ----------------------------------------------------------------------------

    def close(self, timeout: float = _CLOSE_S) -> None:
        """Take no more events, deliver what is queued, end every subscription.  Idempotent.

        Waits up to `timeout` seconds for the callbacks; one that is stuck is
        left behind, and logged.
        """
        with self._lock:
            self._closed = True
            self._sweep()
            mailboxes = self._mailboxes()
        until = time.monotonic() + timeout
        for mailbox in mailboxes:
            self._remove(mailbox, close=True)
        for mailbox in mailboxes:
            mailbox.join(max(0.0, until - time.monotonic()))
        self.store.close()
        if self._follower is not None:
            self._follower.join(1.0)

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _at_exit(self) -> None:
        self.close(timeout=1.0)

    def _before_fork(self) -> None:
        self._lock.acquire()

    def _after_fork_in_parent(self) -> None:
        self._lock.release()

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
        for mailbox in self._mailboxes():
            mailbox.after_fork()
        if self._follower is not None:
            self._follower.after_fork()


class Subscription(Iterator[Event]):
    """A subscriber's end.  Iterate it, or leave it to its callback; `close` when done.

    An iterator that is dropped closes itself.
    """

    def __init__(self, stream: EventStream, mailbox: Mailbox, callback: Optional[Callback]) -> None:
        self._has_callback = callback is not None
        self._stream = stream
        self._mailbox = mailbox
        if callback is not None:
            mailbox.start(callback)

    def __iter__(self) -> Subscription:
        return self

    def __next__(self) -> Event:
        """The next event; waits for it.

        Raises:
            RuntimeError: the subscription has a callback, or another thread reads it.
        """
        for seconds in threads.slices(None):
            event = self._take(seconds)
            if event is not None:
                return event
        raise AssertionError("a wait without an end has ended")

    def get(self, timeout: Optional[float] = None) -> Optional[Event]:
        """The next event, or None if none came within `timeout` seconds.

        Raises:
            StopIteration: there are no more.
            RuntimeError: the subscription has a callback, or another thread reads it.
        """
        return self._take(timeout)

    def _take(self, timeout: Optional[float]) -> Optional[Event]:
        if self._has_callback:
            raise RuntimeError("this subscription has a callback: it cannot be iterated as well")
        return self._mailbox.take(timeout)

    @property
    def errors(self) -> int:
        """How often the callback raised."""
        return self._mailbox.errors

    @property
    def missed(self) -> int:
        """How many events the store had let go before they could be read."""
        return self._mailbox.missed

    def close(self, timeout: Optional[float] = _CLOSE_S) -> bool:
        """Take no more events; those queued are still delivered.  Idempotent.

        With a callback, waits up to `timeout` seconds until it has had them
        all; called from the callback itself, it does not wait.  Returns False
        if the callback is stuck and was left behind.
        """
        self._stream._remove(self._mailbox, close=True)
        return self._mailbox.join(timeout)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._has_callback:
            self._mailbox.drop()
            self._stream._dropped.append(self._mailbox)


def _keeper(store: EventStore) -> Callable[[Tuple[Any, ...]], Event]:
    """How the store takes an event's fields: by `append`, if that was overridden last."""
    for kind in type(store).__mro__:
        if "keep" in vars(kind):
            break
        if "append" in vars(kind):
            return lambda fields: store.append(make_event(fields))
    return store.keep


def _kinds(types: Iterable[Union[EventType, str]]) -> Iterator[EventType]:
    if isinstance(types, str):
        types = [types]
    for kind in types:
        try:
            yield EventType(kind)
        except ValueError:
            known = ", ".join(t.value for t in EventType)
            raise ConfigError(f"unknown event type {kind!r}: use one of {known}") from None
