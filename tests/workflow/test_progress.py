"""A step's state: its pace, its usage, what it carries when it is over."""

from __future__ import annotations

from agentstream import Agent, Runtime, Workflow
from agentstream.results import Usage
from agentstream.testing import Gate, ScriptedServer, text_chunks
from tests.kit.support import FunctionClient, client_of, saying
from tests.kit.workflow_runs import louder, two_steps


def test_a_run_and_its_steps_carry_what_happened(runtime: Runtime) -> None:
    run = runtime.run(two_steps(), "hello", workflow_id="w")
    assert (run.workflow_id, run.status, run.output) == ("w", "completed", "HELLO!")
    assert run.usage == Usage(11, 22, 33, False)
    assert [(s.name, s.kind, s.status, s.output) for s in run.steps] == [
        ("upper", "Agent", "completed", "HELLO"),
        ("loud", "Agent", "completed", "HELLO!"),
    ]
    assert [step.usage for step in run.steps] == [Usage(1, 2, 3), Usage(10, 20, 30)]
    assert all(step.duration_ms >= 0 for step in run.steps)


def test_a_step_has_its_pace(server: ScriptedServer, runtime: Runtime) -> None:
    first, *rest = text_chunks(*"abcdef")[1:]
    gate = Gate()
    server.reply(first, gate, *rest)
    with client_of(server) as client:
        handle = runtime.submit(Agent("a", client=client), "x")
        assert gate.wait_reached()
        gate.open()
        step = handle.result(5).steps[0]
    assert step.tokens_per_second is not None
    assert 5 / (step.duration_ms / 1000) < step.tokens_per_second < 1e6


def test_usage_of_estimated_and_given_counts_is_estimated(runtime: Runtime) -> None:
    agents = [Agent("a", client=saying("one ", "two")), Agent("b", client=FunctionClient(louder))]
    run = runtime.run(Workflow("w", agents), "x")
    assert run.usage == Usage(10, 22, 30, True)
