"""Every recorded stream that calls tools, executed: the right functions, the right arguments.

From ../shared/conformance, data that the project does not ship; without it these
tests skip and say so.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest

from agentstream import Agent, CancelToken, ChatClient, ChatRequest, Delta, EventStream, EventType
from agentstream.tools import Tool
from tests.kit.streams import PlayingClient

CORPUS = pathlib.Path(__file__).resolve().parents[3] / "shared" / "conformance"
INDEX = CORPUS / "index.json"
STREAMS = [
    stream
    for stream in (json.loads(INDEX.read_text("utf-8")) if INDEX.exists() else [])
    if stream["expected"]["tool_calls"] and stream["expected"]["error"] is None
]

pytestmark = pytest.mark.skipif(
    not INDEX.exists(), reason="../shared/conformance is not here: a clone without the corpus"
)


def test_the_corpus_is_whole():
    assert len(STREAMS) == 39


class Replayed(ChatClient):
    """Plays a recorded answer to the first request, and says "done" to the second."""

    provider = "recorded"

    def __init__(self, pieces: List[bytes]) -> None:
        self.model = "recorded"
        self._client = PlayingClient(pieces, tool_mode="native")
        self.requests: List[ChatRequest] = []

    def stream_deltas(
        self, request: ChatRequest, *, cancel: Optional[CancelToken] = None
    ) -> Iterator[Delta]:
        self.requests.append(request)
        if len(self.requests) > 1:
            return iter([Delta("done", finish_reason="stop")])
        asked = ChatRequest(request.messages)  # the template is not asked: the answer is here
        return self._client.stream_deltas(asked, cancel=cancel)

    def close(self) -> None:
        self._client.close()


@pytest.mark.parametrize("stream", STREAMS, ids=lambda s: s["file"][8:-4])
@pytest.mark.parametrize("size", [1, 7, None], ids=["bytes", "sevens", "whole"])
def test_tool_stream(stream, size):
    body = (CORPUS / stream["file"]).read_bytes()
    size = size or len(body)
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    expected = stream["expected"]["tool_calls"]
    called: Dict[str, Tuple[str, Any]] = {}

    def make(name: str) -> Tool:
        def record(context: Any = None, **arguments: Any) -> str:
            called.setdefault(name, (name, arguments))
            return f"result of {name}"

        schema = {"type": "object", "properties": {}, "additionalProperties": True}
        return Tool(name, "Recorded.", schema, record)

    names = list(dict.fromkeys(call["name"] for call in expected))
    assert len(names) == len(expected), "no two calls of a stream have the same name"
    client = Replayed(pieces)
    agent = Agent("player", client=client, tools=[make(name) for name in names])
    with client, EventStream() as events:
        output = agent.execute_with_events("go", events, workflow_id="run")
        happened = list(events.store.read(workflow_id="run", limit=10_000))
    assert output.response == "done"
    assert output.tool_calls_count == len(expected)
    for call in expected:
        assert called[call["name"]] == (call["name"], json.loads(call["arguments"] or "{}"))
    said = client.requests[1].messages
    assert [c.id for c in said[1].tool_calls] == [call["id"] for call in expected]
    assert [(m.tool_call_id, m.content) for m in said[2:]] == [
        (call["id"], f"result of {call['name']}") for call in expected
    ]
    assert not [e for e in happened if e.type is EventType.TOOL_CALL_FAILED]
    text = "".join(e.data["chunk"] for e in happened if e.type is EventType.AGENT_LLM_STREAM_CHUNK)
    assert text == stream["expected"]["text"] + "done"
