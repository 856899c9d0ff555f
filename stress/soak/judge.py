"""Holds what came of a case against what the server is known to have said."""

from __future__ import annotations

import traceback
from collections import Counter
from typing import Any, Dict, List, Optional, Set

from agentstream import (
    AgentStreamError,
    Cancelled,
    ConnectTimeout,
    DeadlineExceeded,
    FirstTokenTimeout,
    StallTimeout,
    StreamTruncated,
    WorkflowFailed,
)
from stress.soak.cases import Case
from stress.soak.record import (
    CANCEL_BOUND,
    SLACK,
    Record,
    hunt,
)
from stress.soak.script import WHOLE, Attempt, SoakServer, script_for, tool_names
from stress.soak.tools import Ledger


class Judge:
    """Holds outcomes against what the server is known to have said."""

    def __init__(self, record: Record, servers: List[SoakServer], ledger: Ledger) -> None:
        self.record = record
        self.servers = servers
        self.ledger = ledger

    def attempts(self, case: Case, call: str) -> List[Attempt]:
        return self.servers[case.config.tls].pop(call) if self.servers else []

    def story(self, call: str, attempts: List[Attempt]) -> str:
        parts = []
        for a in attempts:
            s = script_for(self.record.seed, call, a.round, a.number)
            c = a.connection
            spoilt = (
                ""
                if c is None
                else f" toxics {sorted(c.toxics)} fired {sorted(c.fired)} ended {c.ended!r}"
            )
            parts.append(
                f"{call}/{a.round}/{a.number}: {s.kind} {s.framing} at {s.at} of "
                f"{len(s.texts)} tools {s.tools} pace {s.pace}{spoilt}"
            )
        return "; ".join(parts) or "no request reached the server"

    def text(
        self, case: Case, call: str, text: str, ok: bool, attempts: List[Attempt], error: Any
    ) -> None:
        """I2, I3: the delivered text against the known one; whole if ok."""
        story = f"{case}, error {type(error).__name__}: {error}; {self.story(call, attempts)}"
        rest, round, last = text, 0, None
        while rest:
            head, found, _ = rest.partition(">")
            words = head[1:].split("/")
            if not found or words[:2] != [call, str(round)] or not words[2].isdigit():
                self.record.break_("I2 foreign text", f"{rest[:80]!r} in {story}")
                return
            last = script_for(self.record.seed, call, round, int(words[2]))
            later = [a for a in attempts if a.round == round and a.number > int(words[2])]
            if later:
                self.record.break_("I3 retried after text", f"delivered {head!r}; {story}")
            if not rest.startswith(last.text):
                if ok or not last.text.startswith(rest):
                    self.record.break_("I2 not a prefix", f"{rest[-160:]!r} in {story}")
                return self._complete(case, call, round, int(words[2]), rest, attempts, error)
            rest = rest[len(last.text) :]
            round += 1
        if ok and (last is None or last.kind not in WHOLE or last.tools):
            self.record.break_("lie: ok", story)
        # A later round that broke before it said anything left no text to judge it by.
        if last is not None and not ok and not any(a.round >= round for a in attempts):
            self._complete(case, call, round - 1, int(words[2]), last.text, attempts, error)

    def tools(self, case: Case, call: str, attempts: List[Attempt], *, whole: bool) -> None:
        """I3, and no side effect that nobody asked for: each call of a whole answer, once."""
        made = Counter(self.ledger.pop(call))
        last: Dict[int, int] = {}
        for attempt in attempts:
            last[attempt.round] = max(attempt.number, last.get(attempt.round, 0))
        asked: Set[str] = set()
        for round, number in last.items():
            script = script_for(self.record.seed, call, round, number)
            if script.kind in WHOLE:
                asked.update(tool_names(script, call, round, number))
        story = f"{case}: {dict(made)}; {self.story(call, attempts)}"
        if attempts and set(made) - asked:
            self.record.break_("tool calls of no answer", story)
        if made and max(made.values()) > 1:
            self.record.break_("tool calls made twice", story)
        if whole and attempts and asked - set(made):
            self.record.break_("tool calls not made", story)
        self.record.count("tool calls made", sum(made.values()))

    def _complete(
        self,
        case: Case,
        call: str,
        round: int,
        number: int,
        got: str,
        attempts: List[Attempt],
        error: Any,
    ) -> None:
        """I2: a stream that the other end broke had all its complete events delivered."""
        if not isinstance(error, StreamTruncated):
            return
        script = script_for(self.record.seed, call, round, number)
        found = [a for a in attempts if a.round == round and a.number == number]
        connection = found[0].connection if found else None
        if connection is None:
            return
        if script.kind in WHOLE and not connection.fired and script.kind != "json":
            self.record.break_("lie: truncated", f"{case}: {self.story(call, attempts)}")
        if case.config.tls or script.framing == "gzip" or connection.ended != "fin":
            return
        tail = bytes(connection.tail)
        whole = 0
        while True:
            at = tail.find(f'"id": "{call}/{round}/{number}#{whole + 1}"'.encode())
            if at < 0 or b"\n\n" not in tail[at:]:
                break
            whole += 1
        if not got.startswith("".join(script.texts[:whole])):
            self.record.break_(
                "I2 complete events", f"{case}: {whole} arrived; {self.story(call, attempts)}"
            )
        self.record.count("truncations held against the wire")

    def outcome(
        self, case: Case, error: Optional[BaseException], took: float, attempts: List[Attempt]
    ) -> None:
        """What an outcome says, and when it came."""
        cause: Optional[BaseException] = error
        while isinstance(cause, WorkflowFailed):
            cause = cause.__cause__
        toxics = {t for a in attempts if a.connection is not None for t in a.connection.fired}
        if cause is None:
            what = "ok"
        elif isinstance(cause, AgentStreamError):
            what = f"{cause.outcome}({type(cause).__name__})"
            self._error(case, error, cause, took)
        else:
            what = f"broken({type(cause).__name__})"
            text = "".join(traceback.format_exception(type(cause), cause, cause.__traceback__))
            self.record.break_("untyped error", f"{case}: {text}")
        self.record.outcome(case.kind, what, toxics)
        if took > case.bound + SLACK:
            self.record.break_(
                "hung",
                f"{case}: took {took:.2f} s, bound {case.bound}: {what}; "
                + self.story(case.name, attempts),
            )
        self._cancel(case, cause, took, what)

    def _cancel(self, case: Case, cause: Any, took: float, what: str) -> None:
        if case.cancel_at is None:
            if isinstance(cause, Cancelled):
                self.record.break_("I10 cancelled by nobody", f"{case}: {cause}")
            return
        after = case.started + took - case.cancel_at
        if isinstance(cause, Cancelled):
            self.record.sample(f"cancel {case.kind}", max(after, 0.0))
            self.record.sample("cancel all", max(after, 0.0))
            if after > CANCEL_BOUND:
                self.record.break_("cancel late", f"{case}: {after:.3f} s")
        elif after > 1.0:
            self.record.break_("I10 cancel ignored", f"{case}: {what} {after:.3f} s after it")
        else:
            self.record.count("cancel lost the race")

    def _error(self, case: Case, error: Any, cause: AgentStreamError, took: float) -> None:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        for thing in (error, cause):
            fields = {k: str(v) for k, v in vars(thing).items()}
            hunt(self.record, f"{thing} {thing!r} {fields} {text}", f"error of {case}")
        if cause.outcome not in ("failed", "unknown") or cause.phase not in (
            "",
            "connect",
            "tls",
            "headers",
            "stream",
            "tool",
            "log",
        ):
            self.record.break_("error fields", f"{case}: {cause.outcome!r} {cause.phase!r}")
        clocks = case.config.timeouts
        due = {
            ConnectTimeout: clocks.connect,
            FirstTokenTimeout: clocks.first_token,
            StallTimeout: clocks.stall,
            DeadlineExceeded: clocks.total,
        }.get(type(cause))
        if due is None or (case.kind == "shapes" and isinstance(cause, DeadlineExceeded)):
            return  # a step of a shape has a timeout of its own
        if took < due - 0.01:
            self.record.break_("clock early", f"{case}: {cause!r} after {took:.3f} s")
        if isinstance(cause, DeadlineExceeded) and case.kind in ("plain", "deltas"):
            self.record.sample("deadline overshoot", took - due)
