"""Budgets: no request that would pass one is made, whoever of a run makes it."""

from __future__ import annotations

import threading
from typing import Any, List, Optional

import pytest

from agentstream import (
    Agent,
    Approval,
    Budget,
    CancelToken,
    ChatMessage,
    ConfigError,
    EventStream,
    EventType,
    FallbackClient,
    LimitExceeded,
    LogError,
    Map,
    MemoryStore,
    Parallel,
    Prices,
    Runtime,
    ServerError,
    SqliteStore,
    Step,
    Usage,
    Workflow,
    WorkflowFailed,
)
from agentstream.agent.budget import Spending
from agentstream.agent.stream import AgentStream, drain
from agentstream.llm.messages import ChatRequest, Delta
from agentstream.results import ToolCall
from agentstream.testing import ScriptedClient, ScriptedServer
from tests.kit.support import client_of


def answer(text: str = "ok", *, prompt: int = 10, completion: int = 5, cost: Any = None) -> Any:
    usage = Usage(prompt, completion, prompt + completion, cost=cost)
    return [text, Delta(finish_reason="stop", usage=usage)]


def client_with(count: int, prices: Optional[Prices] = None, **usage: Any) -> ScriptedClient:
    client = ScriptedClient(*[answer(**usage) for _ in range(count)])
    client.prices = prices
    return client


def exceeded(call: Any) -> LimitExceeded:
    """The LimitExceeded that a call ends with, or that ended its run."""
    with pytest.raises((LimitExceeded, WorkflowFailed)) as found:
        call()
    error: Any = found.value
    while not isinstance(error, LimitExceeded):
        error = error.__cause__
    return error


def test_an_agents_rounds_stop_before_the_request_that_would_pass_it():
    call = [ToolCall("c", "f", "{}"), Delta(finish_reason="tool_calls", usage=Usage(10, 5, 15))]
    client = ScriptedClient(*[call for _ in range(9)])
    agent = Agent("a", client, tools=[_f], budget=Budget(tokens=50), tool_limits=_patient())
    error = exceeded(lambda: agent.run("hi"))
    assert (error.limit, error.most) == ("budget_tokens", 50)
    assert error.spent is not None
    assert error.spent.total_tokens == 15 * len(client.requests)
    assert error.needed is not None
    assert error.spent.total_tokens + error.needed > 50
    assert 0 < len(client.requests) < 4


def _f() -> str:
    """Nothing."""
    return "x"


def _patient() -> Any:
    from agentstream import ToolLimits  # noqa: PLC0415

    return ToolLimits(repeat_limit=None, max_rounds=100)


def test_each_run_of_an_agent_has_its_budget_anew():
    client = client_with(3)
    agent = Agent("a", client, budget=Budget(tokens=20))
    for _ in range(3):
        assert agent.run("hi").usage.total_tokens == 15


def test_max_tokens_counts_before_the_request():
    client = client_with(1)
    agent = Agent("a", client, max_tokens=100)
    with Runtime() as runtime:
        error = exceeded(lambda: runtime.run(agent, "hi", budget=Budget(tokens=100)))
        assert (error.spent, client.requests) == (Usage(), [])
        runtime.run(agent, "hi", budget=Budget(tokens=110))
    assert len(client.requests) == 1


def test_what_is_estimated_is_the_prompt_its_files_and_its_tools():
    client = client_with(0)
    tool = {"type": "function", "function": {"name": "x" * 400}}
    rows = (
        (ChatRequest("x" * 400), 100, 120),
        (ChatRequest([ChatMessage.user([{"type": "image_url", "image_url": {}}])]), 1000, 1020),
        (ChatRequest("x", tools=[tool]), 100, 130),
        (ChatRequest([{"role": "user", "content": "x" * 400}]), 100, 130),
        (ChatRequest("x", max_tokens=500), 500, 520),
    )
    for request, least, most in rows:
        error = exceeded(lambda r=request: Spending(Budget(tokens=1), "it").charge(r, client))
        assert least <= error.needed <= most


def test_money_is_counted_by_the_clients_prices_or_as_the_server_says():
    prices = Prices({"scripted": (1.0, 1.0, 2.0)})  # 10 and 5 tokens: 20 millionths
    for cost, each in ((None, 20e-6), (0.5, 0.5)):
        client = client_with(9, prices, cost=cost)
        steps = [Step(Agent("a", client), name=str(number)) for number in range(9)]
        budget = Budget(cost=each * 3.5)
        with Runtime() as runtime:
            error = exceeded(
                lambda w=Workflow("w", steps), b=budget: runtime.run(w, "hi", budget=b)
            )
        assert error.limit == "budget_cost"
        assert error.spent.cost == pytest.approx(each * len(client.requests))
        assert 2 <= len(client.requests) <= 4


def test_without_a_price_a_budget_in_money_is_refused_and_nothing_is_sent():
    for prices in (None, Prices({"other": (1, 1, 1)})):
        client = client_with(1, prices)
        with Runtime() as runtime, pytest.raises(WorkflowFailed) as found:
            runtime.run(Agent("a", client), "hi", budget=Budget(cost=1))
        assert isinstance(found.value.__cause__, ConfigError)
        assert client.requests == []


def test_free_models_take_a_budget_of_nothing():
    client = client_with(2, Prices({"scripted": (0, 0, 0)}))
    with Runtime() as runtime:
        assert runtime.run(Agent("a", client), "hi", budget=Budget(cost=0)).output == "ok"


def test_f13_branches_that_race_for_the_last_of_it_do_not_pass_it_together():
    class Slow(ScriptedClient):
        """Answers nobody before all have asked that may."""

        def stream_deltas(self, request: Any, *, cancel: Any = None) -> Any:
            deltas = super().stream_deltas(request, cancel=cancel)
            CancelToken().wait(0.05)
            return deltas

    for budget, may in ((Budget(tokens=350), 3), (Budget(cost=350e-6), 3)):
        client = Slow(*[answer(completion=90) for _ in range(16)])
        client.prices = Prices({"scripted": (1.0, 1.0, 1.0)})
        agents = {str(n): Agent(str(n), client, max_tokens=100) for n in range(16)}
        workflow = Workflow("w", [Parallel(agents, fail_fast=False)])
        with Runtime() as runtime:
            run = runtime.run(workflow, "hi", budget=budget)
        outputs = list(run.output.values())
        assert len(client.requests) == may
        assert outputs.count("ok") == may
        assert {one["error"] for one in outputs if one != "ok"} == {"LimitExceeded"}
        assert run.usage.total_tokens == may * 100


def test_it_is_shared_by_workflows_within_and_by_agents_that_are_tools():
    helper = Agent("helper", client_with(9))
    asks = [
        ToolCall("c", "helper", '{"input": "x"}'),
        Delta(finish_reason="tool_calls", usage=Usage(10, 5, 15)),
    ]
    boss = ScriptedClient(*[asks for _ in range(9)])
    outer = Agent("boss", boss, tools=[helper.as_tool("helps")], tool_limits=_patient())
    inner = Workflow("inner", [outer])
    with Runtime() as runtime:
        error = exceeded(
            lambda: runtime.run(Workflow("w", [inner]), "hi", budget=Budget(tokens=250))
        )
    asked = len(boss.requests) + len(helper.client.requests)  # type: ignore[attr-defined]
    assert error.spent.total_tokens == 15 * asked
    assert 4 <= asked
    # As a budget of the agent's own, without a run and within one.
    for start in (lambda a: a.run("hi"), lambda a: _in_a_run(a)):
        helper = Agent("helper", client_with(9))
        boss = ScriptedClient(*[asks for _ in range(9)])
        tools = [helper.as_tool("helps")]
        outer = Agent("b", boss, tools=tools, tool_limits=_patient(), budget=Budget(tokens=250))
        error = exceeded(lambda: start(outer))
        asked = len(boss.requests) + len(helper.client.requests)  # type: ignore[attr-defined]
        assert error.spent.total_tokens == 15 * asked
        assert asked >= 4


def _in_a_run(agent: Agent) -> Any:
    with Runtime() as runtime:
        return runtime.run(agent, "hi")


def test_a_run_that_a_step_submits_spends_the_outer_ones():
    client = client_with(9)
    with Runtime() as runtime:

        def again(text: str) -> str:
            for _ in range(9):
                runtime.run(Agent("in", client), text)
            return "done"

        error = exceeded(lambda: runtime.run(Workflow("w", [again]), "x", budget=Budget(tokens=60)))
    assert error.spent.total_tokens == 15 * len(client.requests)
    assert 2 <= len(client.requests) <= 4


def test_workflows_and_steps_within_have_budgets_of_their_own():
    client = client_with(9)
    inner = Workflow("inner", [Agent("a", client), Agent("b", client)], budget=Budget(tokens=18))
    with Runtime() as runtime:
        error = exceeded(lambda: runtime.run(Workflow("w", [inner]), "hi"))
        assert "workflow 'inner'" in str(error)
        assert len(client.requests) == 1
        # Each run of it has it anew; the tighter one holds.
        again = Workflow(
            "w", [Map(Workflow("one", [Agent("a", client)], budget=Budget(tokens=20)), at_most=1)]
        )
        with pytest.raises(WorkflowFailed):
            runtime.run(Workflow("v", [lambda _: ["a", "b", "c"], *again.steps]), "x",
                        budget=Budget(tokens=32))  # fmt: skip


def test_retries_and_broken_answers_count_and_refused_requests_do_not():
    spending = Spending(Budget(tokens=10_000), "it")
    with ScriptedServer() as server, client_of(server, model="m") as client:
        agent = Agent("a", client, max_tokens=50)
        server.reply_json({"error": "no"}, status=503)
        _run_bearing(agent, spending, fails=ServerError)
        assert spending.spent == Usage()
        from agentstream.testing.actions import Cut  # noqa: PLC0415
        from agentstream.testing.pieces import chat_chunk  # noqa: PLC0415

        server.reply(*[chat_chunk({"content": "w"})] * 7, Cut())
        _run_bearing(agent, spending, fails=Exception)
        assert spending.spent.completion_tokens == 7
        assert spending.spent.prompt_tokens is not None
        before = spending.spent.total_tokens
        server.reply_text("a", "b")
        _run_bearing(agent, spending)
        assert spending.spent.total_tokens == before + 12


def _run_bearing(agent: Agent, spending: Spending, fails: Any = None) -> None:
    from agentstream.agent.stream import AgentStream, drain  # noqa: PLC0415

    stream = AgentStream(agent.settings, "hi", None, spending=spending)
    if fails is None:
        drain(stream)
    else:
        with pytest.raises(fails):
            drain(stream)
    assert (spending._charged_tokens, spending._charged_cost) == (0, 0.0)


def test_a_client_of_clients_is_estimated_at_the_dearest_and_charged_what_it_cost():
    cheap, dear = client_with(1, Prices({"scripted": (1, 1, 1)})), client_with(1)
    dear.prices = Prices({"scripted": (100, 100, 100)})
    both = FallbackClient([cheap, dear])
    usage = Usage(10, 5, 15)
    assert both.cost_of(usage) == pytest.approx(1500e-6)
    dear.prices = None
    assert both.cost_of(usage) is None


def test_money_that_floats_round_is_not_beyond_its_bound():
    free = client_with(0, Prices({"scripted": (0, 0, 0)}))
    spending = Spending(Budget(cost=0.3), "it", spent=Usage(cost=0.1 + 0.2))
    spending.charge(ChatRequest("x"), free)
    with pytest.raises(LimitExceeded):
        Spending(Budget(cost=0.3), "it", spent=Usage(cost=0.31)).charge(ChatRequest("x"), free)


def test_a_sum_that_a_server_leaves_out_is_made():
    client = ScriptedClient(*[["x", Delta(finish_reason="stop", usage=Usage(10, 5))]] * 2)
    with Runtime() as runtime:
        workflow = Workflow("w", [Agent("a", client), Agent("b", client)])
        error = exceeded(lambda: runtime.run(workflow, "x", budget=Budget(tokens=16)))
    assert error.spent.total_tokens == 15


def test_a_request_whose_begin_cannot_be_logged_costs_nothing():
    class Full(MemoryStore):
        def append(self, fields: Any) -> Any:
            if EventType.AGENT_LLM_REQUEST_STARTED in fields:
                raise LogError("the disk is full")
            return super().append(fields)

    spending = Spending(Budget(tokens=30), "it")
    agent = Agent("a", client_with(1), max_tokens=20)
    with EventStream(Full()) as stream, pytest.raises(LogError):
        drain(AgentStream(agent.settings, "hi", stream.open_log("r"), spending=spending))
    drain(AgentStream(agent.settings, "hi", None, spending=spending))
    assert spending.spent.total_tokens == 15


def test_threads_never_charge_more_than_there_is():
    spending, client = Spending(Budget(tokens=1000), "it"), client_with(0)
    request = ChatRequest("x", max_tokens=20)
    taken: List[Any] = []
    gate = threading.Barrier(8)

    def work() -> None:
        gate.wait(10)
        for _ in range(50):
            try:
                taken.append(spending.charge(request, client))
            except LimitExceeded:
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(taken) == 1000 // 24


def test_settings_that_cannot_be_used():
    for settings in ({}, {"tokens": 0}, {"tokens": 1.5}, {"cost": -1}, {"cost": "x"},
                     {"tokens": True}, {"cost": float("nan")}):  # fmt: skip
        with pytest.raises(ConfigError):
            Budget(**settings)
    client = client_with(1)
    for make in (
        lambda: Agent("a", client, budget=5),
        lambda: Workflow("w", [Agent("a", client)], budget={"tokens": 5}),
    ):
        with pytest.raises(ConfigError, match="budget"):
            make()
    with Runtime() as runtime, pytest.raises(ConfigError, match="budget"):
        runtime.run(Agent("a", client), "x", budget=100)


def test_a_function_may_look_at_what_is_spent():
    seen: List[Any] = []

    def look(text: str, context: Any) -> str:
        seen.append(context.spending and context.spending.spent.total_tokens)
        return text

    client = client_with(2)
    workflow = Workflow("w", [Agent("a", client), look])
    with Runtime(event_stream=EventStream()) as runtime:
        runtime.run(workflow, "x", budget=Budget(tokens=1000))
        runtime.run(workflow, "x")
    assert seen == [15, None]


# --- runs that are resumed ------------------------------------------------------------------


def _kept(path: Any) -> Runtime:
    return Runtime(event_stream=EventStream(SqliteStore(str(path))), checkpoints=True)


def _pay() -> str:
    """Pay."""
    return "paid"


def test_f14_what_was_spent_and_the_budget_itself_are_kept_over_a_resume(tmp_path: Any) -> None:
    call = [ToolCall("c", "_pay", "{}"), Delta(finish_reason="tool_calls", usage=Usage(10, 5, 15))]
    for of in ("run", "workflow", "agent"):
        client = ScriptedClient(answer(), call, answer(), answer())
        budget = Budget(tokens=65)
        agent = Agent(
            "payer", client, tools=[_pay], approve=lambda _: Approval.later(),
            budget=budget if of == "agent" else None,
        )  # fmt: skip
        steps = [Agent("first", client), agent, Agent("last", client)]
        workflow = Workflow("w", steps, budget=budget if of == "workflow" else None)
        given = {"budget": budget} if of == "run" else {}
        path = tmp_path / of
        with _kept(path) as runtime:
            run = runtime.run(workflow, "hi", workflow_id="r", **given)
            assert run.status == "suspended"
            (pending,) = run.pending
        with _kept(path) as runtime:
            handle = runtime.resume(workflow, "r", {pending.id: True})
            error = exceeded(handle.result)
        assert error.spent is not None
        # Of the agent's own the first step is no part.
        before = 1 if of == "agent" else 2
        assert error.spent.total_tokens == 15 * before
        assert len(client.requests) == 2


def test_a_resumed_run_may_be_given_another_budget(tmp_path: Any) -> None:
    call = [ToolCall("c", "_pay", "{}"), Delta(finish_reason="tool_calls", usage=Usage(10, 5, 15))]
    client = ScriptedClient(call, answer())
    agent = Agent("payer", client, tools=[_pay], approve=lambda _: Approval.later())
    with _kept(tmp_path / "r.db") as runtime:
        run = runtime.run(agent, "hi", workflow_id="r", budget=Budget(tokens=50))
        (pending,) = run.pending
    with _kept(tmp_path / "r.db") as runtime:
        more = Budget(tokens=1000)
        run = runtime.resume(agent, "r", {pending.id: True}, budget=more).result(20)
    assert (run.status, run.usage.total_tokens) == ("completed", 30)
