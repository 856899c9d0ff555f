"""What is done for each kind of step: one function a kind, in one table; and a step's timeout."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List

from agentstream import threads
from agentstream.cancel import CancelToken
from agentstream.errors import (
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    LimitExceeded,
    WorkflowFailed,
)
from agentstream.text import safe_str
from agentstream.workflow.branches import Outcome, linked
from agentstream.workflow.definition import Step
from agentstream.workflow.scope import Scope
from agentstream.workflow.shapes import Branch, Map, Parallel, Repeat
from agentstream.workflow.waiting import Wait

__all__ = ["perform"]


def perform(scope: Scope, input: Any) -> Any:
    """Do the scope's step once, within its timeout if it has one; returns its output.

    Raises:
        DeadlineExceeded: the timeout has passed.
    """
    step, outer, timeout = scope.step, scope.cancel, scope.step.timeout
    do = _BY_KIND[step.kind]
    if timeout is None:
        return do(scope, step, input)
    with linked(outer) as token:
        scope.cancel = token
        alarm = threads.Alarm(lambda _: token.cancel("its time is over"), grain=timeout)
        threads.arm(alarm, time.monotonic() + timeout)
        try:
            return do(scope, step, input)
        except (Cancelled, WorkflowFailed) as error:
            if not _is_late(outer, token):
                raise
            raise DeadlineExceeded(
                f"step {step.name!r} did not end within {timeout:g} s (timeout)",
                partial=error.partial,
                phase=error.phase,
                retryable=True,
                outcome=error.outcome,
            ) from error
        finally:
            alarm.stop()


def _is_late(outer: CancelToken, token: CancelToken) -> bool:
    """True if it was the timeout that stopped the step, and nothing around it."""
    return token.cancelled and not outer.cancelled


# --- one function a kind --------------------------------------------------------------------


def _agent(scope: Scope, step: Step, input: Any) -> Any:
    return scope.ask(step.what, step.prompt, input)


def _function(scope: Scope, step: Step, input: Any) -> Any:
    return scope.call(step.what, input)


def _workflow(scope: Scope, step: Step, input: Any) -> Any:
    return scope.run_inner(step.what, input)


def _sequence(scope: Scope, step: Step, input: Any) -> Any:
    return scope.one_after_the_other(step.within(), input)


def _parallel(scope: Scope, step: Parallel, input: Any) -> Dict[str, Any]:
    branches = {name: (branch, input) for name, branch in step.branches.items()}
    outcomes = scope.side_by_side(branches, fail_fast=step.fail_fast)
    return {name: _value_of(outcomes[name]) for name in step.branches}


def _map(scope: Scope, step: Map, input: Any) -> List[Any]:
    if not isinstance(input, (list, tuple)):
        raise ConfigError(
            f"step {step.name!r}: a Map needs a list, and its input is a "
            f"{type(input).__name__}: let the step before it, a function, return one"
        )
    items = {str(number): (step.step, item) for number, item in enumerate(input, 1)}
    outcomes = scope.side_by_side(items, fail_fast=step.fail_fast, at_most=step.at_most)
    return [_value_of(outcomes[number]) for number in items]


def _value_of(outcome: Outcome) -> Any:
    error = outcome.error
    if error is None:
        return outcome.value
    return {"error": type(error).__name__, "message": safe_str(error)}


def _branch(scope: Scope, step: Branch, input: Any) -> Any:
    if scope.decide("chosen", step.predicate, input):
        return scope.run("then", step.then, input)
    return input if step.otherwise is None else scope.run("otherwise", step.otherwise, input)


def _repeat(scope: Scope, step: Repeat, input: Any) -> Any:
    for number in range(1, step.at_most + 1):
        input = scope.run(str(number), step.step, input)
        if step.until is not None and scope.decide(f"until|{number}", step.until, input):
            return input
    if step.until is not None:
        remark = f"step {step.name!r} was not done after {step.at_most} rounds (at_most)"
        if step.fail_at_limit:
            raise LimitExceeded(remark, limit="at_most")
        scope.warn(remark)
    return input


def _wait(scope: Scope, step: Wait, input: Any) -> Any:
    return scope.wait(step)


_BY_KIND: Dict[str, Callable[[Scope, Any, Any], Any]] = {
    "Agent": _agent,
    "Function": _function,
    "Workflow": _workflow,
    "Sequence": _sequence,
    "Parallel": _parallel,
    "Map": _map,
    "Branch": _branch,
    "Repeat": _repeat,
    "Wait": _wait,
}
