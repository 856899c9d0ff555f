"""What may be a log's path, and whether the file there has but one name."""

from __future__ import annotations

import os
import re
from typing import Any, Optional

from agentstream.errors import ConfigError, LogError

__all__ = ["check_names", "checked_path", "is_on_read_only_medium"]

_MOUNTS = "/proc/self/mountinfo"


def checked_path(path: Any) -> str:
    """The real path of a log.

    Raises:
        ConfigError: it names no file; SQLite's ":memory:" and "file:" are none.
    """
    try:
        name: str = os.fsdecode(path)
    except TypeError:
        raise ConfigError.about(
            "path", f"must be a str or a path, not {type(path).__name__}"
        ) from None
    if not name or "\0" in name:
        raise ConfigError.about("path", "must be the name of a file")
    if name == ":memory:":
        raise ConfigError.about(
            "path", "must be the name of a file, not ':memory:': use MemoryStore for that"
        )
    if name.startswith("file:"):
        raise ConfigError.about(
            "path",
            "must be the name of a file, not SQLite's 'file:' URI: give the path alone "
            "('./file:...' for a file of such a name)",
        )
    return os.path.realpath(name)


def check_names(path: str, mounts: str = _MOUNTS) -> None:
    """Raise LogError if a log can be reached by another name as well.

    SQLite keeps the write-ahead log beside the name by which the file was opened:
    two names have two of them, and each overwrites what the other has committed.

    Args:
        path: the log's real path.
        mounts: what lists the mounts; where there is no such file, none are known.
    """
    if os.stat(path).st_nlink > 1:
        raise LogError(
            f"the log {path} has several names (hard links), and would lose events: "
            "copy it to a file of its own, or remove the other names"
        )
    if _mounted_file(path, mounts):
        raise LogError(
            f"the log {path} is a file mounted by itself, and would lose events that are "
            "written by its other name: mount its folder"
        )


def _mounted_file(path: str, mounts: str) -> Optional[str]:
    try:
        with open(mounts, "rb") as file:
            points = [line.split()[4] for line in file]
    except (OSError, IndexError):
        return None
    name = os.fsencode(path)
    for point in points:
        if re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), point) == name:
            return path
    return None


def is_on_read_only_medium(path: str) -> bool:
    """True where nobody can write, whatever the file's mode."""
    if not hasattr(os, "statvfs"):
        return False
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
