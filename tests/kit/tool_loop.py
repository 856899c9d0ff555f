"""Agents whose model calls tools: a model that does as it is told, and tools that are counted."""

from __future__ import annotations

import json
from typing import Any, List, Optional

from agentstream import Agent, CancelToken, EventStream, EventType, ToolCall, tool
from agentstream.testing import ScriptedClient
from agentstream.testing.pieces import DONE, chat_chunk

BOUND = 10.0


@tool
def add(a: int, b: int) -> int:
    """Add two integers."""
    return a + b


def call(name: str, number: int = 0, **arguments: Any) -> ToolCall:
    return ToolCall(f"call_{number}", name, json.dumps(arguments))


class Watched:
    """An agent over a scripted model, with its events and what it sent."""

    def __init__(self, *replies: Any, **settings: Any) -> None:
        self.model = ScriptedClient(*replies)
        settings.setdefault("tools", [add])
        self.agent = Agent("worker", client=self.model, **settings)
        self.events: List[Any] = []

    def run(self, text: str = "go", cancel: Optional[CancelToken] = None) -> Any:
        with EventStream() as stream:
            try:
                return self.agent.execute_with_events(
                    text, stream, workflow_id="run", cancel=cancel
                )
            finally:
                self.events = list(stream.store.read(workflow_id="run", limit=1000))
                assert [e.offset for e in self.events] == list(range(1, len(self.events) + 1))

    def of(self, *types: EventType) -> List[Any]:
        return [event for event in self.events if event.type in types]

    def told(self, request: int = 1) -> List[str]:
        """What the tool messages of a request say."""
        messages = self.model.requests[request].messages
        return [m.content for m in messages if m.role == "tool"]


def in_pieces(*calls: Any) -> List[bytes]:
    pieces = [chat_chunk({"tool_calls": [piece]}) for piece in calls]
    return [*pieces, chat_chunk({}, finish_reason="tool_calls"), DONE]


def piece(arguments: str, name: Optional[str] = None, **rest: Any) -> Any:
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    return {**rest, "function": function}


def counting(name: str, ran: List[Any], **settings: Any) -> Any:
    def work(x: int) -> str:
        ran.append((name, x))
        return f"{name} {x}"

    return tool(work, name=name, description="Work.", **settings)
