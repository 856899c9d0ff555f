"""A lock on an open file, which the system gives up when the process ends, however it does.

flock on POSIX: held by the open file, so a forked child that closes its copy
does not let go of it.  On Windows a single byte far beyond the file's end:
others may read the file meanwhile.
"""

from __future__ import annotations

import os
import sys

__all__ = ["try_lock", "unlock"]

_BYTE = 2**20


def try_lock(fd: int) -> bool:
    """Lock an open file for this open of it alone; False if another one holds the lock.

    It is held until the file is closed.  On Windows this moves the file's place.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415

            os.lseek(fd, _BYTE, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # Windows says EACCES
        return False
    return True


def unlock(fd: int) -> None:
    """Give a lock up before the file is closed, by whoever else that is open in too."""
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415

        os.lseek(fd, _BYTE, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
    else:
        import fcntl  # noqa: PLC0415

        fcntl.flock(fd, fcntl.LOCK_UN)
