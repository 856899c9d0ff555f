"""What a request will cost, before anybody has counted."""

from __future__ import annotations

from typing import Any

import pytest

from agentstream.llm.rate_limit.estimate import Estimator, answer_bound, size_of
from agentstream.results import Usage


def said(content: Any, **fields: Any) -> Any:
    return {"model": "", "messages": [{"role": "", "content": content}], **fields}


@pytest.mark.parametrize(
    ("body", "bound"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_output_tokens": 7}, 7),
        ({"options": {"num_predict": 8}}, 8),
        ({"options": {"num_predict": -1}}, None),
        ({"options": None, "max_tokens": None}, None),
        ({"max_tokens": True}, None),
    ],
)
def test_the_bound_of_an_answer_in_every_dialects_words(body: Any, bound: Any) -> None:
    assert answer_bound(body) == bound


def test_texts_are_counted_by_bytes_and_pictures_by_number() -> None:
    picture = "data:image/png;base64," + "A" * 5000
    assert size_of(said("x" * 100)) == (100, 0)
    assert size_of(said("\u4e2d" * 5000)) == (15_000, 0)  # a language without blanks
    assert size_of(said([{"text": "hi"}, {"image_url": {"url": picture}}])) == (2, 1)
    assert size_of(said("\ud800")) == (3, 0)
    deep: Any = "x"
    for _ in range(10_000):
        deep = [deep]
    assert size_of(said(deep)) == (1, 0)


def test_an_estimate_is_the_prompt_and_an_answer_within_its_bound() -> None:
    estimator = Estimator()
    assert estimator.tokens(said("x" * 400)) == 100 + 256 + 1
    assert estimator.tokens(said("x" * 400, max_tokens=10)) == 100 + 10 + 1
    assert estimator.tokens(said("x" * 400, max_tokens=32_000)) == 100 + 256 + 1


def test_it_learns_from_what_servers_count_and_from_no_nonsense() -> None:
    estimator = Estimator()
    body = said("x" * 1000)
    for _ in range(50):
        estimator.learn(body, Usage(500, 40))
    assert 530 < estimator.tokens(body) < 550
    for usage in (Usage(10**9, 40), Usage(0, 0), Usage(None, None), Usage(None, 9, estimated=True)):
        for _ in range(50):
            estimator.learn(body, usage)
    assert estimator.tokens(body) <= 4000 + 41
    estimator.learn(said(""), Usage(500, 40))
