"""Address: where the server of a log is, as a URL says, and as servers have told since.

A URL may name several addresses: nodes of a cluster, of which each leads to the one that has
the log, or Sentinels, which know their master.
"""

from __future__ import annotations

import logging
import urllib.parse
from typing import Any, Dict, List, Optional, Tuple

from agentstream.errors import ConfigError

__all__ = ["Address"]

logger = logging.getLogger("agentstream.events.redis")

_CONNECT_S = 5.0
_SENTINEL_S = 1.0
_SENTINEL = "+sentinel"
_PORT, _SENTINEL_PORT = 6379, 26379
_EXPECTED = (
    "must be redis://[user:password@]host[:port][/database], rediss:// or unix://, or "
    "redis+sentinel://[user:password@]host[:port],.../master[/database]; the database is a number, "
    "and of a user and a password all but letters and digits is percent-encoded"
)


class Address:
    """Makes connections to wherever the log's server is.

    Args:
        module: `redis`.
        url: redis://, rediss:// or unix://, as redis-py takes it, with as many hosts as one
            likes; or redis+sentinel:// (rediss+sentinel:// with TLS), whose hosts are
            Sentinels and whose path begins with the master's name.  The user and the
            password are the master's; `sentinel_username` and `sentinel_password` in
            the query are the Sentinels'.
        timeout: seconds that a server may take for an answer.

    Attributes:
        shown: the URL without credentials and settings.

    Raises:
        ConfigError: the URL is none.
    """

    def __init__(self, module: Any, url: str, timeout: float) -> None:
        self._redis = module
        self._timeout = timeout
        self._master: Optional[str] = None  # its name, where Sentinels are asked
        self._sentinel_login: Dict[str, str] = {}
        try:
            options = self._read(url)
        except (ValueError, TypeError):  # its text may hold the URL
            raise ConfigError.about("url", _EXPECTED) from None
        self._kind: Any = options.pop("connection_class", module.connection.Connection)
        never = module.retry.Retry(module.backoff.NoBackoff(), 0)
        self._options = {
            **options,
            "decode_responses": False,
            "health_check_interval": 0,
            "protocol": 2,
            "retry": never,
            "retry_on_error": [],
            "retry_on_timeout": False,
            "socket_connect_timeout": min(timeout, _CONNECT_S),
        }
        self._place: Dict[str, Any] = {}  # where connections go now
        self.stay()

    def _read(self, url: str) -> Dict[str, Any]:
        """The settings of connections; of a URL with Sentinels, those to the master."""
        parts = urllib.parse.urlsplit(url)
        login, at, netloc = parts.netloc.rpartition("@")
        self._hosts: List[Tuple[str, int]] = []
        path, query, scheme = parts.path, parts.query, parts.scheme
        default = _PORT
        if scheme.endswith(_SENTINEL):
            default, scheme = _SENTINEL_PORT, scheme[: -len(_SENTINEL)]
            if scheme not in ("redis", "rediss"):
                raise ValueError
            name, _, database = path.lstrip("/").partition("/")
            self._master = urllib.parse.unquote(name)
            if not name:
                raise ValueError
            path, query = f"/{database}", self._take_login(query)
        _check_rest(scheme, path, parts)
        self.shown = f"{parts.scheme}://{path}"
        if scheme != "unix":
            netloc = netloc or "localhost"
            self._hosts = [_host_of(text, default) for text in netloc.split(",")]
            hosts = ",".join(f"[{h}]:{p}" if ":" in h else f"{h}:{p}" for h, p in self._hosts)
            self.shown = f"{parts.scheme}://{hosts}{parts.path}"
            netloc = hosts.partition(",")[0]
        query = f"?{query}" if query else ""
        plain = f"{scheme}://{login}{at}{netloc}{path}{query}"
        options: Dict[str, Any] = self._redis.connection.parse_url(plain)
        return options

    def _take_login(self, query: str) -> str:
        """Note what the Sentinels' user is; returns the rest of the query."""
        rest = []
        for key, value in urllib.parse.parse_qsl(query, keep_blank_values=True):
            if key in ("sentinel_username", "sentinel_password"):
                self._sentinel_login[key.partition("_")[2]] = value
            else:
                rest.append((key, value))
        return urllib.parse.urlencode(rest)

    # --- connections ------------------------------------------------------------------------

    def connection(self, patience: float) -> Any:
        """A connection of the module `redis` to where the log is, not open yet.

        Args:
            patience: seconds that a command may block, beside the time for an answer.

        Raises:
            TypeError: the URL has a setting that no connection takes.
        """
        waiting = patience + self._timeout
        return self._kind(**{**self._options, **self._place, "socket_timeout": waiting})

    @property
    def choices(self) -> int:
        """How many places there are to try, one after the other."""
        return len(self._hosts) if self._master is None and len(self._hosts) > 1 else 1

    def find(self) -> None:
        """Ask the Sentinels, if there are any, where the master is.

        Raises:
            redis.ConnectionError: none of them knows.
        """
        if self._master is None:
            return
        for place in list(self._hosts):
            found = self._ask(*place)
            if found is None:
                continue
            self._hosts.remove(place)  # whoever has answered is asked first
            self._hosts.insert(0, place)
            host, port = found[0].decode(), int(found[1])
            if self._place != {"host": host, "port": port}:
                logger.info("the master %r is at %s:%d", self._master, host, port)
                self._place = {"host": host, "port": port}
            return
        raise self._redis.exceptions.ConnectionError("no Sentinel knows the master")

    def _ask(self, host: str, port: int) -> Optional[List[bytes]]:
        """Where the master is, as a Sentinel says; None if it does not answer, or does not know."""
        login = {"username": None, "password": None, **self._sentinel_login}
        own = {**self._options, **login, "db": 0, "host": host, "port": port}
        patience = min(self._timeout, _SENTINEL_S)
        own.update(socket_timeout=patience, socket_connect_timeout=patience)
        sentinel = self._kind(**own)
        try:
            sentinel.connect()
            sentinel.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._master)
            found: Optional[List[bytes]] = sentinel.read_response()
            return found
        except (self._redis.exceptions.RedisError, OSError):
            logger.debug("a Sentinel does not tell", exc_info=True)
            return None
        finally:
            sentinel.disconnect()

    # --- what servers tell ------------------------------------------------------------------

    def has_moved(self, error: BaseException) -> bool:
        """True for a cluster's word that another node has the log: connections go there now.

        All of a log is in one slot, and so on one node.
        """
        if isinstance(error, self._redis.exceptions.MovedError):
            host, port = error.host, error.port
        elif str(error).startswith("MOVED "):
            host, _, port = str(error).split()[-1].rpartition(":")
        else:
            return False
        # Without a host, it is another port of the same.
        self._place = {**self._place, "port": int(port), **({"host": host} if host else {})}
        logger.info("a log of %s is at another node, port %d", self.shown, int(port))
        return True

    def stay(self) -> None:
        """Have connections go where the URL says, should the node that had the log be away.

        Of several hosts that is the next one with each call.
        """
        self._place = {}
        if self._hosts and self._master is None:
            host, port = self._hosts[0]
            self._hosts = [*self._hosts[1:], (host, port)]
            self._place = {"host": host, "port": port}


def _check_rest(scheme: str, path: str, parts: urllib.parse.SplitResult) -> None:
    """See that nothing behind the hosts is a part of a password that was not encoded.

    redis-py passes it by, takes another database than was meant, and it would be shown.

    Raises:
        ValueError: something is.
    """
    names = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
    if parts.fragment or any("@" in name for name, _ in names):
        raise ValueError
    if scheme != "unix":
        database = path.strip("/")
        if "@" in parts.path or (database and not (database.isascii() and database.isdigit())):
            raise ValueError


def _host_of(text: str, port: int) -> Tuple[str, int]:
    """A host and its port, of a URL's part between two commas.

    Raises:
        ValueError: it is none.
    """
    parts = urllib.parse.urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError
    return parts.hostname, parts.port or port
