"""HighWaterMark: how far a log has come, kept in a small file beside it.

A torn write-ahead log opens as a shorter one, in silence; the mark tells.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import zlib
from typing import Optional

__all__ = ["HighWaterMark"]

logger = logging.getLogger("agentstream.events.sqlite")

_MARK = struct.Struct("<16sQI")  # the log's id, its last position, a checksum of the two


class HighWaterMark:
    """The last position that a log is known to have had."""

    def __init__(self, path: str) -> None:
        self._path = f"{path}-mark"
        self._log_id = b""
        self._file: Optional[io.FileIO] = None  # closed twice, it closes nothing else
        self._fd: Optional[int] = None

    def open(self, log_id: bytes) -> int:
        """Open the file; returns the position, 0 if it is not known."""
        self._log_id = log_id
        try:
            if self._fd is None:
                flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
                self._file = io.FileIO(os.open(self._path, flags, 0o600), "r+")
                self._fd = self._file.fileno()
            return self._read()
        except OSError:
            logger.warning("the log's high-water mark %s cannot be read", self._path)
            return 0

    def _read(self) -> int:
        assert self._fd is not None
        os.lseek(self._fd, 0, os.SEEK_SET)
        raw = os.read(self._fd, _MARK.size)
        if len(raw) < _MARK.size:
            return 0
        log_id, position, check = _MARK.unpack(raw)
        if log_id != self._log_id or check != zlib.crc32(raw[:24]):
            return 0
        return int(position)

    def raise_to(self, position: int) -> None:
        """Note that the log has come to `position`; it never sinks."""
        if self._fd is None:
            return
        raw = struct.pack("<16sQ", self._log_id, position)
        try:
            if self._read() < position:
                os.lseek(self._fd, 0, os.SEEK_SET)
                os.write(self._fd, raw + struct.pack("<I", zlib.crc32(raw)))
        except OSError:  # a full disk, say, of which the log itself will tell
            logger.debug("the log's high-water mark was not written", exc_info=True)

    def close(self) -> None:
        """Close the file.  Idempotent."""
        self._fd = None
        if self._file is not None:
            self._file.close()
