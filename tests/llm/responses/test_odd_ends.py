"""Ends of a response whose fields are of other types than they should be."""

from __future__ import annotations

import json

import pytest

from agentstream import OpenAIClient
from agentstream.testing import responses_chunks
from tests.kit.streams import play

ENDS = [
    {"type": [], "response": {"status": "completed", "output": 3}},
    {"type": None, "response": {"status": ["x"], "output": {"a": 1}}},
    {"type": "response.completed", "response": 3},
    {"type": "response.completed", "response": {"output": [3, None, {"type": ["message"]}]}},
    {"type": "response.completed", "response": {"id": 3, "status": {}, "usage": []}},
]


@pytest.mark.parametrize("end", ENDS, ids=str)
def test_an_odd_end_is_an_end(end):
    client = OpenAIClient("m", base_url="http://127.0.0.1:1", api_key="k", api="responses")
    last = f"event: response.completed\ndata: {json.dumps(end)}\n\n".encode()
    _, response, error = play([*responses_chunks("Yes.")[:-1], last], client)
    assert (error, response.content, response.finish_reason) == (None, "Yes.", "stop")
