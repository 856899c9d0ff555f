"""A step's state: its pace, its usage, what it carries when it is over."""

from __future__ import annotations

import pytest

from agentstream import Agent, Parallel, Runtime, Step, Workflow
from agentstream.errors import ConfigError, LimitExceeded, WorkflowFailed
from agentstream.llm.messages import Delta
from agentstream.results import Usage
from agentstream.testing import Gate, Reply, ScriptedServer, text_chunks
from tests.kit.support import FunctionClient, client_of, events_of, saying
from tests.kit.workflow_runs import louder, two_steps
from tests.kit.workflow_support import Cast


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


def test_how_answers_ended_and_what_was_odd_is_told_of_steps_and_runs(
    cast: Cast, runtime: Runtime
) -> None:
    short = cast.plays("short", Reply(*text_chunks("half an", finish_reason="length")))
    whole = cast.says("whole", "all of it")
    steps = [Parallel(whole, short), lambda texts: texts["whole"], whole]
    run = runtime.run(Workflow("flow", steps), "x", workflow_id="w")
    remark = "the answer was cut: finish_reason length"
    parallel, function, last = run.steps
    assert (run.finish_reason, run.warnings) == ("stop", (f"short: {remark}",))
    assert (parallel.finish_reason, parallel.warnings) == ("length", (f"short: {remark}",))
    assert (parallel.steps[1].finish_reason, parallel.steps[1].warnings) == ("length", (remark,))
    assert (function.finish_reason, function.warnings) == (None, ())
    assert (last.finish_reason, last.warnings, last.text) == ("stop", (), "all of it")
    events = events_of(runtime.event_stream, "w")
    told = {e.data["step"]: e.data for e in events if e.type == "workflow_step_completed"}
    assert told["0"]["warnings"] == parallel.warnings
    assert told["0.short"]["finish_reason"] == "length"
    end = events[-1].data
    assert (end["finish_reason"], end["warnings"]) == (run.finish_reason, run.warnings)
    assert abs(end["duration_s"] - run.duration_s) < 0.001
    assert end["duration_ms"] == end["duration_s"] * 1000


def test_a_cut_answer_fails_where_it_is_to(cast: Cast, runtime: Runtime) -> None:
    cut = Reply(*text_chunks("half an", finish_reason="length"))
    agent = cast.plays("short", cut)
    with pytest.raises(WorkflowFailed) as caught:
        runtime.run(Workflow("flow", [Step(agent, on_cut="fail", retries=2)]), "x")
    cause, run = caught.value.__cause__, caught.value.run
    assert isinstance(cause, LimitExceeded) and run is not None
    assert (cause.limit, run.output, run.finish_reason) == ("max_tokens", "half an", "length")
    assert len(cast.asked["short"]) == 1  # again, it would be cut again
    agent.on_cut = "fail"
    assert runtime.run(Workflow("flow", [Step(agent, on_cut="warn")]), "x").output == "half an"
    with pytest.raises(LimitExceeded) as error:
        agent.run("x")
    assert error.value.partial is not None and error.value.partial.text == "half an"


def test_on_cut_is_checked() -> None:
    with pytest.raises(ConfigError, match="on_cut must be one of warn, fail, not 'retry'"):
        Agent("a", client=saying(), on_cut="retry")
    with pytest.raises(ConfigError, match="step 'a': on_cut must be one of"):
        Step(Agent("a", client=saying()), on_cut="no")
    with pytest.raises(ConfigError, match="on_cut is for an agent"):
        Step(louder, on_cut="warn")


def test_a_foreign_clients_cut_answer_is_told_of() -> None:
    client = FunctionClient(lambda request, cancel: ["ha", Delta(finish_reason="max_tokens")])
    output = Agent("a", client=client, max_tokens=1).run("x")
    assert output.finish_reason == "max_tokens"
    assert output.warnings == ("the answer was cut by a limit of tokens",)
    assert (output.text, output.duration_s) == ("ha", output.execution_time_ms / 1000)
