"""Random workflows whose process dies at any operation: the same end, and nothing done again."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, List

from hypothesis import given, settings, strategies as st

from agentstream import AgentStreamError, EventStream, RunContext, Runtime, ToolCall, Workflow
from agentstream.agent.loops import same_call
from agentstream.tools.context import key_of
from tests.kit.dying import Dying
from tests.kit.profiles import SUITE
from tests.kit.workflow_model import build, check_log, check_result, plans

RUNS = settings(SUITE, max_examples=60, derandomize=True)


def live(plan: List[Any], input: int, lives: List[int]) -> None:
    """Run a plan in processes that die after so many operations each, and in one that does not."""
    store = Dying()
    again: List[str] = []

    def note(context: RunContext) -> None:
        if not store.dead and context.idempotency_key in finished(store):
            again.append(context.step)

    for left in [*lives, 10**9]:
        store.revive(left)
        workflow = Workflow("random", [build(step, note) for step in plan])
        with Runtime(max_workers=4, event_stream=EventStream(store), checkpoints=True) as runtime:
            with contextlib.suppress(AgentStreamError):
                handle = runtime.submit(workflow, input, workflow_id="run", resume=True)
                while handle.result(20).status == "suspended" and not store.dead:
                    runtime.approve(handle.workflow_id, handle.result().pending[-1].id)
                    handle = runtime.submit(workflow, input, workflow_id="run", resume=True)
        if not store.dead:
            break
    check_result(handle, plan, input, first_errors=False)
    check_log(store, handle.workflow_id)
    assert not again


def finished(store: Dying) -> Iterator[str]:
    """The keys of the functions, and of the tools' calls, that have been made and said so."""
    for key in list(store.done):
        step = key_of("run", key.partition("|")[0])
        yield step
        yield key_of(step, 1, 0, same_call(ToolCall("c", "look", "{}")))


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
