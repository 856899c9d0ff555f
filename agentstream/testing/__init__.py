"""A model server made of scripts, for our tests and for yours.

`ScriptedServer` answers over real loopback sockets what a test has queued:
whole answers, cuts, resets, pauses, half a chunk.  `TCPProxy` stands before a server of
any kind and cuts or holds what passes.  Tests to inherit tell whether a store of your own
keeps its promises: `StoreConformance`, `CheckpointConformance`, `SharedStoreConformance`.
Standard library only, and pytest is not needed; ready-made fixtures are in
`agentstream.testing.pytest_plugin`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentstream.testing.actions import (
    Action,
    Callback,
    Cut,
    Drip,
    Gate,
    Hang,
    KeepOpen,
    Pause,
    Raw,
    Reset,
    Stage,
)
from agentstream.testing.checkpoints import CheckpointConformance
from agentstream.testing.client import ScriptedClient
from agentstream.testing.link import ScriptEnded
from agentstream.testing.pieces import (
    messages_chunks,
    ollama_chunks,
    recorded,
    responses_chunks,
    sse,
    text_chunks,
    tool_call_chunks,
)
from agentstream.testing.proxy import TCPProxy
from agentstream.testing.queues import QueueConformance
from agentstream.testing.recorder import NotRecorded, Recorder
from agentstream.testing.replies import Reply
from agentstream.testing.request import Headers, Request
from agentstream.testing.server import ScriptedServer
from agentstream.testing.shared import SharedStoreConformance
from agentstream.testing.stores import StoreConformance

if TYPE_CHECKING:
    from agentstream.testing.mcp import ScriptedMCP

__all__ = [
    "Action",
    "Callback",
    "CheckpointConformance",
    "Cut",
    "Drip",
    "Gate",
    "Hang",
    "Headers",
    "KeepOpen",
    "NotRecorded",
    "Pause",
    "QueueConformance",
    "Raw",
    "Recorder",
    "Reply",
    "Request",
    "Reset",
    "ScriptEnded",
    "ScriptedClient",
    "ScriptedMCP",
    "ScriptedServer",
    "SharedStoreConformance",
    "Stage",
    "StoreConformance",
    "TCPProxy",
    "messages_chunks",
    "ollama_chunks",
    "recorded",
    "responses_chunks",
    "sse",
    "text_chunks",
    "tool_call_chunks",
]


def __getattr__(name: str) -> Any:
    if name != "ScriptedMCP":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from agentstream.testing.mcp import ScriptedMCP  # noqa: PLC0415 - it brings agentstream.mcp

    return ScriptedMCP
