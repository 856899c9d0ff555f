"""Locks by name, for jobs that must not run twice at once: of one user, between processes.

A lock on a file, gone with its process, however that ends.  The file stays, it
holds nothing but who had it last.  Where it is depends on nothing but the user: a
terminal and cron have other environments, and mean one lock.
"""

from __future__ import annotations

import os
import pathlib
import re
import stat
import sys
import time
from typing import IO, Any

from agentstream.errors import Busy, ConfigError
from agentstream.threads.file_lock import try_lock, unlock

__all__ = ["NamedLock"]

#: Kept over a restart, if the system has it.
_PLACES = ("/var/tmp", "/tmp")


class NamedLock:
    """The user's lock of a name, held from here on until `release`, or by a `with` block.

    Raises:
        Busy: it is held already, by another process or by this one.
        ConfigError: the name, or the folder of the locks, cannot be used.
    """

    def __init__(self, name: Any) -> None:
        if not isinstance(name, str):
            raise ConfigError.about("lock", f"must be a name, not {type(name).__name__}")
        if not re.fullmatch(r"[\w.-]{1,100}", name) or name.startswith("."):
            raise ConfigError(f"lock {name!r}: a name is of letters, digits, '.', '-' and '_'")
        path = _folder() / f"{name}.lock"
        self._file = _opened(path)
        try:
            self._take(name, path)
        except BaseException:
            self._file.close()
            raise

    def _take(self, name: str, path: pathlib.Path) -> None:
        file = self._file
        if not try_lock(file.fileno()):
            file.seek(0)
            raise Busy(f"lock {name} is held{file.read(100).rstrip()}: {path}")
        file.seek(0)
        file.truncate()
        file.write(f" by process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()

    def release(self) -> None:
        """Let go of it.  Idempotent."""
        if not self._file.closed:
            unlock(self._file.fileno())  # a forked child may have the file open as well
            self._file.close()

    def __enter__(self) -> NamedLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _opened(path: pathlib.Path) -> IO[str]:
    try:
        return open(path, "a+", encoding="utf-8")
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "its name is not UTF-8"
        raise ConfigError(f"lock: {path} cannot be used: {why}") from None


def _folder() -> pathlib.Path:
    """One a user, in a place that every system has; made if need be."""
    if sys.platform == "win32":
        folder = pathlib.Path(os.path.expanduser("~"), "AppData", "Local", "agentstream")
    else:
        place = next((place for place in _PLACES if os.path.isdir(place)), _PLACES[-1])
        folder = pathlib.Path(place, f"agentstream-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()  # where all may write, another may have been first
        ours = sys.platform == "win32" or found.st_uid == os.getuid()
        if not ours or not stat.S_ISDIR(found.st_mode):
            raise ConfigError(f"lock: {folder} belongs to another user")
    except OSError as error:
        raise ConfigError(f"lock: {folder} cannot be used: {error.strerror}") from None
    return folder
