"""Random workflows, and a small interpreter that says what must come of them.

A plan is nested tuples; `build` makes steps of it, `interpret` computes what they return.  Values
are whole numbers, texts, and dicts and lists of them; `size` makes a number of any, so that every step takes
what any other one returns.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Tuple

from hypothesis import strategies as st

from agentstream import (
    Agent,
    Approval,
    Branch,
    EventStore,
    EventType,
    Map,
    Parallel,
    Repeat,
    RunContext,
    RunHandle,
    Runtime,
    Step,
    ToolCall,
    Workflow,
    tool,
)
from agentstream.errors import WorkflowFailed
from tests.kit.support import ByRound, saying

__all__ = ["build", "check", "check_log", "check_result", "plans"]

TERMINAL = {"workflow_completed", "workflow_failed", "workflow_cancelled"}
Plan = Tuple[Any, ...]


class Failed(Exception):
    """What the interpreter says of a plan that fails, with the error's name."""


def plans() -> st.SearchStrategy[List[Plan]]:
    """Lists of plans for the steps of a workflow."""
    leaf = st.one_of(
        st.tuples(st.just("add"), st.integers(-3, 9)),
        st.tuples(st.just("agent"), st.sampled_from(["yes", "two words"])),
        st.tuples(st.just("fail")),
    )

    def larger(inner: st.SearchStrategy[Plan]) -> st.SearchStrategy[Plan]:
        some = st.lists(inner, min_size=1, max_size=3)
        return st.one_of(
            st.tuples(st.just("sequence"), some),
            st.tuples(st.just("workflow"), some),
            st.tuples(st.just("parallel"), some, st.booleans()),
            st.tuples(st.just("map"), inner, st.integers(0, 3), st.booleans()),
            st.tuples(st.just("branch"), inner, st.none() | inner),
            st.tuples(st.just("repeat"), inner, st.none() | st.integers(0, 9), st.integers(1, 3)),
        )

    return st.lists(st.recursive(leaf, larger, max_leaves=8), min_size=1, max_size=4)


def size(value: Any) -> int:
    if isinstance(value, dict):
        # Of two branches that fail at once, either one's error may be the step's.
        return sum(size(item) for name, item in value.items() if name not in ("error", "message"))
    if isinstance(value, list):
        return sum(map(size, value))
    return len(value) if isinstance(value, str) else int(value)


def _fail(_: Any) -> None:
    raise ValueError("as planned")


def build(plan: Plan, note: Optional[Callable[[RunContext], object]] = None) -> Any:
    """The step that a plan stands for; its functions and its agents' tools call `note`."""
    kind, *rest = plan
    if kind == "add":
        return Step(_adding(rest[0], note), name="add")
    if kind == "agent":
        return Step(_saying(rest[0], note))
    if kind == "fail":
        return Step(_fail)
    if kind in ("sequence", "workflow"):
        steps = [build(step, note) for step in rest[0]]
        return Workflow("inner", steps) if kind == "workflow" else Step(steps)
    if kind == "parallel":
        branches = {str(n): build(step, note) for n, step in enumerate(rest[0])}
        return Parallel(branches, fail_fast=rest[1])
    if kind == "map":
        items = Step(lambda value: [size(value) + n for n in range(rest[1])], name="items")
        return Step([items, Map(build(rest[0], note), at_most=2, fail_fast=rest[2])])
    if kind == "branch":
        otherwise = None if rest[1] is None else build(rest[1], note)
        return Branch(lambda value: size(value) % 2, build(rest[0], note), otherwise)
    until = None if rest[1] is None else lambda value: size(value) > rest[1]
    return Repeat(build(rest[0], note), until, at_most=rest[2])


def _adding(number: int, note: Optional[Callable[[RunContext], object]]) -> Any:
    if note is None:
        return lambda value: size(value) + number

    def add(value: Any, context: RunContext) -> int:
        note(context)
        return size(value) + number

    return add


def _saying(text: str, note: Optional[Callable[[RunContext], object]]) -> Agent:
    if note is None:
        return Agent("agent", client=saying(text))

    @tool(on_unknown="rerun")
    def look(context: RunContext) -> str:
        """Look."""
        note(context)
        return "seen"

    client = ByRound([ToolCall("c", "look", "{}")], text)
    approve = (lambda call: Approval.later()) if " " in text else None  # some are asked about
    return Agent("agent", client=client, tools=[look], approve=approve)


def interpret(plan: Plan, value: Any) -> Any:
    """What the plan's step returns for `value`; raises Failed."""
    kind, *rest = plan
    if kind == "add":
        return size(value) + rest[0]
    if kind == "agent":
        return rest[0]
    if kind == "fail":
        raise Failed("ValueError")
    if kind == "workflow":
        try:
            return _in_turn(rest[0], value)
        except Failed:
            raise Failed("WorkflowFailed") from None
    if kind == "sequence":
        return _in_turn(rest[0], value)
    if kind == "parallel":
        named = {str(number): (plan, value) for number, plan in enumerate(rest[0])}
        return _side_by_side(named, rest[1])
    if kind == "map":
        items = {str(n): (rest[0], size(value) + n) for n in range(rest[1])}
        return list(_side_by_side(items, rest[2]).values())
    if kind == "branch":
        chosen = rest[0] if size(value) % 2 else rest[1]
        return value if chosen is None else interpret(chosen, value)
    for _ in range(rest[2]):
        value = interpret(rest[0], value)
        if rest[1] is not None and size(value) > rest[1]:
            break
    return value


def _in_turn(plans: List[Plan], value: Any) -> Any:
    for plan in plans:
        value = interpret(plan, value)
    return value


def _side_by_side(plans: Dict[str, Tuple[Plan, Any]], fail_fast: bool) -> Any:
    found: Dict[str, Any] = {}
    failed: List[Failed] = []
    for name, (plan, value) in plans.items():
        try:
            found[name] = interpret(plan, value)
        except Failed as error:
            failed.append(error)
            found[name] = {"error": str(error)}
    if failed and (fail_fast or len(failed) == len(plans)):
        raise failed[0]
    return found


def _without(value: Any, *keys: str) -> Any:
    if isinstance(value, list):
        return [_without(item, *keys) for item in value]
    if isinstance(value, dict):
        return {k: _without(v, *keys) for k, v in value.items() if k not in keys}
    return value


def check(runtime: Runtime, plan: List[Plan], input: int) -> None:
    """Run a plan and hold its result and its events against the interpreter."""
    handle = runtime.submit(Workflow("random", [build(step) for step in plan]), input)
    check_result(handle, plan, input)
    check_log(runtime.event_stream.store, handle.workflow_id)


def check_result(
    handle: RunHandle, plan: List[Plan], input: int, *, first_errors: bool = True
) -> None:
    """Hold what a run comes to against the interpreter.

    Args:
        first_errors: of several branches that fail, the first one's error is the step's.
    """
    keys = ("message",) if first_errors else ("message", "error")
    try:
        expected = _in_turn(plan, input)
    except Failed:
        expected = Failed
    try:
        run = handle.result(20)
        assert expected is not Failed, f"completed with {run.output!r}"
        assert _without(run.output, *keys) == _without(expected, *keys)
    except WorkflowFailed as error:
        assert expected is Failed, error
        run = error.run  # type: ignore[assignment]
    _check_steps(run.steps, run.status)


def check_log(store: EventStore, name: str) -> None:
    """Hold the events of a run, and of those within it, against what any log has."""
    ids = [name]
    for workflow_id in ids:  # grows by the runs within
        events = store.read(workflow_id=workflow_id, after=0, limit=10_000)
        assert [event.offset for event in events] == list(range(1, len(events) + 1))
        kinds = [event.type.value for event in events]
        state = store.run(workflow_id)
        if state is not None and state.status == "closed" and workflow_id != name:
            continue  # the run that it is within had ended before anybody went on with it
        assert kinds[0] == "workflow_started" or kinds == ["workflow_cancelled"]
        assert kinds[-1] in TERMINAL
        assert not TERMINAL & set(kinds[:-1])
        ids += [
            event.data["run"]
            for event in events
            if event.type is EventType.WORKFLOW_STEP_STARTED and "run" in event.data
        ]
    state = store.run(name)
    assert state is not None
    last = store.read(workflow_id=name, after=0, limit=10_000)[-1]
    assert last.type.value == f"workflow_{state.status}"


def _check_steps(steps: Any, status: str) -> None:
    for step in steps:
        assert step.duration_ms >= 0
        assert step.status in {"completed", "failed", "cancelled"}, step
        _check_steps(step.steps, status)
