"""The log's file: creating it, connecting to it, and what can be wrong with it.

Nothing here opens the database but SQLite: on POSIX, closing any descriptor of
a file drops all locks that the process holds on it.
"""

from __future__ import annotations

import functools
import logging
import os
import sqlite3
import stat
import urllib.parse
from typing import Optional, Tuple

from agentstream.errors import LogError
from agentstream.events.sqlite.paths import check_names, is_on_read_only_medium

__all__ = ["LogFile"]

logger = logging.getLogger("agentstream.events.sqlite")

_SENTENCES = (
    ("not a database", "is not an SQLite database"),
    ("malformed", "is damaged"),
    ("readonly", "cannot be written: it is read-only"),
    ("read-only", "cannot be written: it is read-only"),
    ("is full", "cannot grow: the disk is full"),
    ("locked", "is locked by another process"),
    ("unable to open", "cannot be opened"),
    ("disk i/o", "cannot be read or written: the disk reports an error"),
)


@functools.cache  # once is enough
def _warn_of(folder: str) -> None:
    logger.warning("the log's folder %s can be written to by everybody", folder)


class LogFile:
    """Where a log is, and whether that is still the file that was opened."""

    def __init__(
        self, path: str, busy_timeout: float, durability: str, *, read_only: bool = False
    ) -> None:
        self.path = path
        self.read_only = read_only
        self._busy_timeout = busy_timeout
        self._synchronous = "FULL" if durability == "full" else "NORMAL"
        self._identity: Optional[Tuple[int, int]] = None
        self._immutable = False

    # --- opening ----------------------------------------------------------------------------

    def create(self) -> None:
        """Make the file if there is none, for its owner only; only look for it if `read_only`.

        Raises:
            LogError: it cannot be made, or cannot be used as it is to be.
        """
        folder = os.path.dirname(self.path)
        try:
            mode = os.stat(folder).st_mode
            if not self.read_only:
                self._make()
            if not stat.S_ISREG(os.stat(self.path).st_mode):
                raise LogError(f"the log {self.path} is not a file")
            if not is_on_read_only_medium(self.path):
                check_names(self.path)
        except OSError as error:
            raise LogError(f"the log {self.path} cannot be opened: {error.strerror}") from None
        if self.read_only:
            self._check_readable(folder)
            return
        for path in (self.path, folder):
            if not os.access(path, os.W_OK):
                raise LogError(
                    f"the log {self.path} cannot be written: {path} is read-only for this user "
                    "(SqliteStore(..., read_only=True) reads it)"
                )
        if os.name == "posix" and mode & stat.S_IWOTH:  # the files themselves nobody else may read
            _warn_of(folder)

    def _make(self) -> None:
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            pass

    def _check_readable(self, folder: str) -> None:
        """Find out how to read where nothing may be written.

        SQLite reads a log with the help of two files beside it.  Where it cannot
        make them it has to be told that nobody writes; and that must be true.
        """
        if not os.access(self.path, os.R_OK):
            raise LogError(f"the log {self.path} cannot be read by this user")
        if os.access(folder, os.W_OK) or os.access(f"{self.path}-shm", os.R_OK):
            return
        if self.wal_bytes():
            raise LogError(
                f"the log {self.path} cannot be read here: it was not closed, or is being "
                "written, and this user may not write beside it; read a backup of it"
            )
        self._immutable = True

    def connect(self) -> sqlite3.Connection:
        """A connection, for any thread but one at a time.

        Raises:
            LogError: there is none to be had.
        """
        # Never a mode that makes a new file.
        mode = "rw" if not self.read_only else "ro&immutable=1" if self._immutable else "ro"
        url = f"file:{urllib.parse.quote(os.fsencode(self.path))}?mode={mode}"
        connection: Optional[sqlite3.Connection] = None
        try:
            connection = sqlite3.connect(
                url,
                uri=True,
                timeout=self._busy_timeout,
                isolation_level=None,
                check_same_thread=False,
            )
            if not self.read_only:
                connection.execute(f"PRAGMA synchronous={self._synchronous}")
                connection.execute("PRAGMA journal_size_limit=16777216")
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            raise self.explain(error) from error
        return connection

    def remember(self) -> None:
        """Note which file this is, for `check`."""
        self._identity = self._stat()

    def check(self) -> None:
        """Raise LogError unless the file is still the one that was opened."""
        if self._identity is not None and self._stat() != self._identity:
            raise LogError(
                f"the log {self.path} has been moved, deleted or replaced since it was opened"
            )

    def _stat(self) -> Optional[Tuple[int, int]]:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def wal_bytes(self) -> int:
        """How large the write-ahead log is."""
        try:
            return os.stat(f"{self.path}-wal").st_size
        except OSError:
            return 0

    def explain(self, error: BaseException) -> LogError:
        """The LogError for what SQLite said."""
        said = str(error)
        for words, sentence in _SENTENCES:
            if words in said.lower():
                after = f" (waited {self._busy_timeout:g} s)" if words == "locked" else ""
                return LogError(
                    f"the log {self.path} {sentence}{after}", retryable=words == "locked"
                )
        return LogError(f"the log {self.path} failed: {said}")
