"""Token counts in the spellings of all servers (W16)."""

from __future__ import annotations

import json

import pytest

from agentstream.results import Usage
from agentstream.testing import text_chunks
from tests.kit.chunks import answer_to, chunk
from tests.kit.support import ask, client_of

USAGES = {
    "plain": ({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}, Usage(7, 3, 10)),
    "input, output": ({"input_tokens": 7, "output_tokens": 3}, Usage(7, 3, None)),
    "floats": (
        {"prompt_tokens": 7.0, "completion_tokens": 3.0, "total_tokens": 10.0},
        Usage(7, 3, 10),
    ),
    "details": (
        {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
        Usage(7, 3, 10, False, 5, 1, 2),
    ),
    "other details": (
        {
            "input_tokens": 7,
            "output_tokens": 3,
            "total_tokens": 10,
            "input_tokens_details": {"cached_tokens": 5},
            "output_tokens_details": {"reasoning_tokens": 2},
        },
        Usage(7, 3, 10, False, 5, None, 2),
    ),
    "DeepSeek": (
        {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "total_tokens": 10,
            "prompt_cache_hit_tokens": 4,
            "prompt_cache_miss_tokens": 3,
        },
        Usage(7, 3, 10, False, 4),
    ),
    "cost": ({"prompt_tokens": 7, "completion_tokens": 3, "cost": 0.25}, Usage(7, 3, cost=0.25)),
    "cost in parts": (
        {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "cost": {"total_cost": 0.25, "request_cost": 0.1},
        },
        Usage(7, 3, cost=0.25),
    ),
    "camel case": ({"promptTokens": 7, "completionTokens": 3, "totalTokens": 10}, Usage(7, 3, 10)),
    "Ollama": ({"prompt_eval_count": 7, "eval_count": 3}, Usage(7, 3)),
    "two spellings, one of zeros": (
        {"prompt_tokens": 0, "completion_tokens": 0, "input_tokens": 7, "output_tokens": 3},
        Usage(7, 3),
    ),
    "two caches, one of zeros": (
        {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 0},
            "prompt_cache_hit_tokens": 5,
        },
        Usage(7, 3, cached_tokens=5),
    ),
    "null details": (
        {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": None},
        Usage(7, 3),
    ),
}


def test_w16_a_zero_hides_no_count():
    first = chunk({"content": "x"}, usage={"prompt_tokens": 7, "completion_tokens": 0})
    last = {"prompt_tokens": 0, "completion_tokens": 3, "total_tokens": 3}
    usage = answer_to(first, chunk(finish="stop", usage=last)).usage
    assert usage == Usage(7, 3, 10)


ZERO = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


@pytest.mark.parametrize("kind", USAGES)
@pytest.mark.parametrize("place", ["top", "choice", "x_groq"])
@pytest.mark.parametrize("zeros", ["", "before", "after", "both"])
def test_w16_usage_in_all_its_spellings(kind, place, zeros):
    given, expected = USAGES[kind]
    holding = chunk({"content": "x"})
    if place == "choice":
        holding["choices"][0]["usage"] = given
    else:
        holding["usage" if place == "top" else "x_groq"] = (
            given if place == "top" else {"usage": given}
        )
    zero = chunk({"content": "x"}, usage=ZERO)
    before = [zero, zero] if zeros in ("before", "both") else []
    after = [zero, zero] if zeros in ("after", "both") else []
    usage = answer_to(*before, holding, *after).usage
    # A zero that came before stands where the later one says nothing.
    if expected.total_tokens is None and before and place == "top":
        assert usage.total_tokens in (None, 0)
        usage = usage._replace(total_tokens=None)
    assert usage == expected


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 10**400, True, "7", [7], {}])
def test_b09_w16_what_is_no_count(value):
    response = answer_to(chunk({"content": "x"}, usage={"prompt_tokens": value}))
    assert response.usage == Usage(None, 1, None, True)
    json.dumps(response.usage.to_dict(), allow_nan=False)


CALL = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize("delta", [{"tool_calls": [CALL]}, {"reasoning_content": "hm"}])
def test_w16_an_answer_without_content_is_not_estimated_at_0(delta):
    usage = answer_to(chunk(delta), chunk(delta), chunk(finish="stop")).usage
    assert usage == Usage(None, 2, None, True)


def test_w16_usages_add_up_in_every_field():
    one = Usage(1, 2, 3, False, 4, None, 5, 0.5)
    two = Usage(10, 20, 30, True, None, 6, 50, 0.25)
    assert one + two == Usage(11, 22, 33, True, 4, 6, 55, 0.75)
    assert sum([one, two]) == one + two
    assert Usage(**one.to_dict()) == one
    assert Usage(1, 2, 3).to_dict() == {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "total_tokens": 3,
        "estimated": False,
    }
    assert one.to_dict()["cached_tokens"] == 4


def test_w16_the_details_reach_the_caller(server):
    server.reply(*text_chunks("Hello", usage=USAGES["details"][0]))
    with client_of(server) as client:
        assert ask(client).response.usage == USAGES["details"][1]
