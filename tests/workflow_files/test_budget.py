"""Budgets of a file's runs and agents."""

from __future__ import annotations

from typing import Any

import pytest

from agentstream import Budget, ConfigError, LimitExceeded, Runtime, WorkflowFailed
from agentstream.testing import ScriptedServer
from agentstream.workflow_files import load_workflow

FILE = """
    {run}
    [clients.c]
    base_url = {url!r}
    prices = {{default = [1, 1, 1]}}
    [agents.a]
    {agent}
    [[steps]]
    agent = "a"
"""


def test_budgets_of_the_runs_and_of_an_agent_hold(write: Any) -> None:
    rows = (
        ("budget = {tokens = 3}", "", "budget_tokens"),
        ("budget = {cost = 0.000001}", "", "budget_cost"),
        ("", "budget = {tokens = 3}", "budget_tokens"),
        ("budget = {tokens = 1000}", "budget = {cost = 0}", "budget_cost"),
    )
    with ScriptedServer() as server, Runtime() as runtime:
        for run, agent, limit in rows:
            file = load_workflow(write(FILE.format(run=run, agent=agent, url=server.url)))
            with file.build(environ={}) as workflow, pytest.raises(WorkflowFailed) as found:
                runtime.run(workflow, "x")
            assert isinstance(found.value.__cause__, LimitExceeded)
            assert found.value.__cause__.limit == limit
        assert server.requests == []
        server.reply_text("hi")
        text = FILE.format(run="budget = {tokens = 100, cost = 1}", agent="", url=server.url)
        file = load_workflow(write(text))
        assert file.budget == Budget(tokens=100, cost=1)
        assert "budget of a run: tokens 100, cost 1" in file.describe()
        with file.build(environ={}) as workflow:
            run = runtime.run(workflow, "x")
        assert run.usage.cost == pytest.approx(11e-6)


def test_what_is_no_budget_is_said(write: Any) -> None:
    for given in ("5", "{}", "{tokens = 0}", "{token = 5}", '{cost = "x"}', "{tokens = 1.5}"):
        for place in ("run", "agent"):
            texts = {"run": "", "agent": "", place: f"budget = {given}"}
            with pytest.raises(ConfigError, match="budget"):
                load_workflow(write(FILE.format(url="http://h", **texts)))
