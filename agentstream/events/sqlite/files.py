"""The log's file: creating it, connecting to it, and what can be wrong with it.

Nothing here opens the database but SQLite: on POSIX, closing any descriptor of
a file drops all locks that the process holds on it.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import struct
import urllib.parse
import zlib
from typing import Optional, Tuple

from agentstream.errors import LogError

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

_MARK = struct.Struct("<16sQI")  # the log's id, its last position, a checksum of the two


class LogFile:
    """Where a log is, and whether that is still the file that was opened."""

    def __init__(self, path: str, busy_timeout: float, durability: str) -> None:
        self.path = os.path.realpath(path)
        self._busy_timeout = busy_timeout
        self._synchronous = "FULL" if durability == "full" else "NORMAL"
        self._identity: Optional[Tuple[int, int]] = None
        self._log_id = b""
        self._mark_fd: Optional[int] = None

    # --- opening ----------------------------------------------------------------------------

    def create(self) -> None:
        """Make the file if there is none, for its owner only.

        Raises:
            LogError: it cannot be made, or cannot be written.
        """
        folder = os.path.dirname(self.path)
        try:
            mode = os.stat(folder).st_mode
            try:
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            except FileExistsError:
                if not stat.S_ISREG(os.stat(self.path).st_mode):
                    raise LogError(f"the log {self.path} is not a file") from None
        except OSError as error:
            raise LogError(f"the log {self.path} cannot be opened: {error.strerror}") from None
        for path in (self.path, folder):
            if not os.access(path, os.W_OK):
                raise LogError(f"the log {self.path} cannot be written: {path} is read-only")
        if os.name == "posix" and mode & stat.S_IROTH:
            logger.warning("the log's folder %s can be read by everybody", folder)

    def connect(self) -> sqlite3.Connection:
        """A connection, for any thread but one at a time.

        Raises:
            LogError: there is none to be had.
        """
        url = f"file:{urllib.parse.quote(self.path)}?mode=rw"  # rw: never makes a new file
        connection: Optional[sqlite3.Connection] = None
        try:
            connection = sqlite3.connect(
                url,
                uri=True,
                timeout=self._busy_timeout,
                isolation_level=None,
                check_same_thread=False,
            )
            connection.execute(f"PRAGMA synchronous={self._synchronous}")
            connection.execute("PRAGMA journal_size_limit=16777216")
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            raise self.explain(error) from error
        return connection

    def remember(self) -> None:
        """Take the file that is there now for the log's."""
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

    # --- the mark: how far the log has come, kept outside of it -----------------------------

    def open_mark(self, log_id: bytes) -> int:
        """The last position the log is known to have had; 0 if that is not known.

        A torn write-ahead log opens as a shorter one, in silence; this tells.
        """
        self._log_id = log_id
        try:
            if self._mark_fd is None:
                flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
                self._mark_fd = os.open(f"{self.path}-mark", flags, 0o600)
            return self._read_mark()
        except OSError:
            logger.warning("the log's mark %s-mark cannot be read", self.path)
            return 0

    def _read_mark(self) -> int:
        assert self._mark_fd is not None
        os.lseek(self._mark_fd, 0, os.SEEK_SET)
        raw = os.read(self._mark_fd, _MARK.size)
        if len(raw) < _MARK.size:
            return 0
        log_id, position, check = _MARK.unpack(raw)
        if log_id != self._log_id or check != zlib.crc32(raw[:24]):
            return 0
        return int(position)

    def mark(self, position: int) -> None:
        """Note that the log has come to `position`."""
        if self._mark_fd is None:
            return
        raw = struct.pack("<16sQ", self._log_id, position)
        try:
            if self._read_mark() < position:
                os.lseek(self._mark_fd, 0, os.SEEK_SET)
                os.write(self._mark_fd, raw + struct.pack("<I", zlib.crc32(raw)))
        except OSError:  # a full disk, say, of which the log itself will tell
            logger.debug("the log's mark was not written", exc_info=True)

    def close_mark(self) -> None:
        """Let go of the mark's file."""
        if self._mark_fd is not None:
            os.close(self._mark_fd)
            self._mark_fd = None
