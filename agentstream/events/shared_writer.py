"""WriterThread: the thread in which a shared log is written, and the queue that it writes from.

Appending puts an event into a bounded queue and waits for no log.  Events stay in that queue
until they are known to be in the log, so that readers find them meanwhile.

A signal handler may call all that is not the thread's own, whatever it interrupts: the lock is
re-entrant, who waits lets go of it wholly, and the thread is woken without one.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from typing import Any, Deque, Dict, Optional, Tuple

from agentstream import threads
from agentstream.errors import LogError
from agentstream.events.model import RELEASING, TERMINAL, Event
from agentstream.threads.wakeup import Wakeup

__all__ = ["LOOK_S", "WriterThread", "WrittenRun", "again"]

LOOK_S = 0.05  # between two looks of whoever waits for news: a signal handler may take them


class WrittenRun:
    """A workflow that this process writes; each kind of log adds what it needs.

    Attributes:
        parent: the run that started it, or None.
        input: what it was given, to be kept with its first event.
        fence: counts how often it was taken; None while it keeps no checkpoint.
        inner: the runs within it that were taken with it.
        since: the offset behind which this process writes it.
        last, committed: the offsets appended, and known to be in the log, last.
        ended: its end is among what was appended.
        released: ... or what leaves it to others.
        keeps: it is known to be a root with a checkpoint.
        lacks: why its checkpoint is not whole.
        refused: why nothing more is written.
        barred: why nothing more is taken; what was is still written.
    """

    __slots__ = (
        "barred",
        "committed",
        "ended",
        "fence",
        "inner",
        "input",
        "keeps",
        "lacks",
        "last",
        "parent",
        "refused",
        "released",
        "since",
        "workflow_id",
    )

    def __init__(self, workflow_id: str, parent: Optional[str]) -> None:
        self.workflow_id = workflow_id
        self.parent = parent
        self.input: Optional[str] = None
        self.fence: Optional[int] = None
        self.inner: Tuple[str, ...] = ()
        self.since = 0
        self.last = 0
        self.committed = 0
        self.ended = False
        self.released = False
        self.keeps = False
        self.lacks: Optional[LogError] = None
        self.refused: Optional[str] = None
        self.barred: Optional[str] = None

    def check_whole(self) -> None:
        """See that its checkpoint can go on.

        Raises:
            LogError: an earlier part of it was not kept.
        """
        if self.lacks is not None:
            raise LogError(f"an earlier part of its checkpoint was not kept: {self.lacks}")


class WriterThread(ABC):
    """The state of the thread, what it writes, and how it is begun, hurried and held still.

    Attributes:
        committing: held while the log is written.
        lock: guards all else.
        news: notified at each commit, and at each failure of one.
        pending: what is not known to be committed, oldest first.
        runs: those that this process writes.
        committed: how much has been.
        failure: why nothing can be written at present, or None.
    """

    _max_queue: int  # what may wait to be committed
    _patience: float  # seconds that an append waits for room in the queue
    runs: Dict[str, Any]

    def _renew(self) -> None:
        """Begin anew: nothing is pending, and there is no thread."""
        self.committing = threading.RLock()
        self.lock = threading.RLock()
        self.news = threading.Condition(self.lock)
        self._room = threading.Condition(self.lock)
        self._wakeup = Wakeup()
        self._thread: Optional[threading.Thread] = None
        self._starting = False
        self._idle = False
        self._urgent = False
        self._closing = False
        self._ended = False
        self._rush = 0  # with so many in the queue the thread goes on at once; 0 for never
        self.pending: Deque[Any] = deque()
        self.committed = 0
        self.failure: Optional[LogError] = None

    # --- appending --------------------------------------------------------------------------

    def append(self, run: Any, event: Event) -> None:
        """Queue an event; one that is there already is not queued again.

        Raises:
            LogError: the log takes none.
        """
        with self.lock:
            offset = event[1]
            if offset <= run.last:
                return
            if offset != run.last + 1:
                raise LogError(f"event {offset} of {run.workflow_id!r} came after {run.last}")
            if self._closing or self.failure is not None or run.refused or run.barred:
                self._check(run, event[3] in TERMINAL)
            if len(self.pending) >= self._max_queue:
                self._wait_for_room(run, event)
            self.pending.append(event)
            run.last = offset
            if event[3] in RELEASING:
                run.released, run.ended = True, event[3] in TERMINAL
                self._note_release(run)
            if self._idle:
                self._idle = False
                self._wakeup.set()
            elif self._rush:
                if len(self.pending) >= self._rush:
                    self._wakeup.set()
            elif self._thread is None:
                self._begin_with(run, event)

    def _begin_with(self, run: Any, event: Event) -> None:
        if not self._ended:
            if not self._starting:
                self._start()
            return
        # A signal handler closed the log between the check and here.
        if run.committed < event[1]:  # ... and nobody will write it
            self.pending.remove(event)
            run.last, run.ended, run.released = event[1] - 1, False, False
            raise LogError("the log is closed")

    def _check(self, run: Any, terminal: bool) -> None:
        """See that something may be queued for a run; its end sometimes though nothing else may.

        Raises:
            LogError: it may not.
        """
        if self._closing:
            raise LogError("the log is closed")
        why = run.refused or run.barred
        if why is not None:
            raise LogError(why)
        # A run that failed because of the log may still say so, should the log recover.
        if self.failure is not None and self._gives_up(self.failure) and not terminal:
            raise again(self.failure)

    def _wait_for_room(self, run: Any, event: Event) -> None:
        end = time.monotonic() + self._patience
        while len(self.pending) >= self._max_queue:
            if self._has_more_room():
                return
            left = end - time.monotonic()
            if left <= 0 or self.failure is not None:
                raise self._full()
            self._hurry()
            self._room.wait(min(left, LOOK_S))
            self._check(run, event[3] in TERMINAL)

    def _full(self) -> LogError:
        why = "" if self.failure is None else f", as {self.failure}"
        count = len(self.pending)
        return LogError(f"{count} events wait for the log{why}: no more are taken", retryable=True)

    @abstractmethod
    def _gives_up(self, failure: LogError) -> bool:
        """True if nothing is queued while the log fails like that."""

    def _has_more_room(self) -> bool:
        """True if the queue may grow beyond its bound for now."""
        return False

    def _note_release(self, run: Any) -> None:  # noqa: B027 - not every log needs it
        """Under the lock: what leaves a run to others, or ends it, is in the queue."""

    def last_of(self, run: Any) -> int:
        """The offset appended last, though an interruption left it unsaid."""
        with self.lock:
            newest = self.pending[-1] if self.pending else None
            if isinstance(newest, Event):
                if newest[4] == run.workflow_id and newest[1] > run.last:
                    run.last = newest[1]
                    run.released, run.ended = newest[3] in RELEASING, newest[3] in TERMINAL
            last: int = run.last
            return last

    def _forget(self, run: Any) -> None:
        """Forget a run that has been left, and those taken with it that nobody went on with."""
        del self.runs[run.workflow_id]
        for name in run.inner:
            inner = self.runs.get(name)
            if inner is not None and inner.last == inner.since:
                del self.runs[name]

    # --- the thread -------------------------------------------------------------------------

    def _hurry(self) -> None:
        """Have what waits committed at once."""
        if self._thread is None and not self._ended:
            self._start()
        self._urgent = True
        self._wakeup.set()

    def _start(self) -> None:
        # A second one is no harm: it ends when it finds the first.
        self._starting = True
        try:
            threads.start_thread("log", self._main)
        except RuntimeError:
            self._starting = False
            raise LogError("no thread could be started for the log") from None

    def _main(self) -> None:
        if not self._set_up():
            return
        try:
            while self._commit_next():
                pass
        finally:
            self._tear_down()

    def _set_up(self) -> bool:
        with self.lock:
            if self._thread is not None or self._ended:
                return False
            self._thread, self._starting = threading.current_thread(), False
            return True

    @abstractmethod
    def _commit_next(self) -> bool:
        """Wait for work and commit it; False once the log is closed."""

    @abstractmethod
    def _tear_down(self) -> None:
        """The thread ends."""

    def before_fork(self) -> None:
        """Hold the log still: no commit is under way, and nobody appends."""
        self.committing.acquire()
        self.lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Let it go again."""
        self.lock.release()
        self.committing.release()


def again(failure: LogError) -> LogError:
    """The failure for one more caller: one exception is not raised in two threads."""
    error = LogError(str(failure), retryable=failure.retryable, outcome=failure.outcome)
    error.__cause__ = failure
    return error
