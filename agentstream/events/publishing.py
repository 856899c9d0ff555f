"""Publishing: how an event enters a stream; see stream.py.

Each log has its next offset.  Where an append is broken off, by the store or by Ctrl-C,
the log is `unsure`, and what the store has counts.
"""

from __future__ import annotations

import collections.abc
import functools
import logging
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Callable, Mapping, Optional

from agentstream.errors import LogError
from agentstream.events.entry import check_id, check_size
from agentstream.events.lock import StreamLock
from agentstream.events.mailbox import UNKNOWN
from agentstream.events.model import (
    RELEASING,
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
from agentstream.text import replace_surrogates
from agentstream.threads.weak import WeakValues

if TYPE_CHECKING:
    from agentstream.events.run_log import Tracing

__all__ = ["Publishing"]

logger = logging.getLogger("agentstream.events")
_MOST_LOGS = 16  # that `EventStream.append` keeps at hand


class Publishing:
    """The logs of a stream, and the way of an event into store and subscriptions.

    Attributes:
        store: where events are kept.
        keep_inputs: true if what runs are given is kept as well.
        tracing: makes spans of the runs; None: nobody does.
    """

    def __init__(self, store: EventStore, *, keep_inputs: bool) -> None:
        self.store = store
        self.keep_inputs = keep_inputs
        self.tracing: Optional[Tracing] = None
        self._lock = StreamLock()
        self._publishing = False  # whoever holds the lock is in the middle of an append
        self._closed = False
        self._subscribers = Subscribers()
        self._logs: WeakValues[str, RunLog] = WeakValues()
        self._recent: OrderedDict[str, RunLog] = OrderedDict()  # those of `append`, kept alive
        self._append = store.append
        settles = type(store).settle is not EventStore.settle
        self._settle: Optional[Callable[[Event], None]] = store.settle if settles else None

    def traceparent(self) -> str:
        """The context of the caller's span, for a run that another process begins; "" for none."""
        return "" if self.tracing is None else self.tracing.traceparent()

    def _open(self, workflow_id: str, parent: Optional[str]) -> RunLog:
        workflow_id = check_id("workflow_id", workflow_id)
        if parent is not None:
            parent = check_id("parent_workflow_id", parent)
        self.store.claim(workflow_id, parent)
        log = RunLog(self, workflow_id, parent)
        with self._lock.after, self._lock.lock:
            self._logs[workflow_id] = log
        return log

    def _flush(self) -> None:
        """See `RunLog.flush`."""
        self.store.flush()

    def _note_input(self, workflow_id: str, text: str) -> None:
        if self.keep_inputs:
            self.store.note_input(workflow_id, replace_surrogates(text))

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
                            if kind in RELEASING:
                                self._release(log, kind)
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

    def _publish_own(
        self,
        workflow_id: str,
        parent: Optional[str],
        last: int,
        kind: EventType,
        data: Mapping[str, Any],
    ) -> None:
        """Publish an event of the store's own, behind the offset `last` of a run nobody has."""
        log = RunLog(self, workflow_id, parent)
        log.offset = last
        self._publish(log, kind, data)

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
        left = ended or self._was_left(log, last)
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
            log.ended = left or not self._is_in_use(log)
            log.unsure = False
            if last and not fresh:  # not all of them may have been offered it
                self._subscribers.fall_behind(log.workflow_id, UNKNOWN, last, ended)

    # --- logs that change hands -------------------------------------------------------------

    def _release(self, log: RunLog, kind: EventType) -> None:
        """This process is done with a run; under the lock."""
        log.ended = True
        if kind not in TERMINAL:  # somebody may go on with it, and that is another log
            self._logs.pop(log.workflow_id)
            self._subscribers.note_own(log.workflow_id, log.offset)

    def _was_left(self, log: RunLog, last: int) -> bool:
        """True if the store has the event by which a log of one owner is released."""
        if log.has_many_writers or not last:
            return False
        newest = self.store.read(workflow_id=log.workflow_id, after=last - 1, limit=1)
        return bool(newest) and newest[0].type in RELEASING

    def _is_in_use(self, log: RunLog) -> bool:
        """True unless the run has been left, or is written through another log since."""
        return log.has_many_writers or self._logs.get(log.workflow_id) is log

    def _reopen(self, workflow_id: str, parent: Optional[str], last: int) -> RunLog:
        """Go on with a run that this process has taken, behind its event `last`."""
        log = RunLog(self, workflow_id, parent)
        log.offset = last
        with self._lock.after, self._lock.lock:
            earlier = self._logs.get(workflow_id)
            if earlier is not None:
                earlier.ended, earlier.unsure = True, False
            self._logs[workflow_id] = log
            self._recent.pop(workflow_id, None)
            if self.store.shared:  # others' events, which the tail may not have brought yet
                self._subscribers.fall_behind(workflow_id, UNKNOWN, last, False)
        return log


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
