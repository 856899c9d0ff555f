"""A lock by name, for jobs that must not run twice at once.

A lock on a file, gone with its process, however that ends.  The file stays, it
holds nothing but who had it last.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import tempfile
import time
from typing import IO, Iterator, Optional

from agentstream.cli.endings import Locked
from agentstream.errors import ConfigError
from agentstream.threads.file_lock import try_lock

__all__ = ["hold"]


@contextlib.contextmanager
def hold(name: Optional[str]) -> Iterator[None]:
    """Hold the user's lock of that name; None for no lock.

    Raises:
        Locked: another process holds it.
        ConfigError: the name, or the folder of the locks, cannot be used.
    """
    if name is None:
        yield
        return
    if not re.fullmatch(r"[\w.-]{1,100}", name) or name.startswith("."):
        raise ConfigError(f"--lock {name!r}: a name is of letters, digits, '.', '-' and '_'")
    path = _folder() / f"{name}.lock"
    with _opened(path) as file:
        if not try_lock(file.fileno()):
            file.seek(0)
            raise Locked(f"--lock {name} is held{file.read(100).rstrip()}")
        file.seek(0)
        file.truncate()
        file.write(f" by process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()
        yield


def _opened(path: pathlib.Path) -> IO[str]:
    try:
        return open(path, "a+", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--lock: {path} cannot be used: {error.strerror}") from None


def _folder() -> pathlib.Path:
    """One a user, the same for a terminal and for cron, whose environments differ."""
    home = os.path.expanduser("~")
    if os.path.isdir(home) and os.access(home, os.W_OK):
        folder = pathlib.Path(home, ".local", "state", "agentstream")
    else:  # a system's user without a home
        who = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
        folder = pathlib.Path(tempfile.gettempdir(), f"agentstream-{who}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
            raise ConfigError(f"--lock: {folder} belongs to another user")
    except OSError as error:
        raise ConfigError(f"--lock: {folder} cannot be used: {error.strerror}") from None
    return folder
