"""The tables of what runs need to go on: which can be resumed, and their records.

`resumable` has a row for each run that keeps a checkpoint and has not ended, and for
each that has and whose records are still kept; `checkpoints` has the records of roots.
All of it is done within a transaction.
"""

from __future__ import annotations

import sqlite3
import time
from typing import (
    Any,
    Collection,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from agentstream.errors import LogError
from agentstream.events.resting import QUEUED, RESTING
from agentstream.events.sqlite import jobs

__all__ = [
    "ACTIVE",
    "Kept",
    "end",
    "find",
    "forget",
    "inner_of",
    "keys_of",
    "records_of",
    "rest",
    "write",
]

ACTIVE = ("queued", "running")
_ACTIVE = "status IN ('queued', 'running')"
_RESTING = "status IN ('interrupted', 'suspended')"
_AFTER_ALL = "\U0010ffff"  # above every other character


class Kept(NamedTuple):
    """A run, and what its row in `resumable` says; all None without one.

    Attributes:
        id, root: as numbers of `runs`; root is None for one that is a root itself.
    """

    id: int
    workflow_id: str
    parent: Optional[str]
    name: str
    status: str
    owner: Optional[int]
    last: int
    started: Optional[float]
    fence: Optional[int]
    root: Optional[int]
    deaths: Optional[int]
    recover: Optional[int]
    ended: Optional[float]
    refused: Optional[str]

    @property
    def can_be_resumed(self) -> bool:
        """True for a root that keeps a checkpoint with which somebody can go on."""
        kept = self.fence is not None and self.root is None
        return kept and self.ended is None and self.refused is None

    @property
    def is_free(self) -> bool:
        """True for a run that has not ended, and that nobody has."""
        return self.status in RESTING or (self.status == QUEUED and self.owner is None)


def _select(connection: sqlite3.Connection, where: str, *values: Any) -> List[Kept]:
    found = connection.execute(
        "SELECT r.id, r.workflow_id, r.parent, r.name, r.status, r.owner, r.last, r.started, "
        "c.fence, c.root, c.deaths, c.recover, c.ended, c.refused "
        f"FROM runs r LEFT JOIN resumable c ON c.run = r.id WHERE {where}",
        values,
    )
    return [Kept(*row) for row in found.fetchall()]


def find(connection: sqlite3.Connection, workflow_id: str) -> Optional[Kept]:
    """A run by its id; None if there is none."""
    found = _select(connection, "r.workflow_id = ?", workflow_id)
    return found[0] if found else None


def find_root(connection: sqlite3.Connection, workflow_id: str) -> Optional[Kept]:
    """The root that a run is within, or the run itself; None if there is no such run."""
    kept = find(connection, workflow_id)
    if kept is None or kept.root is None:
        return kept
    found = _select(connection, "r.id = ?", kept.root)
    return found[0] if found else kept


def owned_by(connection: sqlite3.Connection, owner: int) -> List[Kept]:
    """The runs under way of a writer."""
    return _select(connection, f"r.owner = ? AND {_ACTIVE}", owner)


def inner_of(connection: sqlite3.Connection, root: int) -> List[Kept]:
    """The runs within a root that have not ended."""
    return _select(connection, f"c.root = ? AND ({_ACTIVE} OR {_RESTING})", root)


# --- records -------------------------------------------------------------------------------


def begin(connection: sqlite3.Connection, values: Tuple[Any, ...]) -> int:
    """Enter a run, unless it is there already; returns its fence.

    `values` are its number, its root's, its fence, and how it is to be recovered and kept.
    """
    connection.execute(
        "INSERT OR IGNORE INTO resumable (run, root, fence, recover, keep) VALUES (?, ?, ?, ?, ?)",
        values,
    )
    found = connection.execute("SELECT fence FROM resumable WHERE run = ?", values[:1]).fetchone()
    return int(found[0])


def write(
    connection: sqlite3.Connection,
    run: int,
    records: Mapping[str, Optional[bytes]],
    discard: Sequence[str] = (),
) -> None:
    """Delete records by the beginning of their keys, then write or (None) delete others."""
    if discard:
        connection.executemany(
            "DELETE FROM checkpoints WHERE run = ? AND key >= ? AND key < ?",
            [(run, start, start + _AFTER_ALL) for start in discard],
        )
    gone = [(run, key) for key, value in records.items() if value is None]
    if gone:
        connection.executemany("DELETE FROM checkpoints WHERE run = ? AND key = ?", gone)
    kept = [(run, key, value) for key, value in records.items() if value is not None]
    if kept:
        connection.executemany("INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?)", kept)


def records_of(connection: sqlite3.Connection, run: int) -> Dict[str, bytes]:
    """All records of a root."""
    found = connection.execute("SELECT key, value FROM checkpoints WHERE run = ?", (run,))
    return dict(found.fetchall())


def keys_of(connection: sqlite3.Connection, run: int, starts: Sequence[str]) -> Set[str]:
    """The keys of a root's records that begin with one of `starts`."""
    found: Set[str] = set()
    for start in starts:
        rows = connection.execute(
            "SELECT key FROM checkpoints WHERE run = ? AND key >= ? AND key < ?",
            (run, start, start + _AFTER_ALL),
        )
        found.update(key for (key,) in rows)
    return found


def refuse(connection: sqlite3.Connection, run: int, why: str) -> None:
    """Nobody is to resume a root: its records go."""
    connection.execute("UPDATE resumable SET refused = ? WHERE run = ?", (why, run))
    connection.execute("DELETE FROM checkpoints WHERE run = ?", (run,))


# --- owners --------------------------------------------------------------------------------


def rest(
    connection: sqlite3.Connection, run: int, status: str, *, inner: bool, deaths: int = 0
) -> None:
    """Nobody has a run any more; with `inner`, nor those within it."""
    runs = [run]
    if inner:
        found = f"SELECT run FROM resumable JOIN runs ON runs.id = run WHERE root = ? AND {_ACTIVE}"
        runs += [row[0] for row in connection.execute(found, (run,)).fetchall()]
    connection.executemany(
        "UPDATE runs SET status = ?, owner = NULL WHERE id = ?", [(status, one) for one in runs]
    )
    if deaths:
        connection.execute("UPDATE resumable SET deaths = deaths + ? WHERE run = ?", (deaths, run))
    jobs.call(connection, run)


def take(connection: sqlite3.Connection, root: Kept, inner: Iterable[Kept], owner: int) -> int:
    """Make `owner` the one writer of a root and of the runs within it; returns its fence."""
    fence = (root.fence or 0) + 1
    connection.execute(
        "UPDATE resumable SET fence = ? WHERE run = ? OR root = ?", (fence, root.id, root.id)
    )
    connection.executemany(
        "UPDATE runs SET status = CASE last WHEN 0 THEN 'queued' ELSE 'running' END, owner = ? "
        "WHERE id = ?",
        [(owner, kept.id) for kept in (root, *inner)],
    )
    jobs.taken(connection, root.id)
    return fence


def leave(connection: sqlite3.Connection, owner: int) -> None:
    """A writer goes, its runs not ended: those that can be resumed are interrupted."""
    for kept in owned_by(connection, owner):
        if kept.can_be_resumed:
            rest(connection, kept.id, RESTING[0], inner=True)


# --- the end -------------------------------------------------------------------------------


def end(connection: sqlite3.Connection, run: int, alive: Collection[Optional[int]] = ()) -> None:
    """A run has ended: its records go, or will after their time; those within it are closed.

    Args:
        connection: within a transaction.
        run: the run, by its number; one without a row is none of ours.
        alive: runs within it that will end by themselves.
    """
    found = connection.execute("SELECT root, keep FROM resumable WHERE run = ?", (run,)).fetchone()
    if found is None:
        return
    root, keep = found
    if root is None:
        connection.executemany(
            "UPDATE runs SET status = 'closed', owner = ifnull(owner, 0) WHERE id = ?",
            [(kept.id,) for kept in inner_of(connection, run) if kept.id not in alive],
        )
        connection.execute("DELETE FROM resumable WHERE root = ?", (run,))
        jobs.forget(connection, run)
        if keep is not None:
            connection.execute("UPDATE resumable SET ended = ? WHERE run = ?", (time.time(), run))
            return
        connection.execute("DELETE FROM checkpoints WHERE run = ?", (run,))
    connection.execute("DELETE FROM resumable WHERE run = ?", (run,))


def forget(connection: sqlite3.Connection) -> None:
    """Let go of the records of runs that ended longer ago than they were to be kept."""
    now = time.time()  # a clock that is wrong costs what nobody needs to go on with
    found = connection.execute(
        "SELECT run FROM resumable WHERE ended IS NOT NULL AND ended + keep < ?", (now,)
    ).fetchall()
    connection.executemany("DELETE FROM checkpoints WHERE run = ?", found)
    connection.executemany("DELETE FROM resumable WHERE run = ?", found)


def why_not(kept: Optional[Kept], workflow_id: str) -> LogError:
    """Why a run cannot be resumed, or answered, as far as its rows tell."""
    name = f"workflow {workflow_id!r}"
    if kept is None:
        return LogError(f"there is no run {workflow_id!r}")
    if kept.ended is not None or kept.status not in (*ACTIVE, *RESTING):
        return LogError(f"{name} has ended: {kept.status}")
    if kept.refused is not None:
        return LogError(f"{name} cannot be resumed: {kept.refused}")
    return LogError(f"{name} keeps no checkpoint")
