"""RateLimit: requests and tokens that may go out within a time, whoever sends them.

Threads stand in line (`line.py`), whoever is its head asks the window (`window.py`), which
is this process's own, or a file's or a Redis server's.  One that cannot be used holds
nobody up: until it can, each process keeps to the limit by itself.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from typing import Callable, Deque, Iterable, Optional, TypeVar, Union

from agentstream import checks, threads
from agentstream.cancel import CancelToken
from agentstream.errors import Cancelled, ConfigError
from agentstream.llm.rate_limit.estimate import Estimator
from agentstream.llm.rate_limit.line import Line
from agentstream.llm.rate_limit.shared import Busy, Shared, Unusable
from agentstream.llm.rate_limit.window import Grant, Rules, Window
from agentstream.llm.retry_hints import Left
from agentstream.threads import uptime

__all__ = ["SERVERS", "RateLimit", "Share"]

logger = logging.getLogger("agentstream.llm.rate_limit")

T = TypeVar("T")
#: What a window is to learn; called with it, and with what its clock is ahead of `uptime`.
_News = Callable[[Window, float], object]
#: How the URL of a Redis server begins.
SERVERS = ("redis://", "rediss://", "unix://")

#: What another process has locked is tried again so soon, and so long.
_BUSY_S, _BUSY_FOR_S = 0.002, 0.5
#: A fork waits so long at most for who is at the window.
_FORK_S = 2.0
#: What cannot be used is left alone for this long.
_UNUSABLE_S = 5.0
#: A wait of this many seconds is told at INFO.
_LONG_WAIT_S = 1.0


class _Wait:
    """One request's wait for its share."""

    __slots__ = ("refused", "since", "stop", "tokens")

    def __init__(self, tokens: int, stop: CancelToken) -> None:
        self.tokens = tokens
        self.stop = stop
        self.since = uptime()
        self.refused = False


class RateLimit:
    """At most so many requests and tokens within a time: `client(rate_limit=RateLimit(60))`.

    One limit serves any number of clients and threads, first come, first served.  Each
    request of a call counts, its retries too.  Within no `per` seconds more goes out than
    the limit (to half a percent); once `burst` requests have gone at once, and whenever there
    are more than the limit lets go, they are spaced evenly.

    Tokens are estimated before a request, prompt and answer: a quarter of a token for each
    byte of text, 1,000 for a picture, and as many for the answer as answers had of late
    (256 at first; at most what the request allows).  The estimate learns, and what the
    server counted is put in its place afterwards.  A request that needs more tokens than
    the limit has goes once nothing else has used any.

    What was not sent is given back, and so are the tokens of what a server refused.  A
    server that asks to wait (429 or 5xx with Retry-After) holds up everybody; one that says
    how little is left of its own limits (x-ratelimit-..., anthropic-ratelimit-...) has that
    spread over the time until there is more, up to a minute.

    Args:
        requests: how many may go out within `per` seconds; None for any number.
        tokens: how many tokens these may cost; None for any number.
        per: in seconds.
        path: what shares the limit: a file, for processes of one machine (SQLite, made for
            its owner only; on a disk of that machine), or a Redis server's URL, for
            machines (extra `redis`; "redis://host/0#openai" for several limits on one).
            None: this process alone; one that is forked has a limit of its own.  While it
            cannot be used, each process keeps to the limit by itself, and a warning is logged.
        burst: how many requests may go at once; default: a tenth of them, five at least.
        within_first_token: the wait counts against `Timeouts.first_token`.  It always
            ends with `Timeouts.total`, and with a cancel.

    Raises:
        ConfigError: a number is out of range, there is neither `requests` nor `tokens`, or
            `path` cannot be one.
    """

    def __init__(
        self,
        requests: Optional[int] = None,
        tokens: Optional[int] = None,
        per: float = 60.0,
        path: Union[str, os.PathLike[str], None] = None,
        *,
        burst: Optional[int] = None,
        within_first_token: bool = False,
    ) -> None:
        of = "RateLimit"
        checks.whole("requests", requests, 1, optional=True, of=of)
        checks.whole("tokens", tokens, 1, optional=True, of=of)
        if requests is None and tokens is None:
            raise ConfigError(f"{of} needs requests= or tokens=, or both", setting="requests")
        per = float(checks.seconds("per", per, of=of))
        checks.whole("burst", burst, 1, requests, optional=True, of=of)
        self.within_first_token = checks.flag("within_first_token", within_first_token, of=of)
        default = 1 if requests is None else min(requests, max(5, requests // 10))
        self._rules = Rules(requests, tokens, per, burst or default)
        self.estimator = Estimator()
        self._shared = _shared(path)
        self._window = Window(self._rules)
        self._held = False
        self._reset()
        threads.after_fork(self)

    def _reset(self) -> None:
        self._line = Line()
        self._news: Deque[_News] = deque()
        self._lock = threading.Lock()
        self._unusable_until = 0.0
        self._busy_since = self._busy_last = 0.0
        self._who = f"{os.getpid()}-{os.urandom(6).hex()}"

    def _before_fork(self) -> None:
        # SQLite is not to be copied in the midst of its work; a server that hangs is.
        self._held = self._lock.acquire(timeout=_FORK_S)

    def _after_fork_in_parent(self) -> None:
        if self._held:
            self._lock.release()

    def _after_fork(self) -> None:
        self._window = Window(self._rules)
        if self._shared is not None:
            self._shared.after_fork()
        self._reset()

    def __repr__(self) -> str:
        rules = self._rules
        shown = {"requests": rules.requests, "tokens": rules.tokens, "per": rules.per}
        fields = [f"{name}={value:g}" for name, value in shown.items() if value is not None]
        return f"RateLimit({', '.join(fields)})"

    def close(self) -> None:
        """Close what `path` names, which is opened again if need be.  Idempotent."""
        if self._shared is not None:
            with self._lock:
                self._shared.close()

    def __enter__(self) -> RateLimit:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """How many threads of this process wait for their share."""
        return len(self._line)

    # --- a request's share ------------------------------------------------------------------

    def take(self, tokens: int = 0, cancel: Optional[CancelToken] = None) -> Share:
        """Wait until a request of so many tokens may go out, and charge it; returns its `Share`.

        The clients do this themselves; here it is for clients of one's own.

        Args:
            tokens: what it will cost, about.
            cancel: ends the wait.

        Raises:
            Cancelled: `cancel` was cancelled before.
        """
        stop = cancel or CancelToken()
        wait = _Wait(tokens, stop)
        grant = self._line.wait(lambda: self._ask(wait), stop)
        if grant is None:
            self._leave()
            raise Cancelled(
                f"the wait for the rate limit was stopped: {stop.reason}", phase="connect"
            )
        if wait.refused:
            waited = uptime() - wait.since
            level = logging.INFO if waited >= _LONG_WAIT_S else logging.DEBUG
            logger.log(level, "a request waited %.3f s for %r", waited, self)
        return Share(self, grant)

    def pause(self, seconds: float) -> None:
        """Let nobody go for so long: a server has asked for it."""
        until = uptime() + seconds
        logger.info("requests wait %.3f s for %r: the server asks for it", seconds, self)
        self._tell(lambda window, ahead: window.pause(until + ahead))

    def note_left(self, left: Iterable[Left]) -> None:
        """Note what a server says to be left of its own limits."""
        now = uptime()
        for each in left:
            self._news.append(
                lambda window, ahead, each=each: window.note_left(  # type: ignore[misc]
                    each.kind, each.left, each.limit, now + ahead, now + ahead + each.reset_s
                )
            )

    def _ask(self, wait: _Wait) -> Union[Grant, float]:
        """A grant, or when to ask again; called by the head of the line."""

        def ask(window: Window, ahead: float, who: str) -> Union[Grant, float]:
            since, now = wait.since + ahead, uptime() + ahead
            answer = window.ask(now, wait.tokens, since, who, waited=wait.refused)
            return answer.grant or answer.again - ahead

        with self._lock:
            try:
                answer = self._change(ask, wait.stop)
            except Busy:
                return uptime() + _BUSY_S
        wait.refused = wait.refused or isinstance(answer, float)
        return answer

    def _leave(self) -> None:
        """Have other processes wait for none of ours, if nobody here waits any more."""
        shared = self._shared
        if shared is None or self._line:
            return
        who = self._who
        if shared.is_near:
            self._tell(lambda window, _: window.leave(who))
        else:  # whoever was cancelled is not kept for that; it will be missed soon
            self._news.append(lambda window, _: window.leave(who))

    def _tell(self, news: _News) -> None:
        """Have the window know of something: now, or if it is being asked, with the next ask."""
        self._news.append(news)
        if self._lock.acquire(blocking=False):
            try:
                self._change(lambda *_: None)
            except Busy:
                pass
            finally:
                self._lock.release()
        self._line.wake()

    # --- the window, ours or shared ---------------------------------------------------------

    def _change(
        self, act: Callable[[Window, float, str], T], stop: Optional[CancelToken] = None
    ) -> T:
        """What `act` gives, called with the window, its clock's lead, and our name in it.

        Raises:
            Busy: another process is at it.
        """
        news = list(self._news)

        def change(window: Window, now: float, who: str) -> T:
            ahead = now - uptime()
            for each in news:
                each(window, ahead)
            return act(window, ahead, who)

        given = self._perform(change, stop or CancelToken())
        for _ in news:
            self._news.popleft()
        return given

    def _perform(self, change: Callable[[Window, float, str], T], stop: CancelToken) -> T:
        shared = self._shared
        if shared is not None and uptime() >= self._unusable_until:
            key = stop.add_callback(shared.shut)
            try:
                if stop.cancelled:
                    raise Busy
                given = shared.change(
                    self._rules, lambda window, now: change(window, now, self._who)
                )
            except Busy:
                if stop.cancelled or not self._is_stuck():
                    raise
                self._set_aside(shared, "is locked by another process")
            except Unusable as trouble:
                if stop.cancelled:
                    raise Busy from None  # the cancel has shut it
                self._set_aside(shared, str(trouble))
            else:
                self._busy_last = 0.0
                if self._unusable_until:
                    self._unusable_until = 0.0
                    logger.info("%s can be used again", shared.name)
                return given
            finally:
                stop.remove_callback(key)
        return change(self._window, uptime(), "")

    def _is_stuck(self) -> bool:
        """True if others have been at it whenever we came, for too long."""
        now = uptime()
        if now - self._busy_last > _BUSY_FOR_S:  # or we did not come
            self._busy_since = now
        self._busy_last = now
        return now - self._busy_since >= _BUSY_FOR_S

    def _set_aside(self, shared: Shared, trouble: str) -> None:
        """Go on with the window of this process, for a while."""
        if not self._unusable_until:
            logger.warning("%s %s: each process keeps to the limit by itself", shared.name, trouble)
        self._unusable_until = uptime() + _UNUSABLE_S
        self._busy_last = 0.0
        shared.close()


class Share:
    """What one request was charged; one thread's.

    Attributes:
        tokens: as it was charged.
    """

    def __init__(self, limit: RateLimit, grant: Grant) -> None:
        self._limit = limit
        self._grant = grant
        self.tokens = grant.tokens

    def correct(self, tokens: int) -> None:
        """Charge this many tokens instead: what the server has counted."""
        self._add(tokens - self.tokens, 0)

    def give_back(self, *, request: bool) -> None:
        """Charge no tokens; with `request`, nothing at all: it was never sent."""
        self._add(-self.tokens, -1 if request else 0)

    def _add(self, tokens: int, requests: int) -> None:
        grant = self._grant
        self.tokens += tokens
        self._limit._tell(lambda window, _: window.correct(grant, tokens, requests))


def _shared(path: Union[str, os.PathLike[str], None]) -> Optional[Shared]:
    """What `path` names; its module is imported by those who have one."""
    if path is None:
        return None
    try:
        name = os.fsdecode(path)
    except TypeError:
        reason = f"must be a str or a path, not {type(path).__name__}"
        raise ConfigError.about("path", reason, "RateLimit") from None
    if name.startswith(SERVERS):
        from agentstream.llm.rate_limit.server import LimitServer  # noqa: PLC0415

        return LimitServer(name)
    if not name or "\0" in name or name == ":memory:" or name.startswith("file:"):
        reason = "must be the name of a file, or the URL of a Redis server"
        raise ConfigError.about("path", reason, "RateLimit")
    from agentstream.llm.rate_limit.file import LimitFile  # noqa: PLC0415 - sqlite3 is dear

    return LimitFile(os.path.abspath(name))
