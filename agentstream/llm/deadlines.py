"""The clocks of one call: connect, first_token, stall, total; on monotonic time.

An alarm in the clock's thread stops the attempt when one runs out: the socket's
own timeouts are per read, and a server that drips would never meet them.
"""

from __future__ import annotations

import time
from typing import Callable, Dict, Optional, Tuple, Type

from agentstream import threads
from agentstream.cancel import CancelToken
from agentstream.errors import (
    AgentStreamError,
    ConnectError,
    ConnectTimeout,
    DeadlineExceeded,
    FirstTokenTimeout,
    StallTimeout,
)
from agentstream.llm.settings import Timeouts

__all__ = ["Deadlines"]

#: Once the model has finished, usage and [DONE] have this long to follow.
_TAIL_S = 2.0
#: A clock that comes later than this lets the reader go first, for as long as it was
#: late, within these bounds.
_LATE_S, _GRACE_S, _MOST_GRACE_S = 0.05, 0.25, 1.0

_ERRORS: Dict[str, Tuple[Type[AgentStreamError], str]] = {
    "connect": (ConnectTimeout, "no connection"),
    "first_token": (FirstTokenTimeout, "no text from the model"),
    "stall": (StallTimeout, "the stream fell silent: nothing"),
    "idle": (StallTimeout, "the stream brought signs of life and nothing else"),
    "total": (DeadlineExceeded, "the answer was not complete"),
}


class Deadlines:
    """One set a call.  All but the alarm's own method belong to the reading thread.

    Attributes:
        expired: the clock that stopped the attempt: "connect", "first_token",
            "stall", "idle", "total", or "tail" and "body", which are no failures.
        streaming: the first delta has come, so `stall` counts.
        total_due: when `total` runs out, on `time.monotonic`'s scale.
    """

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._alarm = threads.Alarm(self._ring, grain=1.0)
        self._stop = CancelToken()
        self._kind = ""
        self._stall = self._stall_due = threads.NEVER
        self._look_again = 0.0  # when the clock was told to, since it had come late
        self._alive = True  # bytes of a data line came since the last look
        self.expired = ""
        self.streaming = False
        self.total_due = threads.NEVER
        self._first_since: Optional[float] = None  # of this attempt, if before it is connected

    def start(self, now: float) -> None:
        """The call begins."""
        if self._timeouts.total is not None:
            self.total_due = now + self._timeouts.total

    def stop(self) -> None:
        """The call is over."""
        self._alarm.stop()

    def begin_attempt(self, stop: CancelToken) -> None:
        """From now on, `stop` is what running out cancels."""
        self.expired = ""
        self.streaming = False
        self._first_since = None
        self._stop = stop

    def arm(self, kind: str, seconds: Optional[float]) -> None:
        """Set one of the clocks; the total deadline always counts besides.

        Raises:
            ConnectError: the clock's thread cannot be started.
        """
        self._kind = kind
        due = threads.NEVER if seconds is None else time.monotonic() + seconds
        try:
            threads.arm(self._alarm, min(due, self.total_due))
        except RuntimeError:
            raise ConnectError("no thread could be started for the deadlines") from None

    def queued(self) -> None:
        """The attempt waits for a place in the pool: only the total deadline counts."""
        self.arm("", None)

    def begin_first_token(self) -> None:
        """The attempt waits for a rate limit: from here on the first token is due."""
        self._first_since = time.monotonic()
        self.connected()

    def connecting(self) -> float:
        """The attempt connects; returns when that must be over."""
        self.arm("connect", self._timeouts.connect)
        return self._alarm.due

    def connected(self) -> None:
        """The request goes out: the first token is due."""
        seconds = self._timeouts.first_token
        if seconds is not None and self._first_since is not None:
            seconds -= time.monotonic() - self._first_since
        self.arm("first_token", seconds)

    def begin_stream(self) -> None:
        """The first delta is here: `first_token` is over, `stall` begins."""
        self._begin("stall", self._timeouts.stall)

    def begin_tail(self) -> None:
        """The model has finished: what is left to come has little time."""
        stall = self._timeouts.stall
        self._begin("tail", _TAIL_S if stall is None else min(stall, _TAIL_S))

    def _begin(self, kind: str, seconds: Optional[float]) -> None:
        self._kind = kind
        self.streaming = True
        self._alive = True
        self._stall = threads.NEVER if seconds is None else seconds
        self._alarm.grain = min(max(self._stall, 0.05), 3600.0)
        self._alarm.due = self.total_due

    def is_alive(self) -> None:
        """Bytes of a data line have come."""
        self._alive = True

    def idle(self, until: float) -> float:
        """An event came that adds nothing, a ping perhaps; returns when such must come to an end.

        They keep a stream alive as long as its first token may take, and no longer.

        Args:
            until: what this returned for the event before, if that added nothing
                either; else 0.
        """
        now = time.monotonic()
        if not self.streaming:
            return 0.0
        if not until:
            first = self._timeouts.first_token
            bound = threads.NEVER if first is None else max(first, self._stall)
            return now + (self._stall if self._kind == "tail" else bound)
        if now >= until:
            self.expired = "tail" if self._kind == "tail" else "idle"
            self._stop.cancel(self.expired)
        return until

    def watch(self, read: Callable[[], bytes]) -> Callable[[], bytes]:
        """`read` with the stall clock around it; on the way of every chunk."""
        alarm = self._alarm
        monotonic = time.monotonic

        def watched() -> bytes:
            if not self.streaming:
                return read()
            if self._alive:
                self._alive = False
                self._stall_due = min(monotonic() + self._stall, self.total_due)
            alarm.due = due = self._stall_due
            if due < alarm.entry:
                threads.arm(alarm, due)
            data = read()
            alarm.due = self.total_due  # the caller's time is not the server's
            return data

        return watched

    def _ring(self, now: float) -> None:
        """In the clock's thread: something ran out."""
        due = self._alarm.due
        if due > now:  # moved since
            threads.look_again(self._alarm, due)
            return
        late = now - max(due, self._look_again)
        if late > _LATE_S and now < self.total_due:
            # The process was suspended, or had no time.  What the server sent meanwhile
            # lies in the socket: the reader has it first.
            self._look_again = now + min(max(late, _GRACE_S), _MOST_GRACE_S)
            threads.look_again(self._alarm, self._look_again)
            return
        self.expired = "total" if now >= self.total_due else self._kind
        self._stop.cancel(self.expired)

    def error(self, phase: str) -> AgentStreamError:
        """The error for the clock that ran out."""
        kind, what = _ERRORS[self.expired]
        setting = "first_token" if self.expired == "idle" else self.expired
        seconds = getattr(self._timeouts, setting)
        if self.expired == "connect" and phase == "tls":
            what = "no TLS connection, as https:// asks for,"
        return kind(
            f"{what} within {seconds:g} s (Timeouts.{setting})",
            phase=phase,
            outcome="failed" if phase in ("connect", "tls") else "unknown",
        )
