"""What one commit holds: events and operations, of which none can spoil it for the others.

An error is either the database's (locked, full, damaged): then nothing is
committed, and all that was to be is told so; or that of one event or operation,
whose values cannot be bound, say: then it alone is taken out.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterator, List, Optional, Tuple

from agentstream.errors import AgentStreamError, LogError
from agentstream.events.model import Event
from agentstream.events.sqlite import statements
from agentstream.events.sqlite.entries import last_position
from agentstream.events.sqlite.files import LogFile
from agentstream.events.sqlite.high_water import HighWaterMark
from agentstream.events.sqlite.statements import Run

__all__ = ["Action", "Committer", "Operation"]

logger = logging.getLogger("agentstream.events.sqlite")

_MOST_WRITTEN = 1000  # stretches of positions

Action = Callable[[sqlite3.Connection], Any]


class Operation:
    """Something to be done within a commit, and what came of it.

    Attributes:
        result: what the action returned.
        error: why it was not done; None if it was.
        done: True once it is known which.
        after: of one that has its place among the events: how many come before it, of all
            that the writer has been given.
    """

    __slots__ = ("_action", "after", "done", "error", "result")

    def __init__(self, action: Action, after: int = 0) -> None:
        self._action = action
        self.after = after
        self.result: Any = None
        self.error: Optional[AgentStreamError] = None
        self.done = False

    def perform(self, connection: sqlite3.Connection) -> None:
        """Do it; what is wrong with it alone goes into `error`.

        Raises:
            sqlite3.Error: the database's.
        """
        try:
            with _savepoint(connection):
                self.result = self._action(connection)
        except AgentStreamError as error:
            self.error = error
        except Exception as error:
            if is_of_the_database(error):
                raise
            logger.debug("an operation on the log failed", exc_info=True)
            self.error = LogError(f"the log refused it: {type(error).__name__}: {error}")
            self.error.__cause__ = error


class Committer:
    """Writes to the log's file, one transaction at a time; used by the writer's thread.

    Args:
        file, mark: what is written.
        housekeeping: called within a transaction, with the number of events that were
            written since it was called last; returns True if there is more to do.

    Attributes:
        connection: the one that writes; None before the first commit.
        in_flight: while a COMMIT is under way, the last position it gives and how many
            events are in it.
        position: the log's last, after the newest commit.
    """

    def __init__(
        self,
        file: LogFile,
        mark: HighWaterMark,
        housekeeping: Callable[[sqlite3.Connection, int], bool],
    ) -> None:
        self.path = file.path
        self._file = file
        self._mark = mark
        self._housekeeping = housekeeping
        self.connection: Optional[sqlite3.Connection] = None
        self.in_flight: Optional[Tuple[int, int]] = None
        self.position = 0
        self._written: Deque[Tuple[int, int]] = deque()  # positions given here, first to last

    def commit(
        self,
        runs: Dict[str, Run],
        batch: List[Event],
        before: List[Operation],
        operations: List[Operation],
        tidy: Optional[int],
    ) -> bool:
        """Commit events and operations, and do the housekeeping unless `tidy` is None.

        What has its place among the events is done before them: within one transaction
        nobody sees in which order it was.  Returns what `housekeeping` returned.

        Raises:
            LogError: nothing of it was committed.
        """
        self._file.check()
        if self.connection is None:
            self.connection = self._file.connect()
        connection = self.connection
        more = False
        try:
            connection.execute("BEGIN IMMEDIATE")
            for operation in before:
                operation.perform(connection)
            first = last_position(connection) + 1
            placed = write_batch(connection, runs, batch)
            for operation in operations:
                operation.perform(connection)
            if tidy is not None:
                more = self._housekeeping(connection, tidy)
            self._file.check()  # what is written into a file that has gone is not kept
            position = last_position(connection)
            self.in_flight = placed, len(batch)
            connection.execute("COMMIT")
        except BaseException as error:
            self.in_flight = None
            self._roll_back(connection)
            if isinstance(error, sqlite3.Error):
                raise self._file.explain(error) from error
            raise
        self.position = position
        self._note_written(first, placed)
        self._mark.raise_to(position)
        return more

    def wrote(self, first: int, last: int) -> bool:
        """True if all of these positions were given to events of this process, of late."""
        return any(a <= first and last <= b for a, b in list(self._written))

    def _note_written(self, first: int, last: int) -> None:
        if first > last:
            return
        if self._written and self._written[-1][1] == first - 1:
            first = self._written.pop()[0]
        self._written.append((first, last))
        if len(self._written) > _MOST_WRITTEN:
            self._written.popleft()

    @staticmethod
    def _roll_back(connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            logger.debug("rolling back failed", exc_info=True)

    def close(self) -> None:
        """Close the connection.  Idempotent."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None  # not before: the close may be broken off, and done again

    def after_fork_in_child(self) -> Optional[sqlite3.Connection]:
        """Let go of the parent's connection, and return it: it must never be closed here."""
        connection, self.connection = self.connection, None
        self.in_flight = None
        return connection


def is_of_the_database(error: BaseException) -> bool:
    """True for what concerns all that is to be written, False for the fault of one value."""
    return (
        isinstance(error, (sqlite3.OperationalError, sqlite3.InternalError))
        or type(error) is sqlite3.DatabaseError
    )


def write_batch(connection: sqlite3.Connection, runs: Dict[str, Run], batch: List[Event]) -> int:
    """Insert events; returns the log's last position.

    The run of an event that cannot be written is refused from there on.

    Raises:
        sqlite3.Error: the database's.
    """
    try:
        with _savepoint(connection):
            return statements.write_events(connection, runs, batch)
    except Exception as error:
        if is_of_the_database(error):
            raise
    for event in batch:  # which of them is it?
        try:
            with _savepoint(connection):
                statements.write_events(connection, runs, [event])
        except Exception as error:
            if is_of_the_database(error):
                raise
            _refuse(runs.get(event[4]), event, error)
    return last_position(connection)


def _refuse(run: Optional[Run], event: Event, error: Exception) -> None:
    message = f"event {event[1]} of {event[4]!r} cannot be kept: {type(error).__name__}: {error}"
    logger.error("%s", message)
    if run is not None:
        run.refused = message


@contextlib.contextmanager
def _savepoint(connection: sqlite3.Connection) -> Iterator[None]:
    """Undo what is written within if it raises, and no more."""
    connection.execute("SAVEPOINT one")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # some errors end the transaction
            connection.execute("ROLLBACK TO one")
            connection.execute("RELEASE one")
        raise
    connection.execute("RELEASE one")
