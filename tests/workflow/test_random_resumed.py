"""Random workflows whose process dies at any operation: the same end, and nothing done again."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import Any, List

from hypothesis import given, settings, strategies as st

from agentstream import AgentStreamError, EventStream, RunContext, Runtime, Workflow
from tests.kit.dying import Dying
from tests.kit.profiles import SUITE
from tests.kit.workflow_model import build, check_log, check_result, plans

RUNS = settings(SUITE, max_examples=60, derandomize=True)


def live(plan: List[Any], input: int, lives: List[int]) -> None:
    """Run a plan in processes that die after so many operations each, and in one that does not."""
    store = Dying()
    made: List[str] = []

    def note(context: RunContext) -> None:
        if not store.dead:
            made.append(context.idempotency_key)

    for left in [*lives, 10**9]:
        store.revive(left)
        workflow = Workflow("random", [build(step, note) for step in plan])
        with Runtime(max_workers=4, event_stream=EventStream(store), checkpoints=True) as runtime:
            with contextlib.suppress(AgentStreamError):
                handle = runtime.submit(workflow, input, workflow_id="run", resume=True)
                handle.exception(20)
        if not store.dead:
            break
    check_result(handle, plan, input)
    check_log(store, handle.workflow_id)
    again = {key: times for key, times in Counter(made).items() if times > 1}
    assert all(times <= 1 + len(lives) for times in again.values()), again
    if "parallel" not in repr(plan) and "map" not in repr(plan):  # one thing at a time
        assert sum(again.values()) - len(again) <= len(lives), again


def test_a_random_workflow_that_loses_its_processes_comes_to_the_same_end() -> None:
    @RUNS
    @given(
        plan=plans(),
        input=st.integers(-5, 20),
        lives=st.lists(st.integers(0, 40), min_size=1, max_size=3),
    )
    def each(plan: List[Any], input: int, lives: List[int]) -> None:
        live(plan, input, lives)

    each()
