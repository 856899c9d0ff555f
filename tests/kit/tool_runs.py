"""Runs of an agent whose tools are watched: which ran, and what the model was sent back."""

from __future__ import annotations

import json
from typing import Any, List

from agentstream import Agent, Tool, ToolCall, tool
from agentstream.testing import ScriptedClient


class Ran:
    """Tools that note how they were called."""

    def __init__(self) -> None:
        self.calls: List[Any] = []

    def tool(self, name: str, answers: Any = ("ok",), **settings: Any) -> Tool:
        left = list(answers)

        def work(x: str = "") -> str:
            self.calls.append((name, x))
            return str(left.pop(0) if len(left) > 1 else left[0])

        return tool(work, name=name, description="Work.", **settings)


def call(name: str, number: int = 0, **arguments: Any) -> ToolCall:
    return ToolCall(f"call_{number}", name, json.dumps(arguments))


def run(*replies: Any, **settings: Any) -> Any:
    """An agent's run over a scripted model: its output, and the requests."""
    client = ScriptedClient(*replies)
    output = Agent("worker", client=client, **settings).execute("go")
    return output, client.requests


def told(request: Any) -> List[str]:
    """What the tool messages of a request say."""
    return [m.content for m in request.messages if m.role == "tool"]


def sent_back(request: Any) -> List[ToolCall]:
    return [c for m in request.messages for c in m.tool_calls]
