"""Reader: what is read from the log's tables, through one connection that threads take in turn."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
import threading
from typing import AbstractSet, Any, Dict, Iterator, List, Optional, Sequence, Tuple

from agentstream.errors import LogError
from agentstream.events.model import Event, FrozenDict
from agentstream.events.sqlite import entries, rows
from agentstream.events.sqlite.files import LogFile
from agentstream.events.store import RunState

__all__ = ["Reader"]

_MOST_ASKED = 200  # runs that a query names; an SQLite of old takes 999 values
# Connections that a fork copied: closing them would touch the parent's files.
_inherited: List[sqlite3.Connection] = []


class Reader:
    """Reads what is committed; every method may raise LogError."""

    def __init__(self, file: LogFile) -> None:
        self._file = file
        self._closed = False
        self._reset(None)

    def _reset(self, connection: Optional[sqlite3.Connection]) -> None:
        self.lock = threading.RLock()
        self._queries = 0  # under way: above 1 where a signal handler asks within one
        self._connection = connection
        self._leaving: List[sqlite3.Connection] = []  # that are being closed
        self._known: Dict[int, Tuple[str, Optional[str]]] = {}

    def use(self, connection: sqlite3.Connection) -> None:
        """Read through this connection."""
        self._connection = connection

    @contextlib.contextmanager
    def query(self) -> Iterator[sqlite3.Connection]:
        """The connection, held.

        Raises:
            LogError: what SQLite said, and for an argument that it cannot take.
        """
        with self.lock:
            self._file.check()
            self._queries += 1
            try:
                connection = self._connection
                if connection is None:
                    connection = self._connection = self._file.connect()
                yield connection
            except sqlite3.Error as error:
                raise self._file.explain(error) from error
            except (UnicodeEncodeError, OverflowError) as error:
                raise LogError(f"nothing in the log is named or numbered so: {error}") from error
            finally:
                self._queries -= 1
                self._let_go()

    def all(self, sql: str, *values: Any) -> List[Any]:
        """All rows of a query."""
        with self.query() as connection:
            return connection.execute(sql, values).fetchall()

    def one(self, sql: str, *values: Any) -> Any:
        """The first row of a query, or None."""
        with self.query() as connection:
            return connection.execute(sql, values).fetchone()

    def last_position(self) -> int:
        """The position given last."""
        with self.query() as connection:
            return entries.last_position(connection)

    def _select(self, sql: str, *values: Any) -> List[Event]:
        with self.query() as connection:
            found = connection.execute(sql, values).fetchall()
            runs = rows.runs_of(connection, found, self._known)
        return rows.events_from(found, runs)

    def of_run(self, workflow_id: str, after: int, limit: int) -> List[Event]:
        """A workflow's events above an offset."""
        return self._select(
            f"SELECT {rows.COLUMNS} FROM events WHERE run = "
            "(SELECT id FROM runs WHERE workflow_id = ?) AND offset > ? ORDER BY offset LIMIT ?",
            workflow_id,
            after,
            limit,
        )

    def of_all(self, after: int, limit: int) -> List[Event]:
        """All events above a position."""
        return self._select(
            f"SELECT {rows.COLUMNS} FROM events WHERE position > ? ORDER BY position LIMIT ?",
            after,
            limit,
        )

    def of_others(
        self,
        owner: Optional[int],
        taken: Sequence[Tuple[int, int]],
        after: int,
        limit: int,
        only: Optional[AbstractSet[str]],
    ) -> Tuple[List[Event], int, int]:
        """Events above a position of runs that are not `owner`'s, or were not up to a position.

        With the position up to which that goes, and the first that is still there.

        Args:
            owner: this process's lease, None for none.
            taken: the runs that it has taken, by number, and up to which position they
                were others'.
            after: the position.
            limit: how many events at most.
            only: the runs that are asked for, by their workflow ids; None for all.
        """
        earlier = " OR (run = ? AND position <= ?)" * len(taken)
        asked = [] if only is None or len(only) > _MOST_ASKED else list(only)
        of_these = ""
        if only is not None and len(only) <= _MOST_ASKED:
            places = ", ".join("?" * len(asked))
            of_these = f"AND run IN (SELECT id FROM runs WHERE workflow_id IN ({places}))"
        with self.query() as connection:
            last = entries.last_position(connection)
            if last <= after:
                return [], after, 0
            found = connection.execute(
                f"SELECT {rows.COLUMNS} FROM events WHERE position > ? AND position <= ? AND (run "
                f"NOT IN (SELECT id FROM runs WHERE owner = ?){earlier}) {of_these} "
                "ORDER BY position LIMIT ?",
                (after, last, owner or -1, *itertools.chain(*taken), *asked, limit),
            ).fetchall()
            runs = rows.runs_of(connection, found, self._known)
            # Looked at last: what was let go before has left a gap that this shows.
            first = connection.execute("SELECT min(position) FROM events").fetchone()[0]
        events = rows.events_from(found, runs)
        goes_to = (events[-1].position or last) if len(events) == limit else last
        if events and (events[0].position or 0) <= after + 1:
            first = 0  # nothing had been let go when they were read
        return events, goes_to, last + 1 if first is None else first

    def bounds(self) -> Tuple[Optional[int], int]:
        """The first position that is there, or None, and the last one given."""
        first, last = self.one(
            "SELECT (SELECT min(position) FROM events), "
            "(SELECT seq FROM sqlite_sequence WHERE name = 'events')"
        )
        return first, last

    def bounds_of(self, workflow_id: str) -> Tuple[Optional[int], int]:
        """The first offset that is there, or None, and the last one."""
        found: Optional[Tuple[Optional[int], int]] = self.one(
            "SELECT (SELECT min(offset) FROM events WHERE run = runs.id), last "
            "FROM runs WHERE workflow_id = ?",
            workflow_id,
        )
        return found or (None, 0)

    def status_of(self, workflow_id: str) -> Optional[str]:
        """A run's status; None if there is no such run."""
        found = self.one("SELECT status FROM runs WHERE workflow_id = ?", workflow_id)
        return None if found is None else found[0]

    def states(self, rest: str, value: Any) -> List[RunState]:
        """The runs that `rest` of a query with one value asks for; the log's notes are none."""
        found = self.all(
            "SELECT workflow_id, parent, name, status, started, ended, last, usage, "
            f"{self._input()} FROM runs WHERE NOT (status = 'closed' AND owner IS NULL) {rest}",
            value,
        )
        return [_state(row) for row in found]

    def _input(self) -> str:
        """What gives a run's input; a log of 0.1 that cannot be written has none."""
        return (
            "(SELECT text FROM inputs WHERE run = runs.id)" if self.has_table("inputs") else "NULL"
        )

    def has_table(self, name: str) -> bool:
        """False where an older log, which cannot be written, lacks it."""
        return self.one("SELECT 1 FROM sqlite_master WHERE name = ?", name) is not None

    # --- the end, and fork ------------------------------------------------------------------

    def close(self) -> None:
        """Close the file; a later query opens it for its own time."""
        with self.lock:
            self._closed = True
            self._let_go()

    def _let_go(self) -> None:
        """Leave no file open after the end, once nobody reads."""
        if not self._closed or self._queries:
            return
        # Known until it is closed: this may be broken off anywhere, and is then done again.
        if self._connection is not None and self._connection not in self._leaving:
            self._leaving.append(self._connection)
        self._connection = None
        while self._leaving:
            self._leaving[-1].close()
            del self._leaving[-1:]

    @property
    def is_busy(self) -> bool:
        """True while a query is under way."""
        return self._queries > 0

    def after_fork_in_child(self, writers: Optional[sqlite3.Connection]) -> None:
        """Begin anew, and never touch what the parent uses."""
        for connection in (self._connection, *self._leaving, writers):
            if connection is not None:
                _inherited.append(connection)
        self._reset(None)


def _state(row: Tuple[Any, ...]) -> RunState:
    workflow_id, parent, name, status, started, ended, last, usage, input = row
    if started is not None and ended is not None:
        ended = max(started, ended)  # the clock may have been set back in between
    return RunState(
        workflow_id, parent, name, status, started, ended, last, _usage(usage), input=input
    )


def _usage(text: Optional[str]) -> Optional[FrozenDict]:
    try:
        found = None if text is None else json.loads(text)
    except ValueError:
        return None
    return FrozenDict(found) if isinstance(found, dict) else None
