"""A conversation in chat completions' form -> the turns that Messages wants.  Pure.

The system's words stand apart.  The results of a turn's calls come first in one
user message.  An answer goes back as its blocks were, to whom it came from.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Union

from agentstream.errors import ConfigError
from agentstream.llm.anthropic.blocks import blocks_of, sent_back
from agentstream.llm.anthropic.parts import content_blocks
from agentstream.llm.messages import ChatMessage
from agentstream.results import ToolCall

__all__ = ["DIALECT", "Turns"]

#: How an answer's provider state says whose it is.
DIALECT = "messages"

_NOT_OF_AN_ID = re.compile("[^a-zA-Z0-9_-]")


class Turns:
    """The turns of a conversation.

    Args:
        messages: `ChatMessage`s, or dicts in OpenAI's form; blocks of Messages' own
            kinds may stand in their contents.
        origin: the server they go to.

    Attributes:
        system: the blocks of the system's words.
        messages: the turns.

    Raises:
        ConfigError: a part of a message cannot be sent.
    """

    def __init__(
        self, messages: Sequence[Union[ChatMessage, Mapping[str, Any]]], origin: str
    ) -> None:
        self.system: List[Dict[str, Any]] = []
        self.messages: List[Dict[str, Any]] = []
        self._origin = origin
        self._ids: Dict[str, str] = {}  # of the latest calls, as they are sent
        self._used: Set[str] = set()
        for message in messages:
            self._add(message if isinstance(message, ChatMessage) else _read(message))

    def _add(self, message: ChatMessage) -> None:
        if message.role in ("system", "developer"):
            self.system += _said(content_blocks(message.content))
        elif message.role == "assistant":
            self._say("assistant", self._answer(message))
        elif message.role == "tool":
            self._add_result(message)
        else:
            blocks = _said(content_blocks(message.content))
            if not blocks:
                raise ConfigError("a message of the user's is blank: Messages refuses such a one")
            self._say("user", blocks)

    def _say(self, role: str, blocks: List[Dict[str, Any]]) -> None:
        """Add blocks to the turn of `role`, a new one if the last one is the other's."""
        if not blocks:
            return
        if self.messages and self.messages[-1]["role"] == role:
            self.messages[-1]["content"] += blocks
        else:
            self.messages.append({"role": role, "content": blocks})

    def _add_result(self, message: ChatMessage) -> None:
        call_id = message.tool_call_id or ""
        content: Any = message.content
        if not isinstance(content, str):
            content = _said(content_blocks(content))
        result = {
            "type": "tool_result",
            "tool_use_id": self._ids.get(call_id) or _clean(call_id),
            "content": content,
        }
        last = self.messages[-1] if self.messages else None
        if last is None or last["role"] != "user":
            self._say("user", [result])
            return
        results = [block["type"] == "tool_result" for block in last["content"]]
        place = results.index(False) if False in results else len(results)
        last["content"].insert(place, result)

    def _answer(self, message: ChatMessage) -> List[Dict[str, Any]]:
        content = message.content
        calls = {call.id: call for call in message.tool_calls}
        if isinstance(content, list):
            blocks = _said(content_blocks(content)) + blocks_of("", calls)
        else:
            state = message.provider_state
            kept: Optional[List[Dict[str, Any]]] = None
            if state and (state.get("dialect"), state.get("origin")) == (DIALECT, self._origin):
                kept = sent_back(state["blocks"], content or "", calls)
            blocks = blocks_of(content or "", calls) if kept is None else kept
        self._ids = {call_id: self._unique(call_id) for call_id in calls}
        for block in blocks:
            if block.get("type") == "tool_use":
                block["id"] = self._ids.get(block["id"], block["id"])
        return blocks

    def _unique(self, call_id: str) -> str:
        """The id under which a call is sent: some servers give one twice in a conversation."""
        wanted = found = _clean(call_id)
        number = 1
        while found in self._used:
            number += 1
            found = f"{wanted}_{number}"
        self._used.add(found)
        return found


def _said(blocks: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """The blocks without those of blank text, which are refused."""
    return [b for b in blocks if b.get("type") != "text" or str(b.get("text", "")).strip()]


def _clean(call_id: str) -> str:
    return _NOT_OF_AN_ID.sub("_", call_id) or "call"


def _read(message: Mapping[str, Any]) -> ChatMessage:
    """A message in OpenAI's form as ours."""
    role = message["role"]
    calls = [_call(call) for call in message.get("tool_calls") or ()]
    return ChatMessage(
        "tool" if role == "function" else role,
        message.get("content"),
        tuple(calls),
        message.get("tool_call_id") or message.get("name"),
        provider_state=message.get("provider_state"),
    )


def _call(call: Mapping[str, Any]) -> ToolCall:
    function = call.get("function") or {}
    return ToolCall(call.get("id", ""), function.get("name", ""), function.get("arguments", ""))
