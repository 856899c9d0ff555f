"""A rate limit's state on a Redis server, which machines share.

One key holds it.  A client reads it with the server's time, changes it, and sets it if it
is still the one it read: one script does both, so that the rules stand in Python only.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import socket
import urllib.parse
from typing import Any, Callable, TypeVar

from agentstream.errors import ConfigError
from agentstream.llm.rate_limit.shared import Busy, Unusable
from agentstream.llm.rate_limit.window import Rules, Window

__all__ = ["LimitServer"]

T = TypeVar("T")

#: ARGV: the SHA-1 of the state that was read, "" to read it; the new state; its life in ms.
_SCRIPT = """
local old = redis.call('GET', KEYS[1]) or ''
if ARGV[1] == redis.sha1hex(old) then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return {1}
end
local now = redis.call('TIME')
return {0, old, now[1], now[2]}
"""
_ANSWER_S = 1.0
_TRIES = 10
#: The state outlives what it holds by this.
_KEPT_S = 60.0


class LimitServer:
    """The server.  One thread at a time uses it.

    Args:
        url: as redis-py takes it; its fragment is the limit's name: "redis://host/0#openai".

    Raises:
        ConfigError: the URL is none, or the module `redis` is missing.
    """

    is_near = False

    def __init__(self, url: str) -> None:
        try:
            self._redis: Any = importlib.import_module("redis")
            for part in ("backoff", "connection", "retry"):
                importlib.import_module(f"redis.{part}")
        except ImportError:
            raise ConfigError(
                "a rate limit on a Redis server needs the module redis:"
                " pip install 'agentstream[redis]'"
            ) from None
        self._url, _, fragment = url.partition("#")
        limit = urllib.parse.unquote(fragment) or "default"
        self.name = f"the rate limit {limit!r} at {_shown(self._url)}"
        self._key = f"agentstream:{{{limit}}}:rate_limit"
        self._connection: Any = None
        self._shut = False
        try:
            parts = urllib.parse.urlsplit(self._url)
            rest = parts.path + parts.query.partition("=")[0]
            if "@" in rest and parts.scheme != "unix":
                raise ValueError  # of a password that is not encoded, which would be shown
            self._new_connection()
        except (ValueError, TypeError):  # its text may hold the URL
            raise ConfigError.about(
                "path",
                "must be a file's, or redis://[user:password@]host[:port][/database][#name],"
                " rediss:// or unix://; / and ? in a password are written %2F and %3F",
            ) from None

    def _new_connection(self) -> Any:
        """A connection, not open yet: no pool, no retries, no decoding."""
        module = self._redis.connection
        options = module.parse_url(self._url)
        kind = options.pop("connection_class", module.Connection)
        never = self._redis.retry.Retry(self._redis.backoff.NoBackoff(), 0)
        own = {
            "decode_responses": False,
            "protocol": 2,
            "retry": never,
            "socket_connect_timeout": _ANSWER_S,
            "socket_timeout": _ANSWER_S,
        }
        return kind(**{**options, **own})

    def change(self, rules: Rules, act: Callable[[Window, float], T]) -> T:
        """See `Shared.change`."""
        self._shut = False
        try:
            answer = self._read()
            for _ in range(_TRIES):
                old, now = answer[1], int(answer[2]) + int(answer[3]) / 1e6
                window = Window(rules)
                with contextlib.suppress(ValueError):  # none yet, or damaged: begun anew
                    window.load(old.decode("utf-8", "replace"))
                given = act(window, now)
                life = max(window.keeps_until - now, 0.0) + _KEPT_S
                read = hashlib.sha1(old, usedforsecurity=False).hexdigest()
                answer = self._run(read, window.dump(), int(life * 1000))
                if answer[0] == 1:
                    return given
        except self._redis.exceptions.RedisError as error:
            self.close()
            raise Unusable(self._explained(error)) from None
        except OSError as error:
            self.close()
            late = isinstance(error, socket.timeout)
            raise Unusable("does not answer" if late else "cannot be reached") from None
        raise Busy

    def _read(self) -> Any:
        if self._connection is not None:
            try:
                return self._run("", "", 1)
            except self._redis.exceptions.ConnectionError:  # it had lain idle for too long
                self.close()
                if self._shut:
                    raise
        self._connection = self._new_connection()
        self._connection.connect()
        return self._run("", "", 1)

    def _run(self, read: str, state: str, life_ms: int) -> Any:
        self._connection.send_command("EVAL", _SCRIPT, 1, self._key, read, state, life_ms)
        return self._connection.read_response()

    def _explained(self, error: Exception) -> str:
        """What an error means; its text may hold what was sent."""
        kinds = self._redis.exceptions
        code = str(error).split(" ")[0]
        if isinstance(error, kinds.AuthenticationError) or code in ("NOAUTH", "WRONGPASS"):
            return "refused the user or the password"
        cause = error.__cause__ or error.__context__  # some versions hide the one in the other
        late = (kinds.TimeoutError, TimeoutError, socket.timeout)  # three, up to Python 3.9
        if any(isinstance(each, late) for each in (error, cause)):
            return "does not answer"
        if isinstance(error, kinds.ConnectionError):
            return "cannot be reached"
        shown = code if code.isupper() and code.isalpha() else "an error"
        return f"answered {shown}"

    def shut(self) -> None:
        """See `Shared.shut`."""
        self._shut = True
        sock = getattr(self._connection, "_sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """See `Shared.close`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.disconnect()

    def after_fork(self) -> None:
        """See `Shared.after_fork`."""
        self._connection = None


def _shown(url: str) -> str:
    """The address of a URL, without credentials and settings."""
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme == "unix":
            return f"unix://{parts.path}"
        host = parts.hostname or "localhost"
        host = f"[{host}]" if ":" in host else host
        return f"{parts.scheme}://{host}:{parts.port or 6379}{parts.path}"
    except ValueError:
        return "a URL that is none"
