"""Workflows of random shapes, and a reference interpreter that says what must have come of them.

A plan is nested tuples.  Each agent of it stands between two functions: the first one counts how
often the step ran and tells the server, the second one keeps what the agent said.  So every text,
request and tool call belongs to one run of one step, and the interpreter computes the run's
output from what the steps said.
"""

from __future__ import annotations

import random
import re
import threading
from typing import Any, Callable, Dict, List, Optional, Tuple

from agentstream import Agent, Branch, Parallel, Repeat, RunContext, Step, Workflow

__all__ = ["Failed", "Planned", "PlannedError", "plain"]

Plan = Tuple[Any, ...]
_MOST_LEAVES = 6


class PlannedError(Exception):
    """What a step of a plan raises when it is to fail."""


class Failed(Exception):
    """The interpreter's word for a step that fails."""


def size(value: Any) -> int:
    """A number of any value, so that every step takes what any other one returns."""
    if isinstance(value, dict):
        return 1 if set(value) == {"error", "message"} else sum(map(size, value.values()))
    return len(value) if isinstance(value, str) else int(value)


def plain(value: Any) -> Any:
    """An output without the words of errors."""
    if isinstance(value, dict):
        if set(value) == {"error", "message"}:
            return "failed"
        return {name: plain(item) for name, item in value.items()}
    return value


class Planned:
    """A random workflow, what its steps did, and what that must come to.

    Args:
        name: the run's id; its calls are NAME:LEAF-TIME.
        rng: what the plan is drawn from.
        make_agent: an agent for a call's name.

    Attributes:
        workflow: the workflow.
        most: how many requests it may take, retries of requests apart.
    """

    def __init__(self, name: str, rng: random.Random, make_agent: Callable[[str], Agent]) -> None:
        self.name = name
        self._rng = rng
        self._make_agent = make_agent
        self._leaves = 0
        self._begun: Dict[int, int] = {}
        self._said: Dict[str, str] = {}
        self._guard = threading.Lock()
        self.most = 0
        self.plan = [self._draw(0, 1) for _ in range(rng.randint(1, 3))]
        self.workflow = Workflow("shapes", [self._build(plan) for plan in self.plan])

    def calls(self) -> List[str]:
        """The calls that began, in each leaf's order."""
        with self._guard:
            counts = sorted(self._begun.items())
        return [self._call(leaf, time) for leaf, count in counts for time in range(1, count + 1)]

    def said(self, call: str) -> Optional[str]:
        """What a call's agent answered; None if it did not come to its end."""
        return self._said.get(call)

    def _call(self, leaf: int, time: int) -> str:
        return f"{self.name}:{leaf}-{time}"

    # --- drawing and building -----------------------------------------------------------------

    def _draw(self, depth: int, times: int) -> Plan:
        rng = self._rng
        kinds = ["parallel", "parallel", "workflow", "sequence", "branch", "repeat", "agent"]
        if depth >= 3 or self._leaves >= _MOST_LEAVES or rng.random() < 0.25:
            kinds = ["agent"] * 7 + ["add", "wait", "wait", "fail"]
        kind = rng.choice(kinds)
        if kind == "agent":
            self._leaves += 1
            self.most += 3 * times
            timeout = rng.uniform(0.3, 3.0) if rng.random() < 0.1 else None
            return kind, self._leaves, 0 if times > 1 else rng.choice([0, 0, 1, 2]), timeout
        if kind == "repeat":
            rounds = rng.randint(1, 3)
            return kind, self._draw(depth + 1, times * rounds), rng.choice([None, 40]), rounds
        if kind == "branch":
            return kind, self._draw(depth + 1, times), rng.choice([None, ("add", 1)])
        if kind in ("parallel", "workflow", "sequence"):
            some = [self._draw(depth + 1, times) for _ in range(rng.randint(1, 3))]
            return kind, some, rng.random() < 0.5
        return kind, rng.randint(0, 3)

    def _build(self, plan: Plan) -> Any:
        kind, *rest = plan
        if kind == "agent":
            return self._leaf(*rest)
        if kind == "add":
            return Step(lambda value: size(value) + rest[0], name="add")
        if kind == "wait":
            return Step(_wait)
        if kind == "fail":
            return Step(_fail)
        if kind == "repeat":
            until = None if rest[1] is None else lambda value: size(value) > rest[1]
            return Repeat(self._build(rest[0]), until, at_most=rest[2])
        if kind == "branch":
            otherwise = None if rest[1] is None else self._build(rest[1])
            return Branch(lambda value: size(value) % 2, self._build(rest[0]), otherwise)
        steps = [self._build(step) for step in rest[0]]
        if kind == "parallel":
            return Parallel({str(n): s for n, s in enumerate(steps)}, fail_fast=rest[1])
        return Workflow("inner", steps) if kind == "workflow" else Step(steps)

    def _leaf(self, leaf: int, retries: int, timeout: Optional[float]) -> Step:
        def ask(value: Any) -> str:
            with self._guard:
                time = self._begun[leaf] = self._begun.get(leaf, 0) + 1
            return f"#{time}# go on from {size(value)}"

        def keep(text: str) -> str:
            call = re.match(r"<([^/]+)/", text)
            with self._guard:
                self._said[call.group(1) if call else text] = text
            return text

        agent = self._make_agent(f"{self.name}:{leaf}")
        return Step([ask, Step(agent, timeout=timeout), keep], name="leaf", retries=retries)

    # --- what must come of it -----------------------------------------------------------------

    def expected(self) -> Tuple[Any, List[str]]:
        """The output that the steps' own words make, and the calls that had no reason to be made.

        Raises:
            Failed: the run must have failed.
        """
        times = dict.fromkeys(self._begun, 0)
        value = self._in_turn(self.plan, "go on", times)
        extra = [
            self._call(leaf, time)
            for leaf, count in self._begun.items()
            for time in range(times[leaf] + 1, count + 1)
        ]
        return value, extra

    def _in_turn(self, plans: List[Plan], value: Any, times: Dict[int, int]) -> Any:
        for plan in plans:
            value = self._interpret(plan, value, times)
        return value

    def _interpret(self, plan: Plan, value: Any, times: Dict[int, int]) -> Any:
        kind, *rest = plan
        if kind == "agent":
            return self._answer(rest[0], rest[1], times)
        if kind == "add":
            return size(value) + rest[0]
        if kind == "wait":
            return value
        if kind == "fail":
            raise Failed
        if kind == "repeat":
            for _ in range(rest[2]):
                value = self._interpret(rest[0], value, times)
                if rest[1] is not None and size(value) > rest[1]:
                    break
            return value
        if kind == "branch":
            chosen = rest[0] if size(value) % 2 else rest[1]
            return value if chosen is None else self._interpret(chosen, value, times)
        if kind == "parallel":
            return self._side_by_side(rest[0], value, rest[1], times)
        return self._in_turn(rest[0], value, times)

    def _answer(self, leaf: int, retries: int, times: Dict[int, int]) -> str:
        for _ in range(1 + retries):
            if times.get(leaf, 0) >= self._begun.get(leaf, 0):
                break
            times[leaf] += 1
            said = self._said.get(self._call(leaf, times[leaf]))
            if said is not None:
                return said
        raise Failed

    def _side_by_side(
        self, plans: List[Plan], value: Any, fail_fast: bool, times: Dict[int, int]
    ) -> Any:
        found: Dict[str, Any] = {}
        failed = 0
        for number, plan in enumerate(plans):
            try:
                found[str(number)] = self._interpret(plan, value, times)
            except Failed:
                failed += 1
                found[str(number)] = {"error": "", "message": ""}
        if failed and (fail_fast or failed == len(plans)):
            raise Failed
        return found


def _wait(value: Any, context: RunContext) -> Any:
    context.cancel.wait(0.1)
    return value


def _fail(_: Any) -> None:
    raise PlannedError("soak means to")
