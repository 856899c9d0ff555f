"""What is looked at when a log is opened: its version, and the server's settings."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional, Tuple

from agentstream.errors import ConfigError, LogError
from agentstream.events.redis.scripts import OPEN
from agentstream.events.redis.server import Server

__all__ = ["VERSION", "check_policy", "confirmation", "open_log"]

#: Of the layout: another one is not read, and not written.
VERSION = 1
_OLDEST = (7, 0)
_FULL = (7, 2)  # WAITAOF


def open_log(server: Server, *, create: bool = True) -> Tuple[bytes, int]:
    """The log's id and its last position; with `create`, it is made where there is none.

    Raises:
        ConfigError: there is none.
        LogError: it is of another version, or the server could not be asked.
    """
    check_version(server)
    if not create and server.call((b"HGET", server.key, b"id")) == [None]:
        raise ConfigError(f"there is no such log: {server.name}")
    found = server.run(OPEN, os.urandom(8).hex(), VERSION)
    log_id, version, position = found
    if log_id is None or version is None or position is None:
        raise LogError(f"{server.name} is damaged: its head is not whole")
    if version != b"%d" % VERSION:
        written = version.decode("ascii", "replace")
        raise LogError(f"{server.name} has version {written}, and this library reads {VERSION}")
    return log_id, int(position)


def check_version(server: Server) -> None:
    """Raise ConfigError for a server that is too old; one that does not tell is believed."""
    found = version_of(server)
    if found is not None and found < _OLDEST:
        raise ConfigError(f"{server.name}: Redis 7.0 or newer is needed, not {found[0]}.{found[1]}")


def version_of(server: Server) -> Optional[Tuple[int, int]]:
    """The server's version; None where this user may not ask for it."""
    text = _info(server, "server").get("redis_version", "")
    parts = text.split(".")
    return (int(parts[0]), int(parts[1])) if len(parts) > 1 and text[0].isdigit() else None


def check_policy(server: Server) -> None:
    """See that the server lets go of nothing by itself.

    Raises:
        ConfigError: its maxmemory-policy is another than noeviction.
    """
    found = _settings(server, "maxmemory-policy")
    policy = found or _info(server, "memory").get("maxmemory_policy", "")
    if policy not in ("", "noeviction"):
        raise ConfigError(
            f"{server.name}: its maxmemory-policy is {policy}, which deletes runs when memory is "
            "short: set it to noeviction, or give accept_eviction=True"
        )


def confirmation(server: Server, durability: str) -> Optional[Tuple[Any, ...]]:
    """The command behind a commit that says how many others have it; None for none.

    Raises:
        ConfigError: the server cannot promise that.
    """
    within = int(server.timeout * 500)  # half of the time for an answer
    if durability == "replicated":
        return (b"WAIT", 1, within)
    if durability == "normal":
        return None
    if _settings(server, "appendonly") == "yes" and _settings(server, "appendfsync") == "always":
        return None
    version = version_of(server)
    if version is not None and version < _FULL:
        raise ConfigError(
            f"{server.name}: durability='full' needs Redis 7.2, or the settings appendonly yes "
            "and appendfsync always"
        )
    return (b"WAITAOF", 1, 0, within)


def _settings(server: Server, name: str) -> str:
    """One of the server's settings; "" where this user may not ask for it."""
    try:
        (found,) = server.call((b"CONFIG", b"GET", name))
    except LogError as error:
        if error.retryable:
            raise
        return ""  # of a service that has no CONFIG, or an ACL without it
    values: List[bytes] = found or []
    return values[1].decode() if len(values) > 1 else ""


def _info(server: Server, section: str) -> Dict[str, str]:
    try:
        (found,) = server.call((b"INFO", section))
    except LogError as error:
        if error.retryable:
            raise
        return {}
    lines = [line.partition(":") for line in found.decode("utf-8", "replace").splitlines()]
    return {key: value for key, _, value in lines}
