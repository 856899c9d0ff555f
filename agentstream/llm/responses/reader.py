"""What servers send as events of a response -> Deltas.  Pure.

The rules stand on recorded streams of some fifteen servers.  The thread through them:
the type in the data decides, never a position or a sequence number; text counts from its
deltas, and from what repeats it only where none came; an item is told by its
`output_index`, and by its id where it has none.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional, Set, Tuple

from agentstream.llm.chat.tool_calls import ToolCallAssembler
from agentstream.llm.chat.usage import UsageReader
from agentstream.llm.chunk import shown_id, text_of
from agentstream.llm.finish import Ending, ending_of
from agentstream.llm.messages import Delta, ToolCallDelta
from agentstream.llm.responses.items import ItemCollector, call_id_of, text_of_item
from agentstream.text import SurrogateJoiner, is_encodable, strip_controls

__all__ = ["EventReader"]

_new = tuple.__new__

#: Items with which an answer waits for the caller, though it says that it is complete.
_WAITING = (
    "apply_patch_call",
    "computer_call",
    "custom_tool_call",
    "local_shell_call",
    "mcp_approval_request",
    "shell_call",
    "tool_search_call",
)
#: What the status of an ended response says.
_FAILED = ("failed", "cancelled")


class _Words:
    """Text or reasoning, and which items have told theirs by deltas.

    Attributes:
        joiner: joins the halves of characters.
        sizes: by item, the characters that came by deltas.
        begun: there were any.
    """

    def __init__(self) -> None:
        self.joiner = SurrogateJoiner()
        self.sizes: Dict[Any, int] = {}
        self._claimed: Set[Any] = set()  # items that have been told to the end
        self.begun = False

    def add(self, place: Any, text: str) -> str:
        """A delta's words, as they can go out."""
        self.sizes[place] = self.sizes.get(place, 0) + len(text)
        self.begun = True
        if text.isascii() and not self.joiner.held:
            return text
        return self.joiner.join(text)

    def rest(self, place: Any, text: str) -> str:
        """`text`, all the words of an item, if they have not come by deltas; else ""."""
        if not text or self.sizes.get(place):
            self._claimed.add(place)
            return ""
        for other, size in self.sizes.items():  # an item under another id each time
            if size == len(text) and other not in self._claimed:
                self._claimed.add(other)
                return ""
        self._claimed.add(place)
        return self.add(place, text)

    def flush(self) -> str:
        """What was held back, since no more will come."""
        return self.joiner.flush()


class EventReader:
    """Reads the events of one response, in order.

    Args:
        items: collects the items that are done; None for one that nobody asks.

    Attributes:
        ended: the response's end was read.
        failure: the payload that says that there will be no answer; None while there
            is none.
        refusal: what the model said in refusing.
        response_id: "" for none.
        native_finish: the ended response's status, or why it is incomplete.
    """

    def __init__(self, items: Optional[ItemCollector] = None) -> None:
        self._items = ItemCollector() if items is None else items
        self._text, self._thoughts = _Words(), _Words()
        self._at: Any = self  # the item whose text comes; no item's place at first
        self._part: Any = None  # of the reasoning's summary, and its item
        self._told_by = ""  # the kind of deltas that reasoning comes by
        self._tools = ToolCallAssembler()
        self._calls: Dict[Any, int] = {}  # by item: the call's place
        self._ids: Set[str] = set()  # of calls
        self._named: Set[int] = set()  # places of calls whose names have come
        self._written: Set[int] = set()  # and of those whose arguments have begun
        self._usage = UsageReader()
        self._model = ""
        self._last = ""  # the type of the last item
        self._waiting: List[str] = []
        self._done = False  # an item was
        self._incomplete = ""
        self._refused: Set[Any] = set()
        self.refusal = ""
        self.ended = False
        self.failure: Optional[Dict[str, Any]] = None
        self.response_id = ""
        self.native_finish = ""

    def read(self, said: Dict[str, Any], kind: Any, size: int = 0) -> Optional[Delta]:
        """The delta an event holds; None if it adds nothing.

        Args:
            said: the event's data.
            kind: the event's type.
            size: characters of the data.

        Raises:
            ProtocolError: a call that cannot be assembled.
        """
        if kind == "response.output_text.delta":  # nearly every event of nearly all
            text = said.get("delta")
            if (
                text.__class__ is str
                and (text.isascii() or is_encodable(text))
                and said.get("output_index", said.get("item_id")) == self._at
                and not self._text.joiner.held
            ):
                if not text:
                    return None
                self._text.sizes[self._at] += len(text)
                plain: Delta = _new(Delta, (text, "", (), None, None, None, (), None, None))
                return plain
        read = _READ.get(kind) if kind.__class__ is str else None
        return None if read is None else read(self, said, size)

    # --- the kinds of events ------------------------------------------------------------------

    def _read_text(self, said: Dict[str, Any], _: int) -> Optional[Delta]:
        text = _text(said.get("delta"))
        if not text:
            return None
        self._at = _place(said)
        text = self._text.add(self._at, text)
        return Delta(text) if text else None

    def _read_whole_text(self, said: Dict[str, Any], _: int) -> Optional[Delta]:
        text = self._text.rest(_place(said), _text(said.get("text")))
        return Delta(text) if text else None

    def _read_thought(self, said: Dict[str, Any], _: int) -> Optional[Delta]:
        words = _text(said.get("delta"))
        kind = said.get("type")
        self._told_by = self._told_by or str(kind)
        if not words or kind != self._told_by:
            return None  # a summary of what is told in full, or the other way round
        part = _place(said), said.get("summary_index")
        if part[1] is not None and part != self._part:
            words = ("\n\n" if self._part else "") + words
            self._part = part
        words = self._thoughts.add(_place(said), words)
        return Delta("", words) if words else None

    def _read_refusal(self, said: Dict[str, Any], _: int) -> Optional[Delta]:
        self._refused.add(_place(said))
        self.refusal += text_of(said.get("delta"))
        return None

    def _read_item(self, said: Dict[str, Any], _: int) -> Optional[Delta]:
        item = said.get("item")
        if not isinstance(item, dict):
            return None
        self._last = text_of(item.get("type"))
        if self._last != "function_call":
            return None
        return _calls(self._call(_place(said, item), item, _text(item.get("arguments"))))

    def _read_arguments(self, said: Dict[str, Any], _: int) -> Optional[Delta]:
        text = _text(said.get("delta"))
        if not text:
            return None
        place = self._calls.setdefault(_place(said), len(self._calls))
        self._written.add(place)
        return _calls(self._tools.read([{"index": place, "function": {"arguments": text}}]))

    def _read_whole_arguments(self, said: Dict[str, Any], _: int) -> Optional[Delta]:
        place = _place(said)
        if place not in self._calls:
            return None  # its item tells
        return _calls(self._call(place, {}, _text(said.get("arguments"))))

    def _read_done(self, said: Dict[str, Any], size: int) -> Optional[Delta]:
        item = said.get("item")
        if not isinstance(item, dict):
            return None
        place = _place(said, item)
        self._done = True
        self._items.add(place, item, size)
        return self._read_whole_item(place, item)

    def _read_life(self, said: Dict[str, Any], _: int) -> Optional[Delta]:
        response = said.get("response")
        if not isinstance(response, dict):
            return None
        self.response_id = shown_id(response.get("id")) or self.response_id
        name = response.get("model")
        if name == self._model or not isinstance(name, str) or not name:
            return None
        self._model = name
        return Delta(model=text_of(name))

    def _read_end(self, said: Dict[str, Any], size: int) -> Optional[Delta]:
        response = said.get("response")
        response = response if isinstance(response, dict) else {}
        delta = self._read_life(said, size) or Delta()
        usage = self._usage.read(response, None)
        status = text_of(said.get("type")).rpartition(".")[2] or text_of(response.get("status"))
        self.ended = True
        self.native_finish = shown_id(status)
        if status in _FAILED or response.get("status") in _FAILED:
            error = response.get("error") or f"the response was {response.get('status') or status}"
            self.failure = {"error": error, "id": response.get("id")}
            return delta._replace(usage=usage)
        found = [delta, *self._read_output(response.get("output"))]
        if status == "incomplete" or response.get("status") == "incomplete":
            self._incomplete = self.native_finish = _reason(response.get("incomplete_details"))
        return _sum(found)._replace(usage=usage, finish_reason=self._finish())

    # --- items --------------------------------------------------------------------------------

    def _read_output(self, output: Any) -> List[Delta]:
        """What only the ended response tells: of all that it repeats, what never came."""
        parts = output if isinstance(output, list) else []
        items = [item for item in parts if isinstance(item, dict)]
        found: List[Optional[Delta]] = []
        told = self._text.begun, self._thoughts.begun
        more_calls = sum(item.get("type") == "function_call" for item in items) > len(self._calls)
        for index, item in enumerate(items):
            kind = item.get("type")
            if not self._done:
                self._items.add(index, item, len(str(item)))
            if kind == "function_call":
                if more_calls and call_id_of(item) not in self._ids:
                    if self._done:
                        self._items.add(len(items) + index, item, len(str(item)))
                    found.append(self._read_whole_item(("end", index), item))
            elif not told[kind == "reasoning"]:
                found.append(self._read_whole_item(("end", index), item))
        return [delta for delta in found if delta is not None]

    def _read_whole_item(self, place: Any, item: Dict[str, Any]) -> Optional[Delta]:
        """What a whole item tells that its events did not."""
        kind = self._last = text_of(item.get("type"))
        if kind == "message":
            text = self._text.rest(place, text_of_item(item))
            self._take_refusal(place, item)
            return Delta(text) if text else None
        if kind == "function_call":
            return _calls(self._call(place, item, _text(item.get("arguments"))))
        if kind == "reasoning":
            words = "" if self._told_by else self._thoughts.rest(place, _thoughts_of(item))
            return Delta("", words) if words else None
        if kind in _WAITING:
            self._waiting.append(kind)
        return None

    def _take_refusal(self, place: Any, item: Mapping[str, Any]) -> None:
        if place in self._refused or (self.refusal and not isinstance(place, int)):
            return
        parts = item.get("content")
        for part in parts if isinstance(parts, list) else []:
            if isinstance(part, dict) and part.get("type") == "refusal":
                self._refused.add(place)
                self.refusal += text_of(part.get("refusal"))

    def _call(
        self, place: Any, item: Mapping[str, Any], arguments: str
    ) -> Tuple[ToolCallDelta, ...]:
        """The pieces that an item's words on a call add to it."""
        call_id = call_id_of(item)
        index = self._calls.get(place)
        if index is None:
            if call_id and call_id in self._ids:
                return ()  # under another place each time
            index = self._calls[place] = len(self._calls)
        piece: Dict[str, Any] = {"index": index, "function": {}}
        if index not in self._named and item.get("name"):
            self._named.add(index)
            self._ids.add(call_id)
            piece["id"] = call_id
            piece["function"]["name"] = item["name"]
        if arguments and index not in self._written:
            self._written.add(index)
            piece["function"]["arguments"] = arguments
        return self._tools.read([piece])

    # --- the end ------------------------------------------------------------------------------

    def _finish(self) -> str:
        """Why the answer ended, in chat completions' words; the native one where they have none."""
        if self._incomplete:
            return self._cut_by
        waits = self._last == "custom_tool_call"
        return "tool_calls" if self._calls or waits else "stop"

    @property
    def _cut_by(self) -> str:
        word = self._incomplete
        if ending_of(word) is not Ending.CUT:
            return word
        return (
            "length"
            if any(part in word for part in ("max", "limit", "length"))
            else ("content_filter")
        )

    @property
    def cut(self) -> bool:
        """True if the response says that it is incomplete."""
        return bool(self._incomplete)

    def oddities(self) -> List[str]:
        """What was odd about the answer and yet no error: texts for its warnings."""
        found = [f"the model refused: {self.refusal}"] if self.refusal else []
        if self._incomplete:
            found.append(f"the answer was cut: incomplete, {self._incomplete}")
            if ending_of(self._incomplete) is not Ending.CUT:
                found[-1] += ", a reason that is not known"
        if self._waiting and self._last in _WAITING:
            found.append(f"the answer waits for what nobody here does: {self._waiting[-1]}")
        return found

    def flush(self) -> Optional[Delta]:
        """What only the stream's end can tell: halves of characters, calls that were cut."""
        text, thoughts = self._text.flush(), self._thoughts.flush()
        calls = self._tools.finish(self.cut)
        return Delta(text, thoughts, calls) if text or thoughts or calls else None

    def read_whole(self, response: Dict[str, Any]) -> Optional[Delta]:
        """The delta of an answer that was not streamed, the response itself; None if it is none."""
        if not isinstance(response.get("output"), list) and response.get("status") not in _FAILED:
            return None
        return self._read_end({"response": response}, 0)


_READ: Dict[str, Callable[[EventReader, Dict[str, Any], int], Optional[Delta]]] = {
    "response.output_text.delta": EventReader._read_text,
    "response.output_text.done": EventReader._read_whole_text,
    "response.reasoning_text.delta": EventReader._read_thought,
    "response.reasoning_summary_text.delta": EventReader._read_thought,
    "response.refusal.delta": EventReader._read_refusal,
    "response.output_item.added": EventReader._read_item,
    "response.output_item.done": EventReader._read_done,
    "response.function_call_arguments.delta": EventReader._read_arguments,
    "response.function_call_arguments.done": EventReader._read_whole_arguments,
    "response.created": EventReader._read_life,
    "response.queued": EventReader._read_life,
    "response.in_progress": EventReader._read_life,
    "response.completed": EventReader._read_end,
    "response.incomplete": EventReader._read_end,
    "response.failed": EventReader._read_end,
    "response.cancelled": EventReader._read_end,
}


def _place(said: Mapping[str, Any], item: Optional[Mapping[str, Any]] = None) -> Any:
    """What tells an event's item from others: its index, else its id."""
    for place in (said.get("output_index"), said.get("item_id")):
        if isinstance(place, (int, str)):
            return place
    return "" if item is None else text_of(item.get("id"))


def _text(value: Any) -> str:
    """`value` if it is a text, surrogates and all; else ""."""
    return value if isinstance(value, str) else ""


def _calls(pieces: Tuple[ToolCallDelta, ...]) -> Optional[Delta]:
    told = tuple(piece for piece in pieces if any(piece[1:]))
    return Delta(tool_calls=told) if told else None


def _reason(details: Any) -> str:
    """Why a response is incomplete, as it can be shown."""
    reason = text_of(details.get("reason")) if isinstance(details, dict) else ""
    return strip_controls(reason)[:200] or "incomplete"


def _thoughts_of(item: Mapping[str, Any]) -> str:
    """The reasoning of an item: in full, else its summary."""
    for name, between in (("content", ""), ("summary", "\n\n")):
        parts = item.get(name)
        words = [
            part["text"]
            for part in (parts if isinstance(parts, list) else [])
            if isinstance(part, dict) and isinstance(part.get("text"), str)
        ]
        if any(words):
            return between.join(words)
    return ""


def _sum(deltas: List[Delta]) -> Delta:
    """Deltas of one event as one."""
    return Delta(
        "".join(delta.content for delta in deltas),
        "".join(delta.reasoning for delta in deltas),
        tuple(piece for delta in deltas for piece in delta.tool_calls),
        model=next((delta.model for delta in deltas if delta.model), None),
    )
