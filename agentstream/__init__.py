"""LLM agents that stream, in plain threads.

    from agentstream import LlamaClient

    client = LlamaClient("http://127.0.0.1:8080")
    for text in client.chat_stream("Tell me a joke"):
        print(text, end="", flush=True)

The public names and nothing else.  Importing this starts nothing and reads nothing;
each name's module is imported when the name is first asked for, so that a program
pays for what it uses, and the command line is there before a Ctrl-C can be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentstream._version import __version__

if TYPE_CHECKING:
    from agentstream.agent.agent import Agent, AgentOutput, AgentStream, ToolLimits
    from agentstream.agent.approval import Approval
    from agentstream.agent.conversation import Conversation
    from agentstream.cancel import CancelToken
    from agentstream.console.console import Console
    from agentstream.console.status import StatusLine
    from agentstream.errors import (
        AgentStreamError,
        AuthError,
        BadRequest,
        Cancelled,
        ConfigError,
        ConnectError,
        ConnectTimeout,
        DeadlineExceeded,
        FirstTokenTimeout,
        LimitExceeded,
        LogError,
        OffsetGone,
        ProtocolError,
        ProviderStreamError,
        RateLimited,
        ServerError,
        StallTimeout,
        StatusError,
        StreamError,
        StreamTruncated,
        ToolError,
        ToolTimeout,
        WorkflowFailed,
    )
    from agentstream.events.model import Event, EventType
    from agentstream.events.sqlite import SqliteStore
    from agentstream.events.store import EventStore, MemoryStore, RunState
    from agentstream.events.stream import EventStream, Subscription
    from agentstream.llm.clients import (
        ChatClient,
        InsecureWarning,
        LlamaClient,
        OpenAIClient,
        TextStream,
    )
    from agentstream.llm.messages import ChatMessage, ChatRequest, Delta, ToolCallDelta
    from agentstream.llm.settings import Limits, Retries, Timeouts
    from agentstream.llm.sse import ServerSentEvent
    from agentstream.results import ChatResponse, StepResult, ToolCall, Usage, WorkflowRun
    from agentstream.runtime.runtime import RunHandle, Runtime, exit_on_sigterm
    from agentstream.tools import RunContext, Tool, tool
    from agentstream.tools import RunContext as Context
    from agentstream.workflow import Step, Workflow
    from agentstream.workflow.shapes import Branch, Parallel, Repeat

__all__ = [
    "Agent",
    "AgentOutput",
    "AgentStream",
    "AgentStreamError",
    "Approval",
    "AuthError",
    "BadRequest",
    "Branch",
    "CancelToken",
    "Cancelled",
    "ChatClient",
    "ChatMessage",
    "ChatRequest",
    "ChatResponse",
    "ConfigError",
    "ConnectError",
    "ConnectTimeout",
    "Console",
    "Context",
    "Conversation",
    "DeadlineExceeded",
    "Delta",
    "Event",
    "EventStore",
    "EventStream",
    "EventType",
    "FirstTokenTimeout",
    "InsecureWarning",
    "LimitExceeded",
    "Limits",
    "LlamaClient",
    "LogError",
    "MemoryStore",
    "OffsetGone",
    "OpenAIClient",
    "Parallel",
    "ProtocolError",
    "ProviderStreamError",
    "RateLimited",
    "Repeat",
    "Retries",
    "RunContext",
    "RunHandle",
    "RunState",
    "Runtime",
    "ServerError",
    "ServerSentEvent",
    "SqliteStore",
    "StallTimeout",
    "StatusError",
    "StatusLine",
    "Step",
    "StepResult",
    "StreamError",
    "StreamTruncated",
    "Subscription",
    "TextStream",
    "Timeouts",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolError",
    "ToolLimits",
    "ToolTimeout",
    "Usage",
    "Workflow",
    "WorkflowFailed",
    "WorkflowRun",
    "__version__",
    "exit_on_sigterm",
    "tool",
]

#: Where each name lives.
_HOMES = {
    "agentstream.agent.agent": ("Agent", "AgentOutput", "AgentStream", "ToolLimits"),
    "agentstream.agent.approval": ("Approval",),
    "agentstream.cancel": ("CancelToken",),
    "agentstream.console.console": ("Console",),
    "agentstream.console.status": ("StatusLine",),
    "agentstream.agent.conversation": ("Conversation",),
    "agentstream.errors": (
        "AgentStreamError",
        "AuthError",
        "BadRequest",
        "Cancelled",
        "ConfigError",
        "ConnectError",
        "ConnectTimeout",
        "DeadlineExceeded",
        "FirstTokenTimeout",
        "LimitExceeded",
        "LogError",
        "OffsetGone",
        "ProtocolError",
        "ProviderStreamError",
        "RateLimited",
        "ServerError",
        "StallTimeout",
        "StatusError",
        "StreamError",
        "StreamTruncated",
        "ToolError",
        "ToolTimeout",
        "WorkflowFailed",
    ),
    "agentstream.events.model": ("Event", "EventType"),
    "agentstream.events.sqlite": ("SqliteStore",),
    "agentstream.events.store": ("EventStore", "MemoryStore", "RunState"),
    "agentstream.events.stream": ("EventStream", "Subscription"),
    "agentstream.llm.clients": (
        "ChatClient",
        "InsecureWarning",
        "LlamaClient",
        "OpenAIClient",
        "TextStream",
    ),
    "agentstream.llm.messages": (
        "ChatMessage",
        "ChatRequest",
        "ChatResponse",
        "Delta",
        "ToolCall",
        "ToolCallDelta",
        "Usage",
    ),
    "agentstream.llm.settings": ("Limits", "Retries", "Timeouts"),
    "agentstream.llm.sse": ("ServerSentEvent",),
    "agentstream.runtime.runtime": ("RunHandle", "Runtime", "exit_on_sigterm"),
    "agentstream.tools": ("RunContext", "Tool", "tool"),
    "agentstream.workflow": ("Step", "StepResult", "Workflow", "WorkflowRun"),
    "agentstream.workflow.context": ("Context",),  # RunContext, by its older name
    "agentstream.workflow.shapes": ("Branch", "Parallel", "Repeat"),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    import importlib  # noqa: PLC0415

    if name in _MODULES:
        value = getattr(importlib.import_module(_MODULES[name]), name)
        globals()[name] = value
        return value
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:  # a module of the package, as `agentstream.errors`
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
