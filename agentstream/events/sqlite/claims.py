"""Claims: the runs that this process writes, and its right to write them."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from typing import Any, Callable, Optional, Tuple

from agentstream.errors import LogError
from agentstream.events.sqlite import interrupted, statements
from agentstream.events.sqlite.files import LogFile
from agentstream.events.sqlite.leases import WriterLease
from agentstream.events.sqlite.reader import Reader
from agentstream.events.sqlite.statements import Run
from agentstream.events.sqlite.writer import Writer

__all__ = ["Claims"]

_REAP_S = 1.0


class Claims:
    """Makes this process the one writer of runs, and finds those whose writer has died.

    Attributes:
        owner: the number of this process's lease in the log; None before the first claim.
    """

    def __init__(self, file: LogFile, writer: Writer, reader: Reader, *, keep_going: bool) -> None:
        self._file = file
        self._writer = writer
        self._reader = reader
        self._keep_going = keep_going
        self.reset()

    def reset(self) -> None:
        """Begin anew, in a forked child: what was claimed is the parent's."""
        self._lease: Optional[WriterLease] = None
        self.owner: Optional[int] = None
        self._reap_at = 0.0

    def check_writable(self) -> None:
        """Raise LogError if the log was opened for reading only."""
        if self._file.read_only:
            raise LogError(f"the log {self._file.path} was opened for reading only")

    def claim(self, workflow_id: str, parent: Optional[str]) -> Run:
        """The run as this process writes it, claimed unless it is already.

        Raises:
            LogError: it has events, or another owner, or the log cannot be written.
        """
        self.check_writable()
        known = self._writer.runs.get(workflow_id)
        if known is not None:
            return known
        run = Run(workflow_id, parent)
        run.owner = self.owner
        # With a disk that takes nothing, it is claimed when its events are written.
        if run.owner is None or self._writer.failure is None or not self._keep_going:
            self.do(lambda connection, owner: _claim(connection, run, owner))
        return self._writer.runs.setdefault(workflow_id, run)

    def do(self, action: Callable[[sqlite3.Connection, int], Any]) -> Any:
        """Have `action` done within the next commit; it is given the number of the lease, too.

        Raises:
            LogError, Busy: it said so, or there was no commit.
        """

        def act(connection: sqlite3.Connection) -> Tuple[int, Any]:
            owner = self._enter(connection)
            return owner, action(connection, owner)

        self.owner, result = self._writer.do(act)
        return result

    def _enter(self, connection: sqlite3.Connection) -> int:
        """Enter this process's lease into the log; in the writer's thread."""
        try:
            lease = self._lease = self._lease or WriterLease(self._file.path)
        except OSError as error:
            raise LogError(
                f"no lock file beside the log {self._file.path}: {error.strerror}"
            ) from None
        return statements.enter(connection, lease)

    def reap(self) -> None:
        """Leave the runs of processes that have died to others, or end them, now and then."""
        now = time.monotonic()
        if now < self._reap_at or self._file.read_only:
            return
        self._reap_at = now + _REAP_S
        with self._reader.query() as connection:
            dead = interrupted.find_dead(connection, self._file.path, self.owner)
        if dead:
            with contextlib.suppress(LogError):
                self._writer.do_soon(lambda c: interrupted.close_interrupted(c, dead))

    def leave(self, connection: sqlite3.Connection) -> None:
        """Take the lease out of the log; in the writer's thread, when all is written."""
        if self.owner is not None:
            statements.leave(connection, self.owner)

    def release(self) -> None:
        """Write no more.  Idempotent."""
        if self._lease is not None:
            self._lease.release()

    def forget(self) -> None:
        """In a forked child: let go of the copy of the parent's lease, and begin anew."""
        if self._lease is not None:
            self._lease.forget()
        self.reset()


def _claim(connection: sqlite3.Connection, run: Run, owner: int) -> None:
    run.owner = owner
    statements.claim(connection, run)
