"""The Redis server of a log: connections to it, and what its errors mean.

The only importer of the module `redis`, and not before a store is made.  Of that module
only connections are used: no pool, no retries (a command that is sent again blindly is
done twice), no decoding of replies into dicts (which lose repeated fields).
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
from collections import deque
from typing import (
    Any,
    Callable,
    Deque,
    Iterator,
    List,
    Optional,
    Sequence,
    TypeVar,
    Union,
)

from agentstream.errors import ConfigError, LogError
from agentstream.events.redis.address import Address
from agentstream.events.redis.scripts import Script

__all__ = ["Link", "Server", "pack"]

logger = logging.getLogger("agentstream.events.redis")

_MOST_LINKS = 16  # of a process, but for those that its threads have for themselves
_DENIED = "user executing the script can't run this command"  # of Redis 7, under no code

T = TypeVar("T")
Argument = Union[bytes, str, int, float]


class Server:
    """A Redis server, and connections to it that threads take in turn.

    Args:
        url: where it is; see `Address`.
        log: the log's name.
        timeout: seconds that the server may take for an answer.

    Attributes:
        name: the server and the log as errors name them, without credentials.
        key: the first key of the log; all others begin with `prefix`.
        keys: what a script is given as its keys.

    Raises:
        ConfigError: the URL is none, or the module `redis` is missing.
    """

    def __init__(self, url: str, log: str, timeout: float) -> None:
        try:
            import redis  # noqa: PLC0415 - who uses it pays for it
            import redis.backoff  # noqa: PLC0415
            import redis.connection  # noqa: PLC0415
            import redis.retry  # noqa: PLC0415
        except ImportError:
            raise ConfigError(
                "RedisStore needs the module redis: pip install 'agentstream[redis]'"
            ) from None
        self._redis: Any = redis
        self.timeout = timeout
        self.key = f"agentstream:{{{log}}}:log".encode()
        self.prefix = self.key[: -len(b"log")]
        # The second one never exists.  While a cluster moves the log to another node it refuses
        # scripts of which it lacks a key: each is refused then, and none is done by half.
        self.keys = (self.key, self.prefix + b"none")
        self._address = Address(redis, url, timeout)
        self.name = f"the log {log!r} at {self._address.shown}"
        self.reset()
        self.new_link()  # that the settings of the URL are some

    def reset(self) -> None:
        """Begin anew, in a forked child: the parent's connections are left alone."""
        self._idle: Deque[Link] = deque()
        self._places = threading.BoundedSemaphore(_MOST_LINKS)
        self._closed = False

    def has_moved(self, error: BaseException) -> bool:
        """True for a cluster's word that another node has the log: connections go there now."""
        moved = self._address.has_moved(error)
        if moved:
            self._close_idle()
        return moved

    def new_link(self, patience: float = 0.0) -> Link:
        """A connection of one's own, not open yet.

        Args:
            patience: seconds that a command may block, beside the time for an answer.
        """
        try:
            return Link(self, patience)
        except TypeError:
            raise ConfigError.about("url", "has a setting that no connection takes") from None

    @contextlib.contextmanager
    def link(self) -> Iterator[Link]:
        """A connection for a moment; each thread has one of its own, signal handlers too."""
        # A signal handler that waits for the thread it interrupted goes on without a place.
        placed = self._places.acquire(timeout=self.timeout)
        try:
            link = self._idle.pop()
        except IndexError:
            link = self.new_link()
        try:
            yield link
        finally:
            if len(self._idle) >= _MOST_LINKS:
                link.close()
            else:
                self._idle.append(link)
            if self._closed:  # looked at behind it: whoever closes may come in between
                self._close_idle()
            if placed:
                self._places.release()

    def call(self, *commands: Sequence[Argument]) -> List[Any]:
        """What the server answers to each command; they go out together.

        Raises:
            LogError: what was wrong.
        """
        return self._attempt(lambda link: link.call(*commands))

    def run(self, script: Script, *arguments: Argument) -> Any:
        """What a script answers, given the log's first key.

        Raises:
            LogError: what was wrong.
        """
        return self._attempt(lambda link: link.run(script, *arguments))

    def run_safely(
        self,
        confirm: Optional[Sequence[Argument]],
        script: Script,
        arguments: Sequence[Argument],
    ) -> Any:
        """As `run`; returns once as many have it as the command `confirm` waits for.

        Raises:
            LogError: what was wrong; it is not known to be as safe as that.
        """
        return self._attempt(lambda link: link.run_safely(confirm, script, arguments))

    def _attempt(self, act: Callable[[Link], T]) -> T:
        """Do something that may be done twice; again if it is the connection that was at fault."""
        with self.link() as link:
            try:
                return act(link)
            except LogError:
                if not link.is_stale:
                    raise
            return act(link)

    def close(self) -> None:
        """Close what is idle; later calls have connections for their own time."""
        self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    # --- errors -----------------------------------------------------------------------------

    def explain(self, error: BaseException) -> LogError:
        """What an error of the module `redis` means; its text may hold what was sent."""
        kinds = self._redis.exceptions
        code = str(error).split(" ")[0]
        if isinstance(error, kinds.AuthenticationError) or code in ("NOAUTH", "WRONGPASS"):
            return self._error("refused the user or the password")
        if isinstance(error, kinds.NoPermissionError) or _DENIED in str(error):
            return self._error("does not let this user do that: see its ACL (permission)")
        if isinstance(error, kinds.BusyLoadingError):
            return self._error("is loading its data", retryable=True)
        if isinstance(error, (kinds.ConnectionError, kinds.TimeoutError, OSError)):
            cause = error.__context__ or error.__cause__ or error
            if isinstance(cause, ssl.SSLError):
                return self._error("has no certificate that is trusted here")
            late = isinstance(error, (kinds.TimeoutError, socket.timeout))
            return self._error(
                "does not answer" if late else "cannot be reached", retryable=True, unknown=True
            )
        if isinstance(error, kinds.ReadOnlyError) or code in ("READONLY", "MASTERDOWN"):
            return self._error("is a replica, and takes no writes", retryable=True)
        if isinstance(error, kinds.OutOfMemoryError) or code == "OOM" or "OOM" in str(error)[:200]:
            return self._error("is out of memory (maxmemory)", retryable=True)
        if isinstance(error, (kinds.ClusterDownError, kinds.TryAgainError, kinds.AskError)):
            return self._error("is a cluster that changes", retryable=True)
        if isinstance(error, kinds.ResponseError):
            shown = code if code.isupper() and code.isalpha() else "an error"
            passing = ["MISCONF", "NOREPLICAS", "TRYAGAIN", "CLUSTERDOWN", "MOVED", "ASK", "BUSY"]
            moved = isinstance(error, kinds.MovedError)
            return self._error(f"answered {shown}", retryable=moved or code in passing)
        return self._error(f"failed: {type(error).__name__}", retryable=True, unknown=True)

    def _error(self, trouble: str, *, retryable: bool = False, unknown: bool = False) -> LogError:
        return LogError(
            f"the server of {self.name} {trouble}",
            retryable=retryable,
            outcome="unknown" if unknown else "failed",
        )

    def gone(self) -> LogError:
        """What to say where the log is not there any more, or another is."""
        return LogError(
            f"{self.name} is gone: it was flushed, or another has its place; "
            "a process that is started anew goes on with what is there"
        )


class Link:
    """One connection, used by one thread at a time.

    Attributes:
        count: how often it has been opened.
        is_stale: what failed last failed as the connection had been cut since it was used
            before, or led to a node that has the log no longer.
    """

    def __init__(self, server: Server, patience: float) -> None:
        self._server = server
        self._patience = patience
        self._connection = server._address.connection(patience)
        self.count = 0
        self.is_stale = False

    def open(self) -> None:
        """Connect, unless it is.

        Raises:
            LogError: it cannot be.
        """
        if self._connection._sock is not None:
            return
        address = self._server._address
        for left in reversed(range(address.choices)):
            try:
                address.find()
                self._connection = address.connection(self._patience)
                self._connection.connect()
                break
            except Exception as error:  # noqa: BLE001 - some of redis-py's are no RedisError
                self._connection.disconnect()
                address.stay()
                explained = self._server.explain(error)
                if not left or not explained.retryable:
                    raise explained from None
        self.count += 1

    def call(self, *commands: Sequence[Argument]) -> List[Any]:
        """See `Server.call`."""
        return self.exchange(b"".join(pack(command) for command in commands), len(commands))

    def run(self, script: Script, *arguments: Argument) -> Any:
        """See `Server.run`."""
        (answer,) = self.send_script(script, arguments)
        return self.checked(answer)

    def send_script(
        self, script: Script, arguments: Sequence[Argument], *after: Sequence[Argument]
    ) -> List[Any]:
        """What a script answers, and commands behind it."""
        rest = b"".join(pack(command) for command in after)
        for head in ((b"EVALSHA", script.sha), (b"EVAL", script.text)):
            command = (*head, 2, *self._server.keys, *arguments)
            try:
                return self.exchange(pack(command) + rest, 1 + len(after))
            except _NoScript:
                continue
        raise AssertionError("a script that is sent whole is known")

    def run_safely(
        self,
        confirm: Optional[Sequence[Argument]],
        script: Script,
        arguments: Sequence[Argument],
    ) -> Any:
        """See `Server.run_safely`."""
        after = () if confirm is None else (confirm,)
        answers = self.send_script(script, arguments, *after)
        answer = self.checked(answers[0])
        self.check_confirmed(answers[1:])
        return answer

    def check_confirmed(self, answers: Sequence[Any]) -> None:
        """See what the command of `run_safely` was answered, if there was one.

        Raises:
            LogError: fewer have it than were asked for.
        """
        for answer in answers:
            if (answer[0] if isinstance(answer, list) else answer) < 1:
                raise LogError(
                    f"{self._server.name} has it, but not as safely as was asked for",
                    retryable=True,
                    outcome="unknown",
                )

    def checked(self, answer: Any) -> Any:
        """A script's answer.

        Raises:
            LogError: the log is gone.
        """
        if answer == [b"gone"]:
            raise self._server.gone()
        return answer

    def exchange(self, sent: bytes, count: int) -> List[Any]:
        """Send bytes, and read so many answers.

        Raises:
            LogError: what was wrong; of several answers with an error, the first.
        """
        opened, self.is_stale = self.count, False
        self.open()
        connection = self._connection
        answers: List[Any] = []
        wrong: Optional[BaseException] = None
        kinds = self._server._redis.exceptions
        try:
            connection.send_packed_command([sent], check_health=False)
            for _ in range(count):
                try:
                    answers.append(connection.read_response())
                except kinds.ResponseError as error:
                    wrong = wrong or error
        except BaseException as error:
            self.close()  # what is under way has no end that anybody could find
            late = isinstance(error, (kinds.TimeoutError, socket.timeout))
            self.is_stale = self.count == opened and not late
            if isinstance(error, Exception):
                raise self._server.explain(error) from None
            raise
        if isinstance(wrong, kinds.NoScriptError):
            raise _NoScript
        if wrong is not None:
            if self._server.has_moved(wrong):
                self.is_stale = True
                self.close()
            elif isinstance(wrong, kinds.ReadOnlyError):
                self.close()  # the next one may be to the new master
            raise self._server.explain(wrong) from None
        return answers

    def shut(self) -> None:
        """Have whoever waits for an answer wait no longer; from any thread."""
        sock = self._connection._sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it; it can be opened again.  Idempotent."""
        with contextlib.suppress(Exception):
            self._connection.disconnect()


class _NoScript(Exception):
    """The server does not know a script by its name."""


def pack(command: Sequence[Argument]) -> bytes:
    """A command as the server reads it (RESP 2)."""
    parts = [b"*%d\r\n" % len(command)]
    add = parts.append
    for value in command:
        data = value if value.__class__ is bytes else _encoded(value)
        add(b"$%d\r\n" % len(data))
        add(data)
        add(b"\r\n")
    return b"".join(parts)


def _encoded(value: Argument) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
