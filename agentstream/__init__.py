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

from agentstream._version import __version__ as __version__

if TYPE_CHECKING:
    from agentstream.agent.agent import (
        Agent as Agent,
        AgentOutput as AgentOutput,
        AgentStream as AgentStream,
        ToolLimits as ToolLimits,
    )
    from agentstream.agent.approval import Approval as Approval
    from agentstream.agent.budget import Budget as Budget
    from agentstream.agent.conversation import Conversation as Conversation
    from agentstream.agent.conversations import (
        Conversations as Conversations,
        ConversationStore as ConversationStore,
    )
    from agentstream.cancel import CancelToken as CancelToken
    from agentstream.console.console import Console as Console
    from agentstream.console.status import StatusLine as StatusLine
    from agentstream.errors import (
        AgentStreamError as AgentStreamError,
        AuthError as AuthError,
        BadRequest as BadRequest,
        Busy as Busy,
        Cancelled as Cancelled,
        Closed as Closed,
        ConfigError as ConfigError,
        ConnectError as ConnectError,
        ConnectTimeout as ConnectTimeout,
        DeadlineExceeded as DeadlineExceeded,
        FirstTokenTimeout as FirstTokenTimeout,
        LimitExceeded as LimitExceeded,
        LogError as LogError,
        NotDone as NotDone,
        OffsetGone as OffsetGone,
        OutputInvalid as OutputInvalid,
        ProtocolError as ProtocolError,
        ProviderStreamError as ProviderStreamError,
        RateLimited as RateLimited,
        ServerError as ServerError,
        StallTimeout as StallTimeout,
        StatusError as StatusError,
        StreamError as StreamError,
        StreamTruncated as StreamTruncated,
        Suspended as Suspended,
        ToolError as ToolError,
        ToolTimeout as ToolTimeout,
        WorkflowFailed as WorkflowFailed,
    )
    from agentstream.events.memory import MemoryStore as MemoryStore
    from agentstream.events.model import Event as Event, EventType as EventType
    from agentstream.events.redis import RedisStore as RedisStore
    from agentstream.events.sqlite import SqliteStore as SqliteStore
    from agentstream.events.store import (
        EventStore as EventStore,
        RunState as RunState,
        StopAnswer as StopAnswer,
    )
    from agentstream.events.stream import EventStream as EventStream, Subscription as Subscription
    from agentstream.llm.anthropic.client import AnthropicClient as AnthropicClient
    from agentstream.llm.clients import (
        ChatClient as ChatClient,
        InsecureWarning as InsecureWarning,
        LlamaClient as LlamaClient,
        OpenAIClient as OpenAIClient,
        TextStream as TextStream,
    )
    from agentstream.llm.fallback import FallbackClient as FallbackClient
    from agentstream.llm.messages import (
        ChatMessage as ChatMessage,
        ChatRequest as ChatRequest,
        Delta as Delta,
        ToolCallDelta as ToolCallDelta,
    )
    from agentstream.llm.ollama.client import OllamaClient as OllamaClient
    from agentstream.llm.prices import Prices as Prices
    from agentstream.llm.rate_limit.limit import RateLimit as RateLimit
    from agentstream.llm.settings import Limits as Limits, Retries as Retries, Timeouts as Timeouts
    from agentstream.llm.sse import ServerSentEvent as ServerSentEvent
    from agentstream.results import (
        ChatResponse as ChatResponse,
        PendingCall as PendingCall,
        PendingSignal as PendingSignal,
        StepResult as StepResult,
        ToolCall as ToolCall,
        Usage as Usage,
        WorkflowRun as WorkflowRun,
    )
    from agentstream.runtime.runtime import (
        RunHandle as RunHandle,
        Runtime as Runtime,
        exit_on_sigterm as exit_on_sigterm,
    )
    from agentstream.schema.output import Output as Output
    from agentstream.tools import RunContext as RunContext, Tool as Tool
    from agentstream.tools._tool import tool as tool
    from agentstream.workflow import Step as Step, Workflow as Workflow
    from agentstream.workflow.checkpoints import Checkpoints as Checkpoints
    from agentstream.workflow.context import Context as Context
    from agentstream.workflow.shapes import (
        Branch as Branch,
        Map as Map,
        Parallel as Parallel,
        Repeat as Repeat,
    )
    from agentstream.workflow.waiting import Wait as Wait

#: Where each public name lives: what type checkers read above, for those who run it.
_HOMES = {
    "agentstream.agent.agent": ("Agent", "AgentOutput", "AgentStream", "ToolLimits"),
    "agentstream.agent.approval": ("Approval",),
    "agentstream.agent.budget": ("Budget",),
    "agentstream.agent.conversation": ("Conversation",),
    "agentstream.agent.conversations": ("ConversationStore", "Conversations"),
    "agentstream.cancel": ("CancelToken",),
    "agentstream.console.console": ("Console",),
    "agentstream.console.status": ("StatusLine",),
    "agentstream.errors": (
        "AgentStreamError",
        "AuthError",
        "BadRequest",
        "Busy",
        "Cancelled",
        "Closed",
        "ConfigError",
        "ConnectError",
        "ConnectTimeout",
        "DeadlineExceeded",
        "FirstTokenTimeout",
        "LimitExceeded",
        "LogError",
        "NotDone",
        "OffsetGone",
        "OutputInvalid",
        "ProtocolError",
        "ProviderStreamError",
        "RateLimited",
        "ServerError",
        "StallTimeout",
        "StatusError",
        "StreamError",
        "StreamTruncated",
        "Suspended",
        "ToolError",
        "ToolTimeout",
        "WorkflowFailed",
    ),
    "agentstream.events.model": ("Event", "EventType"),
    "agentstream.events.redis": ("RedisStore",),
    "agentstream.events.sqlite": ("SqliteStore",),
    "agentstream.events.memory": ("MemoryStore",),
    "agentstream.events.store": ("EventStore", "RunState", "StopAnswer"),
    "agentstream.events.stream": ("EventStream", "Subscription"),
    "agentstream.llm.anthropic.client": ("AnthropicClient",),
    "agentstream.llm.clients": (
        "ChatClient",
        "InsecureWarning",
        "LlamaClient",
        "OpenAIClient",
        "TextStream",
    ),
    "agentstream.llm.fallback": ("FallbackClient",),
    "agentstream.llm.messages": ("ChatMessage", "ChatRequest", "Delta", "ToolCallDelta"),
    "agentstream.llm.ollama.client": ("OllamaClient",),
    "agentstream.llm.prices": ("Prices",),
    "agentstream.llm.rate_limit.limit": ("RateLimit",),
    "agentstream.llm.settings": ("Limits", "Retries", "Timeouts"),
    "agentstream.llm.sse": ("ServerSentEvent",),
    "agentstream.results": (
        "ChatResponse",
        "PendingCall",
        "PendingSignal",
        "StepResult",
        "ToolCall",
        "Usage",
        "WorkflowRun",
    ),
    "agentstream.schema.output": ("Output",),
    "agentstream.runtime.runtime": ("RunHandle", "Runtime", "exit_on_sigterm"),
    "agentstream.tools": ("RunContext", "Tool"),
    "agentstream.tools._tool": ("tool",),
    "agentstream.workflow": ("Step", "Workflow"),
    "agentstream.workflow.checkpoints": ("Checkpoints",),
    "agentstream.workflow.context": ("Context",),  # RunContext, by its older name
    "agentstream.workflow.shapes": ("Branch", "Map", "Parallel", "Repeat"),
    "agentstream.workflow.waiting": ("Wait",),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted([*_MODULES, "__version__"])  # noqa: PLE0605 - each name is listed once


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
