"""SqliteCheckpoints: what runs need to go on, beside their log; who has which run."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Union

from agentstream.errors import LogError
from agentstream.events.checkpoints import Entry, QueuedRun, check_records
from agentstream.events.resting import INTERRUPTED, SUSPENDED
from agentstream.events.run_state import RunState, first_line
from agentstream.events.shared_checkpoints import SharedCheckpoints, busy
from agentstream.events.sqlite import interrupted, jobs, leases, resumable, statements
from agentstream.events.sqlite.claims import Claims
from agentstream.events.sqlite.commit import is_of_the_database
from agentstream.events.sqlite.entries import last_position
from agentstream.events.sqlite.reader import Reader
from agentstream.events.sqlite.resumable import ACTIVE, Kept
from agentstream.events.sqlite.statements import Run
from agentstream.events.sqlite.writer import Writer

__all__ = ["SqliteCheckpoints"]

_FIRST_FENCE = 1


class _Taken(NamedTuple):
    """What came of taking a run."""

    entry: Entry
    root: Kept
    inner: Sequence[Kept]


class SqliteCheckpoints(SharedCheckpoints):
    """Checkpoints in the log's file, written within the log's commits.

    Args:
        path: the log's.
        claims, writer, reader: of the log.
        on_taken: called with the id of each run that was taken.
    """

    def __init__(
        self,
        path: str,
        claims: Claims,
        writer: Writer,
        reader: Reader,
        *,
        on_taken: Callable[[str], object],
    ) -> None:
        self._path = path
        self._on_taken = on_taken
        self._claims = claims
        self._writer = writer
        self._reader = reader
        self.reset()

    def __repr__(self) -> str:
        return f"<SqliteCheckpoints {self._path!r}>"

    # --- the run's own process --------------------------------------------------------------

    def _check_writable(self) -> None:
        self._claims.check_writable()

    def _begin(self, run: Run, outer: Optional[Run], recover: int, keep: Optional[float]) -> None:
        def enter(connection: sqlite3.Connection) -> None:
            statements.check_claimed(connection, run)
            assert run.id is not None
            above = None
            fence = _FIRST_FENCE
            if outer is not None:
                if outer.fence is None:
                    raise LogError(f"workflow {outer.workflow_id!r} keeps no checkpoint")
                above, fence = outer.id, outer.fence
            run.fence = resumable.begin(connection, (run.id, above, fence, recover, keep))

        self._put(run, enter, wait=False)

    def _write(
        self, run: Run, records: Dict[str, Optional[bytes]], discard: Sequence[str], wait: bool
    ) -> None:
        def write(connection: sqlite3.Connection) -> None:
            if run.keeps:  # nobody else changes that while it is ours
                _check_owner(connection, run)
            elif self._own_root(connection, run).refused is not None:
                return
            run.keeps = True
            assert run.id is not None
            resumable.write(connection, run.id, records, discard)

        self._put(run, write, wait=wait)

    def _refuse(self, run: Run, why: str) -> None:
        def refuse(connection: sqlite3.Connection) -> None:
            resumable.refuse(connection, self._own_root(connection, run).id, why)
            run.keeps = False

        self._put(run, refuse, wait=True)

    def _own_root(self, connection: sqlite3.Connection, run: Run) -> Kept:
        _check_owner(connection, run)
        kept = resumable.find(connection, run.workflow_id)
        if kept is None or kept.fence is None or kept.ended is not None:
            raise resumable.why_not(kept, run.workflow_id)
        if kept.root is not None:
            raise LogError(f"workflow {run.workflow_id!r} is within another, which keeps it all")
        return kept

    def _put(self, run: Run, action: Callable[[sqlite3.Connection], None], *, wait: bool) -> None:
        """Have `action` done in its place among the events; what it fails with, `run` lacks."""

        def act(connection: sqlite3.Connection) -> None:
            run.check_whole()
            try:
                action(connection)
            except Exception as error:
                if not is_of_the_database(error):
                    run.lacks = LogError(f"{error}")
                raise

        self._writer.put(act, wait=wait)

    # --- anybody ----------------------------------------------------------------------------

    def read(self, workflow_id: str) -> Dict[str, bytes]:
        """See `CheckpointStore.read`; all that was written before is among it.

        Raises:
            LogError: the file cannot be read.
        """
        with contextlib.suppress(LogError):
            self._writer.flush()
        with self._reader.query() as connection:
            if not self._reader.has_table("checkpoints"):
                return {}
            root = resumable.find_root(connection, workflow_id)
            return {} if root is None else resumable.records_of(connection, root.id)

    def keys(self, workflow_id: str, starts: Sequence[str]) -> Set[str]:
        """See `CheckpointStore.keys`; it reads no values.

        Raises:
            LogError: the file cannot be read.
        """
        with contextlib.suppress(LogError):
            self._writer.flush()
        with self._reader.query() as connection:
            if not self._reader.has_table("checkpoints"):
                return set()
            root = resumable.find_root(connection, workflow_id)
            return set() if root is None else resumable.keys_of(connection, root.id, starts)

    def answer(self, workflow_id: str, key: str, value: bytes) -> bool:
        """See `CheckpointStore.answer`; waits for a commit."""
        check_records({key: value})
        self._claims.check_writable()
        self._writer.flush()
        kept = bytes(value)

        def add(connection: sqlite3.Connection) -> bool:
            root = resumable.find_root(connection, workflow_id)
            if root is None or not root.can_be_resumed:
                raise resumable.why_not(root, workflow_id)
            added = connection.execute(
                "INSERT OR IGNORE INTO checkpoints VALUES (?, ?, ?)", (root.id, key, kept)
            )
            if added.rowcount > 0 and root.status == SUSPENDED:
                jobs.call(connection, root.id)
            return added.rowcount > 0

        return bool(self._writer.do(add))

    def waiting(self) -> List[RunState]:
        """See `CheckpointStore.waiting`."""
        if not self._reader.has_table("resumable"):
            return []
        found = self._reader.states(
            "AND status IN ('interrupted', 'suspended') AND id IN (SELECT run FROM resumable "
            "WHERE root IS NULL AND refused IS NULL) ORDER BY id LIMIT ?",
            -1,
        )
        return [state._replace(input=first_line(state.input)) for state in found]

    # --- runs that are queued ---------------------------------------------------------------

    def _queue(self, run: QueuedRun) -> None:
        self._claims.check_writable()

        def add(connection: sqlite3.Connection) -> None:
            number = jobs.add(connection, run)
            resumable.write(connection, number, run.records)
            if run.input is not None:
                connection.execute("INSERT INTO inputs VALUES (?, ?)", (number, run.input))

        self._writer.do(add)

    def take_due(self, names: Sequence[str], *, pause: float = 60.0, limit: int = 100) -> List[str]:
        """See `CheckpointStore.take_due`; also ends what processes that died have left."""
        self._claims.check_writable()
        self._claims.reap()
        with self._reader.query() as connection:
            if not jobs.is_any_due(connection, names, pause):
                return []  # nothing is written for nothing
        found: List[str] = self._writer.do(lambda c: jobs.take_due(c, names, pause, limit))
        return found

    def bring_forward(self, workflow_id: str, due: float = 0.0) -> bool:
        """See `CheckpointStore.bring_forward`."""
        self._claims.check_writable()
        return bool(self._writer.do(lambda c: jobs.bring_forward(c, workflow_id, due)))

    # --- taking a run -----------------------------------------------------------------------

    def _take_over(self, workflow_id: str) -> Entry:
        taken: Union[_Taken, LogError] = self._claims.do(
            lambda c, owner: self._take(c, owner, workflow_id)
        )
        if isinstance(taken, LogError):
            raise taken
        self._install(taken)
        return taken.entry

    def _take(
        self, connection: sqlite3.Connection, owner: int, workflow_id: str
    ) -> Union[_Taken, LogError]:
        """Make this process the owner of a run; in the writer's thread.

        Returns the LogError if it cannot be: raised, it would undo that a run of a dead
        process has been ended.
        """
        try:
            root = self._find_free(connection, owner, workflow_id)
        except LogError as error:
            return error
        inner = resumable.inner_of(connection, root.id)
        for kept in (root, *inner):
            stale = self._writer.runs.get(kept.workflow_id)
            if stale is not None:  # its late words are dropped
                stale.refused = f"the run {kept.workflow_id!r} has been taken again"
                stale.lost = True
            self._writer.hand_overs.took(kept.id, last_position(connection))
        fence = resumable.take(connection, root, inner, owner)
        records = resumable.records_of(connection, root.id)
        reach = {kept.workflow_id: kept.last for kept in inner}
        entry = Entry(root.last, fence, root.deaths or 0, root.status, records, reach)
        return _Taken(entry, root._replace(owner=owner), inner)

    def _find_free(self, connection: sqlite3.Connection, me: int, workflow_id: str) -> Kept:
        """The run, which nobody has, or whose process has died.

        Raises:
            Busy: a living process has it.
            LogError: it cannot be resumed.
        """
        kept = resumable.find(connection, workflow_id)
        if kept is not None and kept.root is not None:
            raise LogError(f"workflow {workflow_id!r} is within another: resume that one")
        if kept is not None and kept.status in ACTIVE and not kept.is_free:
            self._free(connection, me, kept)
            kept = resumable.find(connection, workflow_id)
        if kept is None or not kept.can_be_resumed or not kept.is_free:
            raise resumable.why_not(kept, workflow_id)
        return kept

    def _free(self, connection: sqlite3.Connection, me: int, kept: Kept) -> None:
        """Take a run that is under way from its process, if that has died."""
        found = connection.execute(
            "SELECT token, pid, started, boot FROM owners WHERE id IS ?", (kept.owner,)
        ).fetchone()
        if kept.owner == me:
            run = self._writer.runs.get(kept.workflow_id)
            if (run is not None and not run.lost) or not kept.can_be_resumed:
                raise busy(kept.workflow_id, "here")
            # An earlier call has taken it, and was broken off before it could say so.
            resumable.rest(connection, kept.id, INTERRUPTED, inner=True)
        elif found is not None and leases.is_alive(self._path, *found):
            raise busy(kept.workflow_id, f"in process {found[1]}")
        elif kept.owner is not None:
            interrupted.close_interrupted(connection, [kept.owner])

    def _install(self, taken: _Taken) -> None:
        """Have the writer take the events of runs that are this process's now."""
        writer = self._writer
        every = (taken.root, *taken.inner)
        stale = [run for run in (writer.runs.get(one.workflow_id) for one in every) if run]
        if stale:
            writer.flush()  # what they had queued is passed by: they are refused
        for run in stale:
            first, position = run.since + 1, writer.committer.position
            self._writer.hand_overs.left(run.workflow_id, first, run.committed, position)
        with writer.lock:
            for kept in every:
                run = Run(kept.workflow_id, kept.parent)
                run.id, run.owner, run.fence = kept.id, taken.root.owner, taken.entry.fence
                run.last = run.committed = run.since = kept.last
                writer.runs[kept.workflow_id] = run
            writer.runs[taken.root.workflow_id].inner = tuple(taken.entry.inner)
        for kept in every:
            self._on_taken(kept.workflow_id)


def _check_owner(connection: sqlite3.Connection, run: Run) -> None:
    try:
        statements.check_claimed(connection, run)
    except LogError as error:
        run.refused, run.lost = str(error), True  # its runtime is told
        raise
