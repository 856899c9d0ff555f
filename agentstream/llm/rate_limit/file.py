"""A rate limit's state in an SQLite file, which processes of one machine share.

One row holds it; each change is a transaction.  Nothing here waits for long: who finds the
file locked comes back.  A process that is killed in the middle leaves the file as it was.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import urllib.parse
from typing import Callable, List, Optional, Tuple, TypeVar

from agentstream.llm.rate_limit.shared import Busy, Unusable
from agentstream.llm.rate_limit.window import Rules, Window
from agentstream.threads import uptime

__all__ = ["LimitFile"]

T = TypeVar("T")

#: A cancel must not wait for longer than this.
_BUSY_S = 0.005
#: The application_id of such a file (SQLite keeps it in its header), and the form it has.
_APPLICATION, _VERSION = 0x61735F72, 1
_KINDS = (
    ("not a database", "is not an SQLite database"),
    ("malformed", "is damaged"),
    ("readonly", "is read-only"),
    ("read-only", "is read-only"),
    ("is full", "cannot grow: the disk is full"),
    ("unable to open", "cannot be opened"),
)
#: Connections that a fork has copied: to close one would touch what the parent has.
_inherited: List[sqlite3.Connection] = []


class LimitFile:
    """The file.  One thread at a time uses it.

    Args:
        path: where it is, or will be made, for its owner only.
    """

    is_near = True

    def __init__(self, path: str) -> None:
        self.name = f"the rate limit's file {path}"
        self._path = path
        self._connection: Optional[sqlite3.Connection] = None
        self._identity: Optional[Tuple[int, int]] = None

    def change(self, rules: Rules, act: Callable[[Window, float], T]) -> T:
        """What `act` gives, called with the state and the time; what it changes is kept.

        Raises:
            Busy: another process is at it.
            Unusable: the file cannot be used.
        """
        try:
            connection = self._connected()
            try:  # Ctrl-C behind its first line must not leave the file locked
                connection.execute("BEGIN IMMEDIATE")
                window = _load(connection, rules)
                given = act(window, uptime())
                connection.execute("INSERT OR REPLACE INTO state VALUES (1, ?)", (window.dump(),))
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            return given
        except sqlite3.Error as error:
            said = str(error).lower()
            if "locked" in said or "busy" in said:
                raise Busy from None
            self.close()
            reason = next((reason for words, reason in _KINDS if words in said), f"failed: {error}")
            raise Unusable(reason) from None
        except OSError as error:
            self.close()
            raise Unusable(f"cannot be opened: {error.strerror}") from None

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self._identity == _identity(self._path):
                return self._connection
            self.close()  # deleted, or another one has its place
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        self._identity = _identity(self._path)
        url = f"file:{urllib.parse.quote(os.fsencode(self._path))}?mode=rw"
        connection = sqlite3.connect(
            url, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def shut(self) -> None:
        """There is nothing here that a cancel would have to end."""

    def close(self) -> None:
        """Close it; the next change opens it again."""
        connection: Optional[sqlite3.Connection] = getattr(self, "_connection", None)
        self._connection = None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def __del__(self) -> None:
        self.close()

    def after_fork(self) -> None:
        """In the child: have a connection of its own."""
        if self._connection is not None:
            _inherited.append(self._connection)
        self._connection = None


def _prepare(connection: sqlite3.Connection) -> None:
    # What is lost with the machine's power is not worth a wait for the disk.
    connection.execute("PRAGMA synchronous=OFF")
    found = connection.execute("PRAGMA application_id").fetchone()[0]
    if found == _APPLICATION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
                raise Unusable("is a database of something else")
        else:
            connection.execute(f"PRAGMA application_id={_APPLICATION}")
            connection.execute(f"PRAGMA user_version={_VERSION}")
            connection.execute("CREATE TABLE state (id INTEGER PRIMARY KEY, state TEXT)")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _load(connection: sqlite3.Connection, rules: Rules) -> Window:
    row = connection.execute("SELECT state FROM state WHERE id = 1").fetchone()
    window = Window(rules)
    if row is not None:
        with contextlib.suppress(ValueError):  # begun anew
            window.load(row[0])
    return window


def _identity(path: str) -> Optional[Tuple[int, int]]:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
