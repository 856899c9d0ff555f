"""Agents: a model with a task and tools, its runs, its tool calls and its conversations."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from agentstream.agent.agent import Agent, AgentOutput, AgentStream, ToolLimits

if TYPE_CHECKING:
    from agentstream.agent.approval import Approval
    from agentstream.agent.conversation import Conversation

__all__ = ["Agent", "AgentOutput", "AgentStream", "Approval", "Conversation", "ToolLimits"]

#: What not every agent needs, imported when it is asked for.
_LATER = {
    "Approval": "agentstream.agent.approval",
    "Conversation": "agentstream.agent.conversation",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
