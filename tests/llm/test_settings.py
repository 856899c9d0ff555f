"""Timeouts, retries and limits: what they refuse, and their defaults."""

from __future__ import annotations

import pytest

from agentstream import errors
from agentstream.llm.clients import LlamaClient, OpenAIClient
from agentstream.llm.settings import Limits, Retries, Timeouts
from tests.kit.client_support import ANSWER, ASIDE, body_of, no_environment  # noqa: F401


@pytest.mark.parametrize("name", ["connect", "first_token", "stall", "total"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "5", True, [1]])
def test_timeouts_refuse(name, value):
    with pytest.raises(errors.ConfigError, match=rf"Timeouts\.{name} must be a positive number"):
        Timeouts(**{name: value})


def test_timeouts_accept():
    assert Timeouts(connect=None, first_token=1, stall=0.5, total=None).stall == 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attempts", -1),
        ("attempts", 1.5),
        ("attempts", "2"),
        ("attempts", None),
        ("attempts", True),
        ("backoff", -0.1),
        ("backoff", "1"),
        ("max_backoff", None),
        ("max_backoff", float("nan")),
        ("max_retry_after", -1),
        ("resume", "yes"),
    ],
)
def test_retries_refuse(name, value):
    with pytest.raises(errors.ConfigError, match=rf"Retries\.{name} must be"):
        Retries(**{name: value})


@pytest.mark.parametrize("name", ["line", "event", "tool_arguments", "answer", "pool_size"])
@pytest.mark.parametrize("value", [0, -5, 1.5, "9", True])
def test_limits_refuse(name, value):
    with pytest.raises(
        errors.ConfigError, match=rf"Limits\.{name} must be (a whole number|1 or more), not"
    ):
        Limits(**{name: value})


def test_limits_refuse_an_endless_pool():
    with pytest.raises(errors.ConfigError, match=r"Limits\.pool_size"):
        Limits(pool_size=None)


def test_defaults_for_a_slow_cpu_and_for_a_hosted_model():
    with LlamaClient(**ASIDE) as llama, OpenAIClient(**ASIDE) as hosted:
        assert llama.timeouts.first_token == 600.0
        assert hosted.timeouts.first_token == 120.0
        assert llama.timeouts.total is hosted.timeouts.total is None
