"""docs/faults.rst W07, W10, W14, W16, B09, B17: what a chunk holds besides tool calls."""

from __future__ import annotations

import json

import pytest

from agentstream.testing import sse, text_chunks
from agentstream.testing.pieces import DONE, chat_chunk
from tests.kit.chunks import chunk
from tests.kit.support import ask, client_of

BEGINNING = text_chunks("Hello", finish_reason=None, usage=False, done=False)


# --- W07: heartbeats ---


@pytest.mark.parametrize(
    "beat",
    [
        "data:\n\n",
        "data\n\n",
        "data: \n\n",
        "data:   \n\n",
        "data:\ndata:\n\n",
        "data: \t\n\n",
        "event: ping\ndata:\n\n",
        "event: ping\ndata: 2024-01-01 00:00:00\n\n",
        'event: ping\ndata: {"message": "alive"}\n\n',
        "event: heartbeat\ndata: alive\n\n",
        "event: keep-alive\ndata: ok\n\n",
        "event: x\n\n",
    ],
)
def test_w07_blank_data_is_skipped(server, beat):
    server.reply(beat, *BEGINNING, beat, beat, chat_chunk({}, finish_reason="stop"), beat, DONE)
    with client_of(server) as client:
        result = ask(client)
    assert result.error is None
    assert result.text == "Hello"
    assert result.response.warnings == ()


# --- B17: lone surrogates ---


def test_b17_lone_surrogates_in_model_finish_reason_and_refusal(server):
    server.reply(
        sse(json.dumps(chunk({"refusal": "no\ud83d"}, model="m\ud83d"))),
        sse(json.dumps(chunk({"content": "x"}, "odd\ud83d\x1b[31m", model="m\ud83d"))),
        DONE,
    )
    with client_of(server) as client:
        response = ask(client).response
    assert response.model == "m\ufffd"
    shown = repr([response.model, response.finish_reason, response.warnings])
    shown.encode()
    assert "\\x1b" not in shown
    assert "\\ud83d" not in shown
