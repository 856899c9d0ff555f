"""The items of an answer: kept whole as they come, handed back whole in their place.  Pure.

A model that reasons wants its reasoning back before a call's result: its items, in
their order, with what is encrypted in them as `output_item.done` had it.  A call's id
is its own only within an answer, so that one which comes again is told apart here.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from agentstream.llm.chunk import text_of
from agentstream.llm.messages import ChatMessage
from agentstream.llm.responses.request import instructions_of, to_items
from agentstream.results import ToolCall
from agentstream.text import is_encodable, replace_surrogates

__all__ = ["DIALECT", "ItemCollector", "Written", "call_id_of", "text_of_item", "write"]

#: What a provider state of this dialect says that it is.
DIALECT = "responses"
#: Characters that are kept of one answer's items.
_MOST = 8_000_000


class ItemCollector:
    """The items of one answer that are done, by their places.

    Attributes:
        dropped: True once they were too much to keep; then none are.
    """

    def __init__(self) -> None:
        self._items: Dict[Any, Dict[str, Any]] = {}
        self._size = 0
        self.dropped = False

    def add(self, place: Any, item: Dict[str, Any], size: int) -> None:
        """Take an item in.

        Args:
            place: what tells it from the answer's other items.
            item: the item, as it came.
            size: characters it takes.
        """
        self._size += size
        self.dropped = self.dropped or self._size > _MOST
        if self.dropped:
            self._items.clear()
        else:
            self._items[place] = item

    def state(self, origin: str, *, stored: bool) -> Optional[Dict[str, Any]]:
        """All of them, as `ChatMessage.provider_state` has it; None if there are none.

        Args:
            origin: the server they came from.
            stored: that server keeps them, too.
        """
        if not self._items:
            return None
        numbered = all(isinstance(place, int) for place in self._items)
        places = sorted(self._items) if numbered else list(self._items)
        items = [_mended(self._items[place]) for place in places]
        return {"dialect": DIALECT, "origin": origin, "stored": stored, "items": items}


def _mended(item: Dict[str, Any]) -> Dict[str, Any]:
    text = json.dumps(item, ensure_ascii=False)
    if text.isascii() or is_encodable(text):
        return item
    mended: Dict[str, Any] = json.loads(replace_surrogates(text))
    return mended


def text_of_item(item: Mapping[str, Any]) -> str:
    """The text of a message item."""
    return "".join(
        part["text"]
        for part in _list(item.get("content"))
        if isinstance(part, dict)
        and part.get("type") == "output_text"
        and isinstance(part.get("text"), str)
    )


def call_id_of(item: Mapping[str, Any]) -> str:
    """What a result names its call by; the item's own id where the server gave no other."""
    return text_of(item.get("call_id")) or text_of(item.get("id"))


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


# --- back -----------------------------------------------------------------------------------


class Written:
    """The messages of a request, written.

    Attributes:
        instructions: what the system says first; None for nothing.
        input: the items.
        with_state: items of earlier answers are among them.
    """

    def __init__(self) -> None:
        self.instructions: Optional[str] = None
        self.input: List[Dict[str, Any]] = []
        self.with_state = False


def write(messages: Sequence[Any], origin: str, *, without_state: bool = False) -> Written:
    """The messages as the server at `origin` takes them.

    Args:
        without_state: hand no earlier answer's items back.

    Raises:
        ConfigError: the API has no words for a part of them.
    """
    written = Written()
    first = instructions_of(messages)
    if first:
        written.instructions = "\n\n".join(first)
    ids = _CallIds()
    for message in messages[len(first) :]:
        items = None
        if isinstance(message, ChatMessage) and not without_state:
            items = _handed_back(message, origin)
        if items is None:
            items = to_items(message)
        else:
            written.with_state = True
        written.input += [ids.told_apart(item) for item in items]
    return written


def _handed_back(message: ChatMessage, origin: str) -> Optional[List[Dict[str, Any]]]:
    """The items that the answer consisted of; None if it has none, or was changed since."""
    state = message.provider_state
    if state is None or state.get("dialect") != DIALECT or state.get("origin") != origin:
        return None
    items: List[Dict[str, Any]] = [item for item in state["items"] if isinstance(item, dict)]
    said = "".join(text_of_item(item) for item in items if item.get("type") == "message")
    calls = [item for item in items if item.get("type") == "function_call"]
    same_calls = [call_id_of(item) for item in calls] == [call.id for call in message.tool_calls]
    if said != (message.content or "") or not same_calls:
        return None
    items, whole = _usable(items, stored=bool(state.get("stored")))
    told = iter(message.tool_calls)
    items = [
        _as_told(item, next(told)) if item.get("type") == "function_call" else item
        for item in items
    ]
    if whole:
        return items or None
    # Whose reasoning is missing goes without its id, which would name what was beside it.
    return [{k: v for k, v in item.items() if k != "id"} for item in items] or None


def _usable(items: List[Dict[str, Any]], *, stored: bool) -> Tuple[List[Dict[str, Any]], bool]:
    """The items that a server can use, and whether all of the reasoning is usable.

    Reasoning of which there is but an id is unknown to a server that stores nothing, and
    reasoning that nothing follows is refused.
    """
    kept = [
        item
        for item in items
        if stored
        or item.get("type") != "reasoning"
        or item.get("encrypted_content")
        or item.get("content")
    ]
    whole = len(kept) == len(items)
    while kept and kept[-1].get("type") == "reasoning":
        kept.pop()
    return kept, whole


def _as_told(item: Dict[str, Any], call: ToolCall) -> Dict[str, Any]:
    """The item of a call; as the message tells it, where that was made readable."""
    told = {"name": call.name, "arguments": call.arguments or "{}", "call_id": call.id}
    said = {name: item.get(name) for name in told}
    said["arguments"] = said["arguments"] or "{}"
    return item if said == told else {**item, **told}


class _CallIds:
    """Tells calls apart whose ids come again in a later answer."""

    def __init__(self) -> None:
        self._times: Dict[str, int] = {}
        self._now: Dict[str, str] = {}

    def told_apart(self, item: Dict[str, Any]) -> Dict[str, Any]:
        """The item; with a call's id of its own if an earlier call has the same."""
        call_id = item.get("call_id")
        if not isinstance(call_id, str):
            return item
        if not str(item.get("type")).endswith("_output"):
            times = self._times[call_id] = self._times.get(call_id, 0) + 1
            self._now[call_id] = call_id if times == 1 else f"{call_id}_{times}"
        now = self._now.get(call_id, call_id)
        return item if now == call_id else {**item, "call_id": now}
