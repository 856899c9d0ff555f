"""`--budget-tokens`, `--budget-cost`, the prices of the config file, and what runs cost."""

from __future__ import annotations

import json

import pytest

from agentstream.testing import text_chunks
from tests.kit.cli_runs import FLOW

PRICES = '{"default": [1, 1, 1]}'


def test_a_run_ends_before_the_request_that_would_pass_its_budget(here, server, cli, monkeypatch):
    flow = cli.write("verse.toml", FLOW)
    done = here("run", flow, "--input", "x", "--budget-tokens", "3", code=1)
    assert "LimitExceeded" in done.line
    assert "of 3 tokens" in done.line
    done = here("run", flow, "--input", "x", "--budget-cost", "1", code=1)
    assert "no price of its model" in done.line
    assert "; here: [prices] in " in done.err
    monkeypatch.setenv("AGENTSTREAM_PRICES", PRICES)
    here("run", flow, "--input", "x", "--budget-cost", "0.000001", code=1)
    monkeypatch.setenv("AGENTSTREAM_BUDGET_COST", "0")
    assert "in money" in here("chat", "x", code=1).line
    monkeypatch.setenv("AGENTSTREAM_PRICES", '{"default": [1]}')
    assert "AGENTSTREAM_PRICES" in here("chat", "x", code=2).line
    for flag, value in (("tokens", "0"), ("tokens", "1.5"), ("cost", "x"), ("cost", "-1")):
        with pytest.raises(SystemExit):
            here("run", flow, "--input", "x", f"--budget-{flag}={value}")
    assert server.requests == []


def test_what_runs_cost_is_in_the_table_the_json_and_the_events(here, server, cli, monkeypatch):
    monkeypatch.setenv("AGENTSTREAM_PRICES", PRICES)
    monkeypatch.setenv("AGENTSTREAM_LOG", cli.log)
    server.default(*text_chunks("one ", "two"))  # 10 and 2 tokens
    flow = cli.write("verse.toml", FLOW)
    (run,) = here("run", flow, "--input", "x", "--id", "dear", "--json").events
    assert run["usage"]["cost"] == run["steps"][0]["usage"]["cost"] == 12e-6
    head, row = here("runs", "--cost").out.splitlines()
    assert head.split()[-3:] == ["ALL", "COST", "WORKFLOW"]
    assert row.split()[-3:] == ["12", "0.000012", "verse"]
    (listed,) = here("runs", "--json").events
    assert listed["usage"]["cost"] == 12e-6
    (followed,) = here("follow", "dear", "--json").events
    assert followed["usage"] == run["usage"]
    assert "tokens, cost 0.000012" in here("run", flow, "--input", "x", "-v").err
    events = here("run", flow, "--input", "x", "--jsonl", "--budget-tokens", "500").events
    assert events[0]["data"]["budget"] == {"tokens": 500}
    assert events[-1]["data"]["usage"]["cost"] == 12e-6
    assert json.loads(json.dumps(events[-1]))["data"]["usage"]["total_tokens"] == 12
