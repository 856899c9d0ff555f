"""SqliteStore: what a stream and its readers see of a log in an SQLite file.

What is written is statements.py, when it is written writer.py, what is read reader.py.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from typing import Dict, List, Optional, Tuple, Union

from agentstream import checks, threads
from agentstream.errors import LogError
from agentstream.events import payloads
from agentstream.events.model import Event, EventType, FrozenDict
from agentstream.events.sqlite import schema, statements
from agentstream.events.sqlite.files import LogFile
from agentstream.events.sqlite.leases import WriterLease
from agentstream.events.sqlite.reader import Reader
from agentstream.events.sqlite.statements import Run
from agentstream.events.sqlite.stop_requests import StopRequests
from agentstream.events.sqlite.writer import Writer
from agentstream.events.store import Bounds, EventStore, RunState, StopCallback

__all__ = ["SqliteStore"]

logger = logging.getLogger("agentstream.events.sqlite")

_POLL_S = 0.025
_REAP_S = 1.0
_NEWS_S = 0.1  # how long the states of runs wait for what is just being written
_WAL_BYTES = 64 * 2**20


class SqliteStore(EventStore):
    """Keeps events in a file.  Any number of processes may open it at once.

    A run's events are written by the process that runs it; all others can read
    them, follow them as they come, and ask for the run to be stopped.  Runs
    whose process has died are found when the file is opened, and closed as
    failed (interrupted).

    Args:
        path: the file; made if there is none, readable for its owner only.
        durability: "normal" or "full".  normal: an append waits for no disk; it
            is committed some milliseconds later, and a commit survives the
            process but perhaps not the machine.  full: an append through an
            `EventStream` returns when it is on the disk.
        max_age: seconds after which events may go; None for never.
        max_events: how many to keep, of all runs together; None for all.
        busy_timeout: seconds to wait for another process that writes.
        max_queue: events that may wait to be committed.  When they are that
            many, an append waits up to `busy_timeout` seconds and then raises.
        on_error: what a full disk or the like means.  "stop": appends raise
            LogError until it is over.  "memory": runs go on, what they append
            (up to ten times `max_queue`) is kept in memory and written when the
            disk takes it again; a system_warning says so.

    Raises:
        ConfigError: an argument makes no sense.
        LogError: the file cannot be used, and why.

    Attributes:
        lost: the positions that the file should have and has not, a torn
            write-ahead log for one, as found when it was opened; None for none.
    """

    shared = True
    _exit_order = 2  # after the streams

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
    ) -> None:
        checks.one_of("durability", durability, ("normal", "full"))
        checks.one_of("on_error", on_error, ("stop", "memory"))
        max_age = checks.seconds("max_age", max_age, optional=True)
        checks.whole("max_events", max_events, 1, optional=True)
        busy_timeout = checks.seconds("busy_timeout", busy_timeout)
        checks.whole("max_queue", max_queue, 1)
        self._file = LogFile(os.fspath(path), busy_timeout, durability)
        self._settles = durability == "full"
        self._keep_going = on_error == "memory"
        self._keep = max_events, max_age
        self._closed = False
        self._log_name = f"log-{os.urandom(4).hex()}"
        self._wal_warned = False
        self._notices: List[Event] = []  # what the file cannot take
        self._noticed = 0
        self.lost: Optional[Bounds] = None
        self._writer = Writer(
            self._file,
            linger=not self._settles,
            max_queue=max_queue,
            busy_timeout=busy_timeout,
            keep_going=self._keep_going,
            housekeeping=self._housekeeping,
        )
        self._writer.on_failure = self._note_failure
        self._reader = Reader(self._file)
        self._reset()
        self._open()
        threads.after_fork(self)
        threads.at_exit(self)

    def _reset(self) -> None:
        self._owner: Optional[WriterLease] = None
        self._owner_id: Optional[int] = None
        self._owning = threading.Lock()
        self._reap_at = 0.0
        self._stop_requests = StopRequests(self)

    def __repr__(self) -> str:
        return f"<SqliteStore {self._file.path!r}>"

    # --- opening ----------------------------------------------------------------------------

    def _open(self) -> None:
        self._file.create()
        connection = self._file.connect()
        try:
            self._file.remember()
            log_id, last = schema.prepare(self._file, connection)
            self._log_id = log_id
            mark = self._file.open_mark(log_id)
            dead = statements.find_dead(connection, self._file.path, None)
            if mark > last or dead:
                connection.execute("BEGIN IMMEDIATE")
                self._report_loss(connection, mark)
                statements.close_interrupted(connection, dead)
                last = statements.last_position(connection)
                connection.execute("COMMIT")
            self._file.mark(last)
        except BaseException as error:
            connection.close()
            self._file.close_mark()
            if isinstance(error, sqlite3.Error):
                raise self._file.explain(error) from error
            raise
        self._reader.use(connection)

    def _report_loss(self, connection: sqlite3.Connection, mark: int) -> None:
        last = statements.last_position(connection)
        if mark <= last:
            return
        self.lost = Bounds(last + 1, mark)
        message = (
            f"the log {self._file.path} has lost events: it ends at position {last} and "
            f"had come to {mark}"
        )
        logger.warning("%s", message)
        # Positions that readers have seen are not given again.
        connection.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'events'", (mark,))
        statements.warn(connection, self._log_name, message)

    # --- writing ----------------------------------------------------------------------------

    def claim(self, workflow_id: str, parent_workflow_id: Optional[str] = None) -> None:
        """See `EventStore.claim`; waits for a commit."""
        with self._writer.lock:
            known = self._writer.runs.get(workflow_id)
            if known is not None:
                if known.last:
                    raise LogError(f"workflow {workflow_id!r} has a log already: choose another id")
                return
        run = Run(workflow_id, parent_workflow_id)
        run.owner = self._own()
        if self._writer.failure is None or not self._keep_going:
            self._writer.do(lambda connection: statements.claim(connection, run))
        with self._writer.lock:
            self._writer.runs.setdefault(workflow_id, run)
        self._stop_requests.start()

    def _own(self) -> int:
        """This process's id as a writer."""
        with self._owning:
            if self._owner_id is None:
                try:
                    owner = self._owner = self._owner or WriterLease(self._file.path)
                except OSError as error:
                    raise LogError(
                        f"no lock file beside the log {self._file.path}: {error.strerror}"
                    ) from None
                self._owner_id = self._writer.do(lambda c: statements.add_owner(c, owner))
            return self._owner_id

    def append(self, event: Event) -> Event:
        """See `EventStore.append`; the position comes with the commit."""
        run = self._writer.runs.get(event[4])
        if run is None:
            if self._has(event):
                return event
            self.claim(event[4], event[5])
            run = self._writer.runs[event[4]]
        self._writer.append(run, event)
        return event

    def _has(self, event: Event) -> bool:
        """True if a run of ours has ended with this event in it."""
        found = self._reader.one(
            "SELECT 1 FROM runs WHERE workflow_id = ? AND owner = ? AND last >= ?",
            event.workflow_id,
            self._owner_id,
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

    def flush(self) -> None:
        """See `EventStore.flush`."""
        self._writer.flush()

    # --- reading ----------------------------------------------------------------------------

    def read(
        self, *, workflow_id: Optional[str] = None, after: int = 0, limit: int = 500
    ) -> List[Event]:
        """See `EventStore.read`.

        Of one workflow, events that are not committed are among them, without a
        position; those of all wait for the commit.

        Raises:
            LogError: the file cannot be read.
        """
        if workflow_id is None:
            return self._read_all(after, limit)
        pending = self._pending_of(workflow_id, after)
        events = self._reader.of_run(workflow_id, after, limit)
        last = events[-1].offset if events else after
        for event in pending:
            if len(events) >= limit:
                break
            if event.offset > last:
                events.append(event)
        return events

    def _read_all(self, after: int, limit: int) -> List[Event]:
        pending: List[Event] = []
        try:
            self._writer.flush()
        except LogError:  # then what is in memory follows, in the order it will be written
            with self._writer.lock:
                pending = list(self._writer.pending)
        events = self._reader.of_all(after, limit)
        if pending:
            first = self._reader.last_position() + 1
            for number, event in enumerate(pending, first):
                if number > after and len(events) < limit:
                    events.append(event._replace(position=number))
        return events

    def _pending_of(self, workflow_id: str, after: int) -> List[Event]:
        writer = self._writer
        with writer.lock:
            run = writer.runs.get(workflow_id)
            if run is None or run.committed >= run.last:
                return []
            return [e for e in writer.pending if e[4] == workflow_id and e[1] > after]

    def bounds(self, workflow_id: Optional[str] = None) -> Bounds:
        """See `EventStore.bounds`."""
        if workflow_id is None:
            with self._writer.lock:
                extra = len(self._writer.pending) if self._writer.failure is not None else 0
            first, last = self._reader.bounds()
            return Bounds(first or (last + 1 if last else 0), last + extra)
        run = self._writer.runs.get(workflow_id)
        last = self._writer.last_of(run) if run is not None else 0
        pending = self._pending_of(workflow_id, 0)
        first, committed = self._reader.bounds_of(workflow_id)
        last = max(last, committed)
        if first is None:
            first = pending[0].offset if pending else last + 1 if last else 0
        return Bounds(first, last)

    def has_ended(self, workflow_id: str) -> bool:
        """See `EventStore.has_ended`."""
        run = self._writer.runs.get(workflow_id)
        if run is not None:
            return run.ended
        return self._reader.status_of(workflow_id) not in (None, *statements.ACTIVE)

    def runs(self, *, limit: int = 100) -> List[RunState]:
        """See `EventStore.runs`."""
        self._writer.urge(_NEWS_S)
        return self._reader.states("ORDER BY id DESC LIMIT ?", limit)

    def run(self, workflow_id: str) -> Optional[RunState]:
        """See `EventStore.run`."""
        self._writer.urge(_NEWS_S)
        found = self._reader.states("AND workflow_id = ?", workflow_id)
        return found[0] if found else None

    def unplaced(self) -> Dict[str, int]:
        """See `EventStore.unplaced`."""
        with self._writer.lock:
            runs = self._writer.runs.values()
            return {run.workflow_id: run.last for run in runs if run.committed < run.last}

    # --- following --------------------------------------------------------------------------

    def wait(self, after: int, timeout: float) -> bool:
        """See `EventStore.wait`; looks at the file every 25 ms."""
        end = time.monotonic() + timeout
        while not self._closed:
            if self._reader.last_position() > after:
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._reap()
            with self._writer.lock:
                if self._writer.position <= after and not self._closed:
                    self._writer.news.wait(min(left, _POLL_S))
        return False

    def read_others(self, after: int, limit: int) -> Tuple[List[Event], int]:
        """See `EventStore.read_others`."""
        events, last = self._reader.of_others(self._owner_id, after, limit)
        notices, self._notices = self._notices, []
        return notices + events, last

    def _reap(self) -> None:
        """Close the runs of processes that have died, now and then."""
        now = time.monotonic()
        if now < self._reap_at:
            return
        self._reap_at = now + _REAP_S
        with self._reader.query() as connection:
            dead = statements.find_dead(connection, self._file.path, self._owner_id)
        if dead:
            with contextlib.suppress(LogError):
                self._writer.do_soon(lambda c: statements.close_interrupted(c, dead))

    # --- stopping ---------------------------------------------------------------------------

    def request_stop(self, workflow_id: str, reason: str) -> bool:
        """See `EventStore.request_stop`; waits for a commit."""
        if self._reader.status_of(workflow_id) not in statements.ACTIVE:
            return False
        return self._writer.do(lambda c: statements.ask_to_stop(c, workflow_id, reason))

    def watch_stops(self, callback: StopCallback) -> None:
        """See `EventStore.watch_stops`."""
        self._stop_requests.add(callback)

    def stop_requests(self) -> List[Tuple[str, str]]:
        """The requests there are for runs of this process, (workflow id, reason) each."""
        found = self._reader.all("SELECT workflow_id, reason FROM stops")
        return [(name, reason) for name, reason in found if name in self._writer.runs]

    def is_writing(self) -> bool:
        """True while runs of this process are under way."""
        return not self._closed and any(not run.ended for run in list(self._writer.runs.values()))

    # --- the writer's side ------------------------------------------------------------------

    def _housekeeping(self, connection: sqlite3.Connection) -> bool:
        size = self._file.wal_bytes()
        if size > _WAL_BYTES and not self._wal_warned:
            self._wal_warned = True
            message = (
                f"the write-ahead log of {self._file.path} has grown to {size >> 20} MiB: "
                "somebody has had it open for reading all the while"
            )
            logger.warning("%s", message)
            statements.warn(connection, self._log_name, message)
        elif size < _WAL_BYTES // 2:
            self._wal_warned = False
        return statements.trim(connection, *self._keep) if any(self._keep) else False

    def _note_failure(self, error: LogError) -> None:
        if self._keep_going:
            data = payloads.system_warning(
                f"{error}: events are kept in memory until it can be written"
            )
            self._noticed += 1
            name = f"{self._log_name}-memory"
            self._notices.append(
                Event(
                    f"{name}:{self._noticed}",
                    self._noticed,
                    None,
                    EventType.SYSTEM_WARNING,
                    name,
                    None,
                    time.time(),
                    FrozenDict(data),
                )
            )

    # --- the end ----------------------------------------------------------------------------

    def close(self) -> None:
        """Write what is pending, let go of the file.  Idempotent.

        Reading is still possible afterwards.
        """
        if self._closed:
            return
        owner_id = self._owner_id
        self._writer.close(lambda c: None if owner_id is None else statements.leave(c, owner_id))
        self._closed = True
        self._stop_requests.end()
        with self._writer.lock:
            self._writer.news.notify_all()
        if self._writer.connection is not None:
            self._writer.connection.close()
            self._writer.connection = None
        self._reader.close()
        if self._owner is not None:
            self._owner.release()
        self._file.close_mark()

    def __enter__(self) -> SqliteStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _at_exit(self) -> None:
        self.close()

    # --- fork -------------------------------------------------------------------------------

    def _before_fork(self) -> None:
        self._writer.before_fork()
        self._reader.lock.acquire()

    def _after_fork_in_parent(self) -> None:
        self._reader.lock.release()
        self._writer.after_fork_in_parent()

    def _after_fork(self) -> None:
        self._reader.after_fork_in_child(self._writer.connection)
        self._writer.connection = None
        if self._owner is not None:
            self._owner.forget()
        callbacks = self._stop_requests.callbacks
        self._writer.after_fork_in_child()
        self._reset()
        self._stop_requests.callbacks = callbacks
        if not self._closed:
            self._file.close_mark()
            self._file.open_mark(self._log_id)
