"""Who writes which run, and whether that process still lives.

A lock file that the system unlocks when the process dies decides it, however it
dies; process ids alone are used again.
"""

from __future__ import annotations

import logging
import os
from typing import Any, Optional

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["Owner", "is_alive"]

logger = logging.getLogger("agentstream.events.sqlite")


class Owner:
    """This process as a writer of a log."""

    def __init__(self, path: str) -> None:
        self.token = os.urandom(8).hex()
        self.pid = os.getpid()
        self.started = _started(self.pid)
        self.boot = _boot()
        self._path = _lock_path(path, self.token)
        self._fd: Optional[int] = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        _lock(self._fd)

    def release(self) -> None:
        """The process writes no more."""
        if self._fd is not None:
            _remove(self._path, self._fd)
            self._fd = None

    def forget(self) -> None:
        """In a forked child: it is the parent that writes."""
        if self._fd is not None:
            os.close(self._fd)  # the lock is the parent's as long as it has the file open
            self._fd = None


def is_alive(path: str, token: str, pid: int, started: str, boot: str) -> bool:
    """True if that writer of the log at `path` still lives; clears away what a dead one left."""
    lock_path = _lock_path(path, token)
    try:
        fd = os.open(lock_path, os.O_RDWR)
    except FileNotFoundError:  # somebody tidied up: then the process id has to do
        return bool(started) and boot == _boot() and started == _started(pid)
    except OSError:
        return True  # another user's: not ours to say
    if not _lock(fd):
        os.close(fd)
        return True
    _remove(lock_path, fd)
    return False


def _lock_path(path: str, token: str) -> str:
    return f"{path}-owner-{token}"


def _remove(path: str, fd: int) -> None:
    if fcntl is None:  # Windows removes no open file
        os.close(fd)
    try:
        os.unlink(path)  # while it is locked: nobody finds it unlocked meanwhile
    except OSError:
        logger.debug("%s is left behind", path, exc_info=True)
    if fcntl is not None:
        os.close(fd)


def _lock(fd: int) -> bool:
    try:
        if fcntl is not None:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt  # noqa: PLC0415

            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    except OSError:
        return False
    return True


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
