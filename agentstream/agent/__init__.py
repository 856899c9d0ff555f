"""Agents: a model with a task and tools, its runs, its tool calls and its conversations."""

from agentstream.agent.agent import Agent, AgentOutput, AgentStream, ToolLimits
from agentstream.agent.approval import Approval
from agentstream.agent.conversation import Conversation

__all__ = ["Agent", "AgentOutput", "AgentStream", "Approval", "Conversation", "ToolLimits"]
