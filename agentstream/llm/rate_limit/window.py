"""Window: what a rate limit lets go out, and when.  Pure: times come from the caller.

Two rules hold together.  A sliding window: what went out within any `per` seconds is at most
the limit.  And GCRA, the generic cell rate algorithm of ATM: after a burst, requests are
spaced evenly, so that a window is not spent in its first second.  The window is counted in
slots of a 200th of `per`, which bounds what is kept and costs at most half a percent.

Tokens are charged as they were estimated, and corrected in the slot they were charged to.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

__all__ = ["Answer", "Grant", "Rules", "Window"]

_SLOTS = 200
#: So many of the limits that a server tells of are looked at.
_MOST_KINDS = 8
#: No word of a server holds anybody back for longer than this, or `per` if that is longer.
_LONGEST_HINT_S = 60.0
#: Of those who share a limit, the head of each process's line says at least so often that it
#: is still there; and so late it may be before the next one goes first.
_COMES_BACK_S, _GRACE_S = 0.5, 0.05
#: Who is not the first of these asks again as soon as this, and no later than that.
_SOON_S, _AGAIN_S = 0.002, 0.1
#: A thread may wake this late, on a busy machine.
_LATE_S = 0.05


class Rules(NamedTuple):
    """What is allowed.

    Attributes:
        requests, tokens: within `per` seconds; None for any number.
        burst: requests that may go out at once.
    """

    requests: Optional[int]
    tokens: Optional[int]
    per: float
    burst: int

    @property
    def interval(self) -> float:
        """Seconds from one request to the next, once a burst is spent."""
        return self.per / self.requests if self.requests else 0.0


class Grant(NamedTuple):
    """What one request was charged: so many tokens, in the slot that began at `at`."""

    at: float
    tokens: int


class Answer(NamedTuple):
    """A grant; without one, when to ask again."""

    grant: Optional[Grant]
    again: float = 0.0


class Window:
    """What has gone out, and what is known of the server.

    Every method is given the time, in seconds on a clock that never goes back but with
    the machine; if it does, all that is known is of another time, and forgotten.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._width = rules.per / _SLOTS
        self._forget()

    def _forget(self) -> None:
        self._slots: List[List[float]] = []  # [when it began, requests, tokens], oldest first
        self._paced = 0.0  # GCRA's theoretical arrival time
        self._paused = 0.0  # nobody goes before then
        self._last = 0.0  # when somebody went
        self._left: Dict[str, Tuple[float, float, float]] = {}  # kind: what is left, from, until
        self._heads: Dict[str, Tuple[float, float]] = {}  # process: since when, present until

    # --- asking -----------------------------------------------------------------------------

    def ask(
        self, now: float, tokens: int, since: float = 0.0, who: str = "", *, waited: bool = False
    ) -> Answer:
        """A request's share, or when to ask for it again.

        Args:
            now: the time.
            tokens: what it will cost; more than the limit counts as all of that.
            since: when it began to wait.
            who: its process, among several that share the window.  Of those, who has
                waited longest goes first, for as long as it keeps coming back.
            waited: it was refused before.  There are more than the limit lets go, so no
                burst follows it.
        """
        if self._last > now + 1.0:
            self._forget()
        oldest = now - self._rules.per - self._width
        while self._slots and self._slots[0][0] <= oldest:
            del self._slots[0]
        before = self._count_before(now, since, who)
        due = self._due(now, tokens)
        if due <= now and not before:
            self._heads.pop(who, None)
            return Answer(self._charge(now, tokens, waited))
        again = due
        if before:
            again = max(now, due) + min(max(before * self._rules.interval, _SOON_S), _AGAIN_S)
        if who:
            again = min(again, now + _COMES_BACK_S)
            self._heads[who] = (since, again + _GRACE_S)
        return Answer(None, again)

    def _count_before(self, now: float, since: float, who: str) -> int:
        for other, (_, until) in list(self._heads.items()):
            if until < now:  # killed, or too late
                del self._heads[other]
        return sum((began, other) < (since, who) for other, (began, _) in self._heads.items()
                   if other != who)  # fmt: skip

    def leave(self, who: str) -> None:
        """Nobody of that process waits any more."""
        self._heads.pop(who, None)

    def _due(self, now: float, tokens: int) -> float:
        """When a request of so many tokens may go."""
        rules = self._rules
        due = max(now, self._paused)
        if rules.requests is not None:
            due = max(due, self._paced - (rules.burst - 1) * rules.interval)
            due = max(due, self._room_at(1, 1, rules.requests))
        if rules.tokens is not None:
            due = max(due, self._room_at(2, min(tokens, rules.tokens), rules.tokens))
        for kind in list(self._left):
            due = max(due, self._due_by_server(kind, now, tokens))
        return due

    def _room_at(self, column: int, needed: float, most: float) -> float:
        """When the window has room for so much more of what that column counts."""
        used = sum(slot[column] for slot in self._slots)
        due = 0.0
        for slot in self._slots:
            if used + needed <= most:
                break
            used -= slot[column]
            due = slot[0] + self._rules.per + self._width
        return due

    def _due_by_server(self, kind: str, now: float, tokens: int) -> float:
        """What a server said to be left is spread over the time until there is more."""
        left, since, until = self._left[kind]
        if now >= until:
            del self._left[kind]
            return now
        cost = max(tokens, 1) if "token" in kind else 1
        if left < cost:
            return until
        return min(until, self._last + (until - since) * cost / (left + cost))

    def _charge(self, now: float, tokens: int, waited: bool) -> Grant:
        at = now // self._width * self._width
        if not self._slots or self._slots[-1][0] < at:
            self._slots.append([at, 0, 0])
        slot = self._slots[-1]
        slot[1] += 1
        slot[2] += tokens
        self._last = now
        interval = self._rules.interval
        spent = (self._rules.burst - 1) * interval if waited else 0.0
        late = min(spent, max(interval, _LATE_S))  # who woke late has not slowed the rest down
        self._paced = max(self._paced, now + spent - late) + interval
        return Grant(slot[0], tokens)

    # --- what is learnt afterwards ----------------------------------------------------------

    def correct(self, grant: Grant, tokens: int, requests: int = 0) -> None:
        """Add tokens, and requests, to what a grant was charged; below 0 they are given back."""
        for slot in reversed(self._slots):
            if slot[0] == grant.at:
                slot[1] = max(0, slot[1] + requests)
                slot[2] = max(0, slot[2] + tokens)
                self._paced += requests * self._rules.interval
                return

    def pause(self, until: float) -> None:
        """Let nobody go before then: a server has said so."""
        self._paused = max(self._paused, until)

    def note_left(
        self, kind: str, left: float, limit: Optional[float], now: float, until: float
    ) -> None:
        """Note what a server says to be left, until then, of one of its own limits.

        It counts once less than half of the limit is left; of one that is not known, of
        what would go out until then.
        """
        rules = self._rules
        until = min(until, now + max(rules.per, _LONGEST_HINT_S))
        if limit is None:
            own = rules.tokens if "token" in kind else rules.requests
            limit = float("inf") if own is None else own * (until - now) / rules.per
        self._left.pop(kind, None)
        if left * 2 < limit and until > now and len(self._left) < _MOST_KINDS:
            self._left[kind] = (max(left, 0.0), now, until)

    # --- keeping it -------------------------------------------------------------------------

    def dump(self) -> str:
        """All of it as JSON, for `load`."""
        state = {
            "slots": self._slots,
            "paced": self._paced,
            "paused": self._paused,
            "last": self._last,
            "left": self._left,
            "heads": self._heads,
        }
        return json.dumps(state, separators=(",", ":"))

    def load(self, text: str) -> None:
        """Take over what `dump` gave.

        Raises:
            ValueError: it did not give that.
        """
        self._forget()
        try:
            state: Dict[str, Any] = json.loads(text)
            self._slots = [[float(n) for n in slot][:3] for slot in state["slots"]]
            self._paced, self._paused = float(state["paced"]), float(state["paused"])
            self._last = float(state["last"])
            self._left = {str(k): (float(a), float(b), float(c))
                          for k, (a, b, c) in state["left"].items()}  # fmt: skip
            self._heads = {str(k): (float(a), float(b)) for k, (a, b) in state["heads"].items()}
            if any(len(slot) != 3 for slot in self._slots):
                raise ValueError
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            self._forget()
            raise ValueError("it holds no state of a rate limit") from None

    @property
    def keeps_until(self) -> float:
        """When nothing of it counts any more."""
        known = [self._last + self._rules.per + self._width, self._paced, self._paused]
        return max([*known, *(until for _, _, until in self._left.values())])
