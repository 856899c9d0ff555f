"""Prices: what an answer cost, and what a run did."""

from __future__ import annotations

from typing import Any, Dict

import pytest

from agentstream import (
    Agent,
    AnthropicClient,
    ConfigError,
    OllamaClient,
    Parallel,
    Prices,
    Runtime,
    Usage,
    Workflow,
)
from agentstream.llm.messages import as_request
from agentstream.testing import Cut, messages_chunks, ollama_chunks, text_chunks
from tests.kit.support import ask, client_of

#: A token of each kind at a price of its own.
PRICES = Prices({"m": (1e6, 1e3, 1e9), "w": (1, 0, 1, 1e6)})


def test_tokens_of_each_kind_have_their_price():
    assert PRICES.cost("m", Usage(10, 2)) == 2010.0
    assert PRICES.cost("m", Usage(10, 2, cached_tokens=4)) == pytest.approx(2006.004)
    assert PRICES.cost("m", Usage(10, 2, cache_write_tokens=4)) == 2010.0  # as other input
    assert PRICES.cost("w", Usage(10, 0, cache_write_tokens=4)) == pytest.approx(4 + 6e-6)
    assert PRICES.cost("m", Usage(1, 2, reasoning_tokens=2)) == 2001.0  # within the two
    assert PRICES.cost("m", Usage(3, 1, cached_tokens=9)) == pytest.approx(1000.009)
    assert Prices({"free": (0, 0, 0)}).cost("free", Usage(10, 2)) == 0.0


@pytest.mark.parametrize(
    ("model", "usage"),
    [
        ("other", Usage(1, 1)),
        ("m", Usage(None, 1)),
        ("m", Usage(1, None)),
        ("m", Usage(completion_tokens=3, estimated=True)),
    ],
)
def test_what_is_not_known_has_no_cost(model, usage):
    assert PRICES.priced(model, usage) == usage


def test_a_server_that_says_what_it_cost_is_believed():
    assert PRICES.priced("m", Usage(1, 1, cost=7.0)).cost == 7.0
    assert PRICES.priced("m", Usage(1, 1, cost=0.0)).cost == 0.0


@pytest.mark.parametrize(
    "given",
    [
        3,
        [("m", (1, 2, 3))],
        {"m": 1},
        {"m": (1, 2)},
        {"m": (1, 2, 3, 4, 5)},
        {"m": "123"},
        {"m": (1, 2, -3)},
        {"m": (1, 2, float("nan"))},
        {"m": (1, 2, None)},
        {"m": (1, True, 2)},
        {"": (1, 2, 3)},
        {3: (1, 2, 3)},
    ],
)
def test_prices_that_are_none(given):
    with pytest.raises(ConfigError, match="price"):
        Prices(given)


def test_a_client_takes_prices_only():
    with pytest.raises(ConfigError, match="prices must be a Prices, not dict"):
        OllamaClient("m", prices={"m": (1, 2, 3)})  # type: ignore[arg-type]
    assert repr(PRICES) == "Prices(m, w)"


def test_an_answer_has_its_cost(server):
    server.reply(*text_chunks("a", "b"))
    server.reply(*text_chunks("a", "b"))
    with client_of(server, model="m", prices=PRICES) as client:
        result = ask(client)
        assert result.response.usage == Usage(10, 2, 12, cost=2010.0)
        assert [delta.usage.cost for delta in result.deltas if delta.usage] == [2010.0]
        other = as_request("hi").replace(model="n")
        assert client.chat(other).usage.cost is None


def test_so_it_has_in_every_dialect(server):
    server.reply(*ollama_chunks("a", "b"), content_type="application/x-ndjson")
    with OllamaClient("m", server.url, prices=PRICES) as client:
        assert client.chat("hi").usage == Usage(10, 2, 12, cost=2010.0)
    server.reply(*messages_chunks("a", "b"))
    settings: Dict[str, Any] = {"api_key": "k", "base_url": server.url}
    with AnthropicClient("m", prices=PRICES, **settings) as client:
        usage = client.chat("hi").usage
        assert usage.cost == PRICES.cost("m", usage) and usage.cost


def test_an_answer_that_broke_off_costs_what_is_known(server):
    server.reply(*text_chunks("a", usage=False, done=False, finish_reason=None), Cut())
    with client_of(server, model="m", prices=PRICES) as client:
        assert ask(client).response.usage.cost is None


def test_a_run_costs_what_its_answers_do(server):
    server.default(*text_chunks("a", "b"))
    with client_of(server, model="m", prices=PRICES) as client, Runtime() as runtime:
        agents = {name: Agent(name, client=client) for name in "abc"}
        steps = [agents["a"], Parallel({"b": agents["b"], "c": agents["c"]})]
        run = runtime.run(Workflow("w", steps), "hi")
        assert run.usage == Usage(30, 6, 36, cost=6030.0)
        assert run.steps[1].usage.cost == 4020.0
        events = list(runtime.event_stream.store.read(workflow_id=run.workflow_id, after=0))
    assert events[-1].data["usage"]["cost"] == 6030.0
