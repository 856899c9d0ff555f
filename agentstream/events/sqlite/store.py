"""SqliteStore: what a stream and its readers see of a log in an SQLite file.

What is written is in statements.py, when it is written in writer.py, what is read in reader.py.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from typing import AbstractSet, List, Optional, Tuple, Union

from agentstream import checks, threads
from agentstream.errors import LogError, OffsetGone
from agentstream.events.entry import check_id, check_reason
from agentstream.events.model import Event
from agentstream.events.resting import RESTING
from agentstream.events.shared import SharedStore
from agentstream.events.sqlite import interrupted, schema, statements
from agentstream.events.sqlite.checkpoints import SqliteCheckpoints
from agentstream.events.sqlite.claims import Claims
from agentstream.events.sqlite.commit import Committer
from agentstream.events.sqlite.contents import Contents
from agentstream.events.sqlite.files import LogFile
from agentstream.events.sqlite.high_water import HighWaterMark
from agentstream.events.sqlite.housekeeping import Housekeeping
from agentstream.events.sqlite.notices import Notices
from agentstream.events.sqlite.opening import take_stock
from agentstream.events.sqlite.paths import checked_path
from agentstream.events.sqlite.reader import Reader
from agentstream.events.sqlite.resumable import ACTIVE
from agentstream.events.sqlite.retention import Retention
from agentstream.events.sqlite.statements import Run
from agentstream.events.sqlite.stop_requests import StopRequests
from agentstream.events.sqlite.writer import Writer
from agentstream.events.store import (
    Bounds,
    RunState,
    StopAnswer,
    StopCallback,
    end_of,
    first_line,
)

__all__ = ["SqliteStore"]

_POLL_S = 0.025


class SqliteStore(SharedStore):
    """Keeps events in a file.  Any number of processes may open it at once.

    A run's events are written by the process that runs it; all others can read
    them, follow them as they come, and ask for the run to be stopped.  Runs
    whose process has died are found when the file is opened, and closed as
    failed (interrupted).

    Args:
        path: the file; made if there is none, readable for its owner only.  It must
            have one name only: no hard links, and not be mounted by itself.
        durability: "normal" or "full".  normal: an append waits for no disk; it
            is committed some milliseconds later, and a commit survives the
            process but perhaps not the machine.  full: an append through an
            `EventStream` returns when it is on the disk.
        max_age: seconds after which events may go, by the log's own time, which one
            clock that is wrong does not move; None for never.
        max_events: how many to keep, of all runs together; None for all.
        busy_timeout: seconds to wait for another process that writes.
        max_queue: events that may wait to be committed.  When they are that
            many, an append waits up to `busy_timeout` seconds and then raises.
        on_error: what a full disk or the like means.  "stop": appends raise
            LogError until it is over.  "memory": runs go on, what they append
            (up to ten times `max_queue`) is kept in memory and written when the
            disk takes it again; a system_warning says so.
        read_only: only read, where nothing may be written: a medium that is read-only,
            or another user's log.  Appends and requests to stop raise LogError.

    Raises:
        ConfigError: an argument makes no sense.
        LogError: the file cannot be used, and why.

    Attributes:
        lost: the positions that the file should have and has not, a torn
            write-ahead log for one, as found when it was opened; None for none.
    """

    _writer: Writer
    _contents: Contents

    def __init__(
        self,
        path: Union[str, os.PathLike[str]],
        *,
        durability: str = "normal",
        max_age: Optional[float] = None,
        max_events: Optional[int] = None,
        busy_timeout: float = 5.0,
        max_queue: int = 10_000,
        on_error: str = "stop",
        read_only: bool = False,
    ) -> None:
        checks.one_of("durability", durability, ("normal", "full"))
        checks.one_of("on_error", on_error, ("stop", "memory"))
        max_age = checks.seconds("max_age", max_age, optional=True)
        checks.whole("max_events", max_events, 1, optional=True)
        busy_timeout = checks.seconds("busy_timeout", busy_timeout)
        checks.whole("max_queue", max_queue, 1)
        checks.flag("read_only", read_only)
        path = checked_path(path)
        self._file = LogFile(path, busy_timeout, durability, read_only=read_only)
        self._mark = HighWaterMark(path)
        self._settles = durability == "full"
        self._keep_going = on_error == "memory"
        self._log_name = f"log-{os.urandom(4).hex()}"
        self._notices = Notices(self._log_name)
        self.lost: Optional[Bounds] = None
        retention = Retention(max_events, max_age)
        housekeeping = Housekeeping(self._file, self._log_name, retention)
        self._writer = Writer(
            Committer(self._file, self._mark, housekeeping.keep),
            linger=not self._settles,
            max_queue=max_queue,
            busy_timeout=busy_timeout,
            keep_going=self._keep_going,
            slack=retention.slack,
        )
        self._writer.on_failure = self._note_failure
        self._writer.on_commit = self._after_commit
        self._reader = Reader(self._file)
        self._contents = Contents(self._reader, self._writer)
        self._claims = Claims(self._file, self._writer, self._reader, keep_going=self._keep_going)
        self._reset()
        self._checkpoints = SqliteCheckpoints(
            path, self._claims, self._writer, self._reader, on_taken=self._forget_stop
        )
        self.checkpoints = self._checkpoints
        self._open()
        threads.after_fork(self)
        threads.at_exit(self)

    @classmethod
    def for_reading(cls, path: Union[str, os.PathLike[str]]) -> SqliteStore:
        """A store for one who wants to read: `read_only` where the log cannot be written.

        Raises:
            ConfigError, LogError: as the class itself.
        """
        name = checked_path(path)
        writable = os.access(name, os.W_OK) and os.access(os.path.dirname(name), os.W_OK)
        return cls(path, read_only=os.path.exists(name) and not writable)

    def _reset(self) -> None:
        self._stop_requests = StopRequests(self._requests, self._is_writing)

    def __repr__(self) -> str:
        return f"<SqliteStore {self._file.path!r}>"

    # --- opening ----------------------------------------------------------------------------

    def _open(self) -> None:
        self._file.create()
        connection = self._file.connect()
        try:
            self._file.remember()
            self._log_id = schema.prepare(self._file, connection)
            if not self._file.read_only:
                self.lost = take_stock(
                    self._file, connection, self._mark, self._log_id, self._log_name
                )
        except BaseException as error:
            connection.close()
            self._mark.close()
            if isinstance(error, sqlite3.Error):
                raise self._file.explain(error) from error
            raise
        self._reader.use(connection)

    # --- writing ----------------------------------------------------------------------------

    def _claim(self, workflow_id: str, parent: Optional[str]) -> Run:
        return self._claims.claim(workflow_id, parent)

    def _has(self, event: Event) -> bool:
        """True if a run of ours has ended with this event in it."""
        found = self._reader.one(
            "SELECT 1 FROM runs WHERE workflow_id = ? AND owner = ? AND last >= ?",
            event.workflow_id,
            self._claims.owner,
            event.offset,
        )
        return found is not None

    def settle(self, event: Event) -> None:
        """See `EventStore.settle`."""
        if not self._settles:
            return
        run = self._writer.runs.get(event[4])
        if run is None or run.committed >= event[1]:
            return
        try:
            self._writer.settle(run, event[1])
        except LogError:
            if not self._keep_going or run.refused is not None:
                raise

    # --- reading ----------------------------------------------------------------------------

    def runs(self, *, limit: int = 100) -> List[RunState]:
        """See `EventStore.runs`."""
        self._contents.refresh()
        found = self._reader.states("ORDER BY id DESC LIMIT ?", limit)
        return [state._replace(input=first_line(state.input)) for state in found]

    def run(self, workflow_id: str) -> Optional[RunState]:
        """See `EventStore.run`."""
        self._contents.refresh()
        found = self._reader.states("AND workflow_id = ?", workflow_id)
        return found[0].with_end(end_of(self, found[0])) if found else None

    # --- following --------------------------------------------------------------------------

    def wait(self, after: int, timeout: float) -> bool:
        """See `EventStore.wait`; looks at the file every 25 ms."""
        end = time.monotonic() + threads.bounded(timeout)
        while not self._closed:
            if self._reader.last_position() > after:
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._claims.reap()
            with self._writer.lock:
                if self._writer.committer.position <= after and not self._closed:
                    self._writer.news.wait(min(left, _POLL_S))
        return False

    def read_others(
        self, after: int, limit: int, *, only: Optional[AbstractSet[str]] = None
    ) -> Tuple[List[Event], int]:
        """See `EventStore.read_others`."""
        count = None
        while count != self._writer.hand_overs.count:  # else a run was taken just before we looked
            count = self._writer.hand_overs.count
            taken = self._writer.hand_overs.taken_after(after)
            events, last, first = self._reader.of_others(
                self._claims.owner, taken, after, limit, only
            )
        events = [event for event in events if not self._is_ours(event)]
        if first > after + 1 and not self._is_all_ours(after + 1, first - 1):
            raise OffsetGone(f"the log begins at {first}", first=first, last=last)
        return self._notices.take() + events, last

    def _is_all_ours(self, first: int, last: int) -> bool:
        """True if none of these positions, which are gone, was another process's."""
        with contextlib.suppress(LogError):
            self._writer.flush()  # then the writer knows what it has written
        return self._writer.committer.wrote(first, last)

    def _is_ours(self, event: Event) -> bool:
        """True for an event that this process wrote, though its run is another's now."""
        run = self._writer.runs.get(event.workflow_id)
        if run is not None:
            upto = run.committed if run.lost else run.last
            if run.since < event.offset <= upto:
                return True
        return self._writer.hand_overs.is_ours(event)

    # --- stopping ---------------------------------------------------------------------------

    def request_stop(self, workflow_id: str, reason: str) -> StopAnswer:
        """See `EventStore.request_stop`; waits for a commit.

        Raises:
            ConfigError: an argument is no text, or none that the log can hold.
            LogError: the log cannot be written.
        """
        check_id("workflow_id", workflow_id)
        check_reason(reason)
        self._claims.check_writable()
        if self._reader.status_of(workflow_id) not in (*ACTIVE, *RESTING):
            return StopAnswer.NOBODY

        def ask(connection: sqlite3.Connection) -> StopAnswer:
            if statements.ask_to_stop(connection, workflow_id, reason):
                return StopAnswer.ASKED
            ended = interrupted.stop_resting(connection, workflow_id, reason)
            return StopAnswer.ENDED if ended else StopAnswer.NOBODY

        answer: StopAnswer = self._writer.do(ask)
        return answer

    def watch_stops(self, callback: StopCallback) -> None:
        """See `EventStore.watch_stops`."""
        self._stop_requests.stops.add(callback)

    def _requests(self) -> List[Tuple[str, str]]:
        """The requests there are for runs of this process, (workflow id, reason) each.

        A run that others have taken is to stop for that reason.
        """
        found = self._reader.all("SELECT workflow_id, reason FROM stops")
        asked = [(name, reason) for name, reason in found if name in self._writer.runs]
        runs = list(self._writer.runs.values())
        return asked + [(run.workflow_id, run.refused or "") for run in runs if run.lost]

    def _forget_stop(self, workflow_id: str) -> None:
        self._stop_requests.stops.forget(workflow_id)

    def _is_writing(self) -> bool:
        """True while runs of this process are under way."""
        runs = list(self._writer.runs.values())
        return not self._closed and any(not run.released and run.refused is None for run in runs)

    # --- the writer's side ------------------------------------------------------------------

    def _after_commit(self) -> None:
        if self._writer.runs:
            self._stop_requests.start()

    def _note_failure(self, error: LogError) -> None:
        if self._keep_going:
            self._notices.add(error)

    # --- the end ----------------------------------------------------------------------------

    def _close(self) -> None:
        self._writer.close(self._claims.leave)
        # The thread that looks for requests may wait for what a signal handler interrupted.
        self._stop_requests.end(wait=not self._reader.is_busy)
        self._writer.committer.close()
        self._reader.close()
        self._claims.release()
        self._mark.close()
        self._end()

    # --- fork -------------------------------------------------------------------------------

    def _before_fork(self) -> None:
        self._writer.before_fork()
        self._reader.lock.acquire()

    def _after_fork_in_parent(self) -> None:
        self._reader.lock.release()
        self._writer.after_fork_in_parent()

    def _after_fork(self) -> None:
        self._reader.after_fork_in_child(self._writer.committer.after_fork_in_child())
        self._claims.forget()
        self._checkpoints.reset()
        callbacks = self._stop_requests.stops.callbacks
        self._writer.after_fork_in_child()
        self._reset()
        self._stop_requests.stops.callbacks = callbacks
        if not self._closed and not self._file.read_only:
            self._mark.close()
            self._mark.open(self._log_id)
