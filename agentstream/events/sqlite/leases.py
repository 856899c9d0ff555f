"""WriterLease: who writes which run, and whether that process still lives.

A lock file that the system unlocks when the process dies decides it, however it
dies; process ids alone are used again.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import Optional

from agentstream.events.model import new_id
from agentstream.threads.file_lock import try_lock

__all__ = ["WriterLease", "is_alive"]

logger = logging.getLogger("agentstream.events.sqlite")

_WINDOWS = sys.platform == "win32"


class WriterLease:
    """This process's right to write to a log, for as long as it lives or until `release`.

    Attributes:
        token: random hexadecimal digits, which name its lock file.
        pid, started, boot: the process, when it began in clock ticks since boot, and
            which boot that was; "" where the system does not tell.

    Raises:
        OSError: the lock file cannot be made or locked.
    """

    def __init__(self, path: str) -> None:
        self.token = new_id()
        self.pid = os.getpid()
        self.started = _started(self.pid)
        self.boot = _boot()
        self._path = _lock_path(path, self.token)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        # Closed twice, it closes nothing else: a release may be broken off, and done again.
        self._file: Optional[io.FileIO] = io.FileIO(fd, "r+")
        try:
            try_lock(fd)
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        """Remove the lock file: the process writes no more.  Idempotent."""
        if self._file is not None:
            _remove(self._path, self._file)
            self._file = None

    def forget(self) -> None:
        """In a forked child: close the copy of the lock file, which the parent keeps locked."""
        if self._file is not None:
            self._file.close()
            self._file = None


def is_alive(path: str, token: str, pid: int, started: str, boot: str) -> bool:
    """True if the holder of that lease on the log at `path` still lives.

    Removes the lock file of a dead one.
    """
    lock_path = _lock_path(path, token)
    try:
        file = io.FileIO(os.open(lock_path, os.O_RDWR), "r+")
    except FileNotFoundError:  # somebody tidied up: then the process id has to do
        return bool(started) and boot == _boot() and started == _started(pid)
    except OSError:
        return True  # another user's: not ours to say
    try:
        locked = try_lock(file.fileno())
    except OSError:
        locked = False
    if not locked:
        file.close()
        return True
    _remove(lock_path, file)
    return False


def _lock_path(path: str, token: str) -> str:
    return f"{path}-owner-{token}"


def _remove(path: str, file: io.FileIO) -> None:
    if _WINDOWS:  # which removes no open file
        file.close()
    try:
        os.unlink(path)  # while it is locked: nobody finds it unlocked meanwhile
    except FileNotFoundError:
        pass
    except OSError:
        logger.debug("%s is left behind", path, exc_info=True)
    file.close()


def _started(pid: int) -> str:
    """When a process began, in clock ticks since boot; "" where the system does not tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return ""


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
