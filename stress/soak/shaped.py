"""A run of random shapes as a case of the soak: stopped or not, and held against its plan."""

from __future__ import annotations

import re
import time
from typing import Any, Dict, List, Optional

from agentstream import AgentStreamError, Cancelled, Runtime, WorkflowFailed
from stress.soak.cases import Case
from stress.soak.record import ENDS, SLACK
from stress.soak.script import Attempt
from stress.soak.shapes import Failed, Planned, PlannedError, plain
from stress.soak.subscribers import Seen

__all__ = ["run_shaped"]

_HEAD = re.compile(r"(?=<[^/<>]+/\d+/\d+>)")


def run_shaped(actor: Any, case: Case) -> None:
    """Submit a random workflow, perhaps stop it, and judge what came of it."""
    runtime: Runtime = actor.soak.runtime
    planned = Planned(case.name, case.rng, lambda call: actor.make_agent(case, call, tools=True))
    case.bound = 30.0 + case.config.bound * max(planned.most, 1)
    handle = runtime.submit(planned.workflow, "go on", workflow_id=case.name)
    actor.plan_cancel(
        case,
        [
            ("handle.cancel", handle.cancel),
            ("stop_generation", lambda: runtime.stop_generation(case.name)),
        ],
    )
    error: Any = None
    try:
        run = handle.result(case.bound + SLACK)
    except AgentStreamError as caught:
        error, run = caught, caught.run  # type: ignore[attr-defined]
    took = time.monotonic() - case.started
    _Judgement(actor, case, planned, run).of(error, took)


class _Judgement:
    def __init__(self, actor: Any, case: Case, planned: Planned, run: Any) -> None:
        self.actor = actor
        self.case = case
        self.planned = planned
        self.run = run
        self.record = actor.record

    def of(self, error: Any, took: float) -> None:
        seen = self._all_seen()
        texts = self._texts(seen)
        attempts: List[Attempt] = []
        for call in self.planned.calls():
            attempts += self._judge_call(call, texts.pop(call, None), bool(seen))
        for call in texts:
            self.record.break_("I2 foreign text", f"{self.case}: of {call}")
        self._judge_output()
        self._judge_end(error, took, attempts)
        self.record.count(f"shapes: {self.run.status}")

    def _all_seen(self) -> List[Seen]:
        """What was seen of the run and of those within it; empty if that has holes."""
        found: List[Seen] = []
        names = [self.case.name]
        for name in names:  # grows by the runs within
            seen: Optional[Seen] = self.actor.soak.checker.wait_end(name)
            if seen is None:
                self.record.count("unseen run")
                return []
            if not seen.end:
                self.record.break_("I1 no terminal event", f"{self.case}: {name} {seen.ids[-1:]}")
            found.append(seen)
            names += seen.runs
            self.actor.soak.acknowledge(name, seen)
        self.record.count("runs within runs", len(names) - 1)
        if ENDS.get(found[0].end) != ENDS[f"workflow_{self.run.status}"]:
            self.record.break_("I1 other end", f"{self.case}: {found[0].end} / {self.run.status}")
        return found

    def _texts(self, seen: List[Seen]) -> Dict[str, str]:
        """Each call's text as the events have it."""
        texts: Dict[str, str] = {}
        for one in seen:
            for chunks in one.chunks.values():
                for piece in filter(None, _HEAD.split("".join(chunks))):
                    call = piece[1:].partition("/")[0]
                    texts[call] = texts.get(call, "") + piece
        return texts

    def _judge_call(self, call: str, text: Optional[str], seen: bool) -> List[Attempt]:
        judge = self.actor.judge
        attempts: List[Attempt] = judge.attempts(self.case, call)
        said = self.planned.said(call)
        if seen:
            judge.text(self.case, call, text or "", said is not None, attempts, None)
            if said is not None and not (text or "").endswith(said):
                self.record.break_("I2 step output", f"{self.case}: {call}: {said[-80:]!r}")
        judge.tools(self.case, call, attempts, whole=said is not None)
        return attempts

    def _judge_output(self) -> None:
        """A run that completed has the plan's output; one that failed had a reason to."""
        if self.run.status == "cancelled":
            return
        try:
            value, extra = self.planned.expected()
        except Failed:
            if self.run.status == "completed":
                self.record.break_("lie: shapes ok", f"{self.case}: {self.planned.plan}")
            return
        if self.run.status == "failed":
            self.record.break_("lie: shapes failed", f"{self.case}: {self.planned.plan}")
        elif plain(self.run.output) != plain(value) or extra:
            what = f"{str(self.run.output)[:300]!r}, not {str(value)[:300]!r}; extra {extra}"
            self.record.break_("I2 shapes output", f"{self.case}: {what}; {self.planned.plan}")

    def _judge_end(self, error: Any, took: float, attempts: List[Attempt]) -> None:
        cause = error
        while isinstance(cause, WorkflowFailed):
            cause = cause.__cause__
        if isinstance(cause, PlannedError):
            self.record.outcome(self.case.kind, "failed(PlannedError)", ())
            return
        if isinstance(cause, Cancelled) and self.run.status != "cancelled":
            self.record.break_("I10 cancelled by nobody", f"{self.case}: {error!r}")
        self.actor.judge.outcome(self.case, error, took, attempts)
