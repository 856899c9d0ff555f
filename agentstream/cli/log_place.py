"""Where a log is: a file, or a Redis server; opened here, and named without its credentials."""

from __future__ import annotations

import os
import re
import urllib.parse
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

from agentstream import checks
from agentstream.errors import ConfigError

if TYPE_CHECKING:
    from agentstream.events.shared import SharedStore

__all__ = ["LogPlace", "check_log", "has_password", "is_url"]

_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
_EXPECTED = "must be the path of a file, or redis://HOST/0?log=NAME, rediss:// or unix://"
_YES_OR_NO = {"true": True, "1": True, "false": False, "0": False}


def _flag(text: str) -> bool:
    return _YES_OR_NO[text.lower()]


#: What a URL may say of the store behind its "?"; what else stands there is the connection's.
_OPTIONS: Dict[str, Tuple[Callable[[str], Any], str]] = {
    "log": (str, "a name"),
    "durability": (str, "a text"),
    **dict.fromkeys(("max_events", "max_bytes", "max_event_bytes", "max_queue"), (int, "a number")),
    **dict.fromkeys(("max_age", "linger", "lease", "timeout"), (float, "a number")),
    "accept_eviction": (_flag, "true or false"),
}


class LogPlace:
    """A log that a command is to open; as a text, what people are shown of it.

    Args:
        where: a path, or a URL, as `check_log` lets it through.
        password: of the server's user, if the URL has none.
        flags: what a command is given to find it again, behind `--log` and its name; None
            if it finds it without any, by the environment or the config file.
    """

    def __init__(
        self, where: str, password: Optional[str] = None, flags: Optional[Tuple[str, ...]] = ()
    ) -> None:
        self._where = where
        self._password = password
        self._flags = flags

    @property
    def is_file(self) -> bool:
        """True if it is a file of this machine."""
        return not is_url(self._where)

    def __str__(self) -> str:
        return self._where if self.is_file else _shown(self._where, with_user=False)

    def __repr__(self) -> str:
        return f"<LogPlace {self}>"

    @property
    def words(self) -> Tuple[str, ...]:
        """What a command that is shown is given to find the log; no password."""
        if self.is_file:
            return ("--log", self._where)
        if self._flags is None:
            return ()
        # A name alone may be a password in the wrong place.
        with_user = self._password is not None and not has_password(self._where)
        return ("--log", _shown(self._where, with_user=with_user), *self._flags)

    def is_missing(self) -> bool:
        """True if it is known not to be there, without asking a server."""
        return self.is_file and not os.path.exists(self._where)

    def open(
        self, *, create: bool = True, reading: bool = False, days: Optional[float] = None
    ) -> SharedStore:
        """Its store.

        Args:
            create: make a log that is not there.
            reading: nothing is to be written, so that a file which cannot be will do.
            days: after which events may go; None for never.

        Raises:
            ConfigError: there is no such log, or the module for it is missing.
            LogError: it cannot be opened, or its server cannot be reached.
        """
        max_age = None if days is None else days * 86_400
        if self.is_file:
            from agentstream.events.sqlite import SqliteStore  # noqa: PLC0415 - one of the two

            if reading:
                return SqliteStore.for_reading(self._where)
            return SqliteStore(self._where, max_age=max_age)
        from agentstream.events.redis import RedisStore  # noqa: PLC0415 - as above

        url, options = _split(self._where)
        options.setdefault("max_age", max_age)
        try:
            return RedisStore(_with_password(url, self._password), create=create, **options)
        except ConfigError as error:
            if not error.setting:
                raise  # it names the log
            name = "" if error.setting == "url" else f": {error.setting}"
            raise ConfigError(f"the log {self}{name} {error.reason}") from None


def is_url(where: str) -> bool:
    """True for what is no path of a file."""
    return re.match("[a-z][a-z0-9+.-]+://", where, re.IGNORECASE) is not None


def has_password(where: str) -> bool:
    """True for a URL with a password in it, or one that cannot be read."""
    if not is_url(where):
        return False
    try:
        parts = urllib.parse.urlsplit(where)
        return bool(parts.password) or "password" in dict(urllib.parse.parse_qsl(parts.query))
    except ValueError:
        return True


def check_log(where: str, given: str) -> str:
    """The place of a log, as it was `given`; `where` says which setting that is.

    Raises:
        ConfigError: it is none: what SQLite takes for something else than a file, a URL of
            another kind, or one that says something twice, or nothing of use.
    """
    if not is_url(given):
        return _checked_path(where, given)
    # No part of it is told: there may be a password in it.
    try:
        parts = urllib.parse.urlsplit(given)
        several = "," in parts.netloc  # of which each may have a port
        if parts.scheme.lower() not in _SCHEMES or (not several and parts.port == 0):
            raise ConfigError(f"{where} {_EXPECTED}")
        if parts.fragment:
            raise ConfigError(f"{where}: a log's name is written ?log=NAME, not #NAME")
        behind = [name for name, _ in _pairs(parts.query)]
        if parts.scheme.lower() != "unix":
            behind.append(parts.path)
        if any("@" in each for each in behind):
            raise ConfigError(f"{where}: / and ? in a password are written %2F and %3F")
        _split(given)
    except ConfigError as error:
        raise ConfigError(str(error) if error.setting == "" else f"{where}: {error}") from None
    except ValueError:
        raise ConfigError(f"{where} {_EXPECTED}") from None
    return given


def _checked_path(where: str, path: str) -> str:
    if not path or path == ":memory:" or path.lower().startswith("file:"):
        raise ConfigError(f"{where} must be the path of a file, not {path!r}")
    try:
        os.fsencode(path).decode()
    except UnicodeError:
        raise ConfigError(f"{where} is not UTF-8") from None
    if "\0" in path:
        raise ConfigError(f"{where} is no file's name")
    return os.path.expanduser(path)


# --- a URL's parts ---------------------------------------------------------------------------


def _pairs(query: str) -> List[Tuple[str, str]]:
    return urllib.parse.parse_qsl(query, keep_blank_values=True)


def _split(url: str) -> Tuple[str, Dict[str, Any]]:
    """The URL of the server, and what it says of the store.

    Raises:
        ConfigError: it says something twice, or what cannot be meant.
    """
    parts = urllib.parse.urlsplit(url)
    options: Dict[str, Any] = {}
    rest = []
    for name, text in _pairs(parts.query):
        if name not in _OPTIONS:
            rest.append((name, text))
            continue
        kind, expected = _OPTIONS[name]
        if name in options:
            raise ConfigError.about(name, "is there twice")
        try:
            options[name] = kind(text)
        except (ValueError, KeyError):
            raise ConfigError.about(name, f"must be {expected}") from None
        if not text or (kind is float and not checks.is_number(options[name])):
            raise ConfigError.about(name, f"must be {expected}")
    return _joined(parts, parts.netloc, urllib.parse.urlencode(rest)), options


def _joined(parts: urllib.parse.SplitResult, netloc: str, query: str) -> str:
    """A URL, of `unix` too, whose two slashes urllib leaves out."""
    return f"{parts.scheme}://{netloc}{parts.path}{'?' if query else ''}{query}"


def _with_password(url: str, password: Optional[str]) -> str:
    """The URL with a password, if there is one and the URL has none."""
    if password is None or has_password(url):
        return url
    parts = urllib.parse.urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    user = user.rstrip(":")
    secret = urllib.parse.quote(password, safe="")
    return _joined(parts, f"{user}:{secret}@{host}", parts.query)


def _shown(url: str, *, with_user: bool) -> str:
    """The URL without its password, and without whatever else may be secret in it."""
    parts = urllib.parse.urlsplit(url)
    credentials, _, host = parts.netloc.rpartition("@")
    user = credentials.partition(":")[0] if with_user else ""
    kept = [
        (name, text)
        for name, text in _pairs(parts.query)
        if name in (*_OPTIONS, "db") or (name.startswith("ssl_") and name != "ssl_password")
    ]
    query = urllib.parse.urlencode(kept, safe="/:")
    return _joined(parts, f"{user}@{host}" if user else host, query)
