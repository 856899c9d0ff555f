"""LLM agents that stream, in plain threads.

    from agentstream import LlamaClient

    client = LlamaClient("http://127.0.0.1:8080")
    for text in client.chat_stream("Tell me a joke"):
        print(text, end="", flush=True)

The public names and nothing else: importing this starts nothing and reads
nothing.  Names that few programs need are imported when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentstream._version import __version__
from agentstream.agent import Agent, AgentOutput, AgentStream
from agentstream.cancel import CancelToken
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
from agentstream.events.store import EventStore, MemoryStore, RunState
from agentstream.events.stream import EventStream, Subscription
from agentstream.llm.clients import (
    ChatClient,
    InsecureWarning,
    LlamaClient,
    OpenAIClient,
    TextStream,
)
from agentstream.llm.messages import (
    ChatMessage,
    ChatRequest,
    ChatResponse,
    Delta,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from agentstream.llm.settings import Limits, Retries, Timeouts
from agentstream.llm.sse import ServerSentEvent
from agentstream.runtime import RunHandle, Runtime, exit_on_sigterm
from agentstream.workflow import Step, StepResult, Workflow, WorkflowRun

if TYPE_CHECKING:
    from agentstream.approval import Approval
    from agentstream.console import Console
    from agentstream.console_status import StatusLine
    from agentstream.conversation import Conversation
    from agentstream.events.sqlite import SqliteStore
    from agentstream.tools import RunContext, Tool, tool
    from agentstream.workflow.context import Context
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
    "ToolTimeout",
    "Usage",
    "Workflow",
    "WorkflowFailed",
    "WorkflowRun",
    "__version__",
    "exit_on_sigterm",
    "tool",
]

_LATER = {
    "Approval": "agentstream.approval",
    "Branch": "agentstream.workflow.shapes",
    "Console": "agentstream.console",
    "Context": "agentstream.workflow.context",
    "Conversation": "agentstream.conversation",
    "Parallel": "agentstream.workflow.shapes",
    "Repeat": "agentstream.workflow.shapes",
    "RunContext": "agentstream.tools",
    "SqliteStore": "agentstream.events.sqlite",
    "StatusLine": "agentstream.console_status",
    "Tool": "agentstream.tools",
    "tool": "agentstream.tools",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # noqa: PLC0415

    value = getattr(importlib.import_module(_LATER[name]), name)
    globals()[name] = value
    return value
