"""What servers send as chunks, in all their dialects -> Deltas.  Pure.

The rules stand on recorded streams of some thirty servers.  The thread through
them: null, "" and absent mean the same; a key decides, never a position; what
is sent twice counts once.  Errors in a chunk are failures.py's.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List, Optional, Tuple

from agentstream.errors import ProtocolError
from agentstream.llm.messages import Delta, ToolCallDelta
from agentstream.results import Usage

__all__ = ["ChunkReader", "parse_chunk"]

#: json.loads without what it does around the parsing, which costs as much again.
_scan: Callable[[str, int], Tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_new = tuple.__new__


def parse_chunk(data: str) -> Any:
    """The JSON of one event.

    Raises:
        ProtocolError: it is not JSON, or nested too deeply to read; without the text.
    """
    try:
        value, end = _scan(data, 0)
        if end == len(data):
            return value
    except (StopIteration, ValueError, RecursionError):
        pass  # white space around it perhaps; json.loads sees to that, and says what is wrong
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else "not valid JSON"
        raise ProtocolError(f"an event's data is {reason}", phase="stream") from None


class ChunkReader:
    """Reads the chunks of one stream, in order; only choice 0 counts."""

    def __init__(self) -> None:
        self._model = ""
        self._tools = _ToolSlots()
        self._content = _Utf16()
        self._reasoning = _Utf16()
        self._usage: Optional[Usage] = None
        self._usage_rank = 0
        #: What the model said in refusing, where the server sends that apart.
        self.refusal = ""

    def read(self, chunk: Dict[str, Any]) -> Optional[Delta]:
        """The delta a chunk holds; None if it adds nothing.

        Raises:
            ProtocolError: a tool call that cannot be assembled.
        """
        choices = chunk.get("choices")
        if choices.__class__ is list and len(choices) == 1:  # nearly every chunk of nearly all
            choice = choices[0]
            if choice.__class__ is dict and not choice.get("finish_reason"):
                delta = choice.get("delta")
                if delta.__class__ is dict and len(delta) == 1:
                    content = delta.get("content")
                    if (
                        content.__class__ is str
                        and (content.isascii() or _is_whole(content))
                        and not choice.get("index")
                        and chunk.get("model") == self._model
                        and not self._content.held
                        and not chunk.get("usage")
                        and not chunk.get("x_groq")
                        and not choice.get("usage")
                    ):
                        if not content:
                            return None
                        plain: Delta = _new(Delta, (content, "", (), None, None, None, (), None))
                        return plain
        return self._read_any(chunk)

    def _read_any(self, chunk: Dict[str, Any]) -> Optional[Delta]:
        choice = _first_choice(chunk)
        usage = None
        if chunk.get("usage") or chunk.get("x_groq") or (choice and choice.get("usage")):
            usage = self._read_usage(chunk, choice)
        model = None
        name = chunk.get("model")
        if name != self._model and isinstance(name, str) and name:
            self._model = model = name
        if choice is None:
            return Delta(usage=usage, model=model) if usage or model else None
        finish = choice.get("finish_reason")
        if not isinstance(finish, str) or not finish:
            finish = None
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            delta = {}
        content = delta.get("content")
        reasoning = ""
        if content.__class__ is not str or len(delta) > 1:
            if content.__class__ is not str:
                content, reasoning = _from_parts(content)
            reasoning = _reasoning(delta) or reasoning
            if delta.get("refusal"):
                self.refusal += _text(delta["refusal"])
        if not content.isascii() or self._content.held:
            content = self._content.join(content)
        if reasoning or self._reasoning.held:
            reasoning = self._reasoning.join(reasoning)
        calls = delta.get("tool_calls")
        pieces = self._tools.read(calls) if calls else ()
        if not (reasoning or pieces or finish or usage or model):
            return Delta(content) if content else None
        return Delta(content, reasoning, pieces, finish, usage, model)

    def flush(self) -> Optional[Delta]:
        """What was held back for a second half that never came: U+FFFD each."""
        content, reasoning = self._content.flush(), self._reasoning.flush()
        return Delta(content, reasoning) if content or reasoning else None

    def read_whole(self, body: Dict[str, Any]) -> Optional[Delta]:
        """The delta of an unstreamed answer (`choices[0].message`); None if it is none."""
        choice = _first_choice(body)
        message = choice.get("message") if choice else None
        if choice is None or not isinstance(message, dict):
            return None
        streamed = {**choice, "delta": message, "index": 0}
        streamed.setdefault("finish_reason", "stop")
        return self.read({**body, "choices": [streamed]})

    def _read_usage(
        self, chunk: Dict[str, Any], choice: Optional[Dict[str, Any]]
    ) -> Optional[Usage]:
        """The stream's usage as it stands, if this chunk says something better than before.

        The last one counts, but counts win over a placeholder of zeros, and
        the top level over the places where some servers repeat it.
        """
        groq = chunk.get("x_groq")
        places = (
            chunk.get("usage"),
            groq.get("usage") if isinstance(groq, dict) else None,
            choice.get("usage") if choice else None,
        )
        for rank, place in zip((2, 1, 1), places):
            counts = _counts(place)
            if counts is None:
                continue
            weight = 2 * rank if any(counts) else rank - 1
            if weight >= self._usage_rank:
                self._usage_rank = weight
                self._usage = Usage(*counts)
                return self._usage
            return None
        return None


def _counts(place: Any) -> Optional[Tuple[Optional[int], Optional[int], Optional[int]]]:
    if not isinstance(place, dict):
        return None
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    prompt, completion, total = (_count(place.get(name)) for name in names)
    return None if prompt is completion is total is None else (prompt, completion, total)


def _count(value: Any) -> Optional[int]:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _first_choice(chunk: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    choices = chunk.get("choices")
    if not isinstance(choices, list):
        return None
    for position, choice in enumerate(choices):
        if isinstance(choice, dict):
            index = choice.get("index")
            if index == 0 or (index is None and position == 0):
                return choice
    return None


def _from_parts(content: Any) -> Tuple[str, str]:
    """Text and reasoning of a content that is a list of parts (Mistral); anything else is ""."""
    text: List[str] = []
    thinking: List[str] = []
    for part in content if isinstance(content, list) else []:
        if isinstance(part, str):
            text.append(part)
        elif isinstance(part, dict):
            if isinstance(part.get("text"), str):
                text.append(part["text"])
            inner = part.get("thinking")
            if isinstance(inner, str):
                thinking.append(inner)
            elif isinstance(inner, list):
                thinking.append(_from_parts(inner)[0])
    return "".join(text), "".join(thinking)


def _reasoning(delta: Dict[str, Any]) -> str:
    """The reasoning, from the first place that has it: the others repeat it."""
    for key in ("reasoning_content", "reasoning"):
        value = delta.get(key)
        if isinstance(value, str) and value:
            return value
    details = delta.get("reasoning_details")
    if isinstance(details, list):
        texts = (d.get("text") for d in details if isinstance(d, dict))
        return "".join(text for text in texts if isinstance(text, str))
    return ""


class _Slot:
    """One tool call being assembled."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.arguments: List[str] = []
        self.utf16 = _Utf16()


class _ToolSlots:
    """Which call a piece belongs to: by index, by id, else the one before."""

    def __init__(self) -> None:
        self._slots: List[_Slot] = []
        self._by_index: Dict[int, _Slot] = {}
        self._by_id: Dict[str, _Slot] = {}

    def read(self, calls: Any) -> Tuple[ToolCallDelta, ...]:
        if isinstance(calls, dict):
            calls = [calls]
        if not isinstance(calls, list):
            raise ProtocolError("tool_calls is not a list", phase="stream")
        return tuple(self._piece(call) for call in calls if isinstance(call, dict))

    def _piece(self, call: Dict[str, Any]) -> ToolCallDelta:
        function = call.get("function")
        if not isinstance(function, dict):
            function = {}
        call_id = _text(call.get("id"))
        name = _text(function.get("name"))
        arguments = _arguments(function.get("arguments"))
        slot = self._find(call.get("index"), call_id, name, arguments)
        new_id = "" if slot.id else call_id
        slot.id = slot.id or call_id
        if call_id:
            self._by_id[call_id] = slot
        new_name = "" if slot.name else name
        slot.name = slot.name or name
        if arguments and (not arguments.isascii() or slot.utf16.held):
            arguments = slot.utf16.join(arguments)
        if arguments:
            slot.arguments.append(arguments)
        extra = call.get("extra_content")
        if not isinstance(extra, dict):
            extra = None
        return ToolCallDelta(slot.index, new_id, new_name, arguments, extra)

    def _find(self, index: Any, call_id: str, name: str, arguments: str) -> _Slot:
        if isinstance(index, int) and not isinstance(index, bool):
            slot = self._by_index.get(index)
            if slot is None or self._is_next(slot, call_id, arguments):
                slot = self._by_index[index] = self._new()
            return slot
        if call_id:
            return self._by_id.get(call_id) or self._new()
        if name or not self._slots:
            if not name:
                raise ProtocolError(
                    "a piece of a tool call has no index, id or name, and none came before it",
                    phase="stream",
                )
            return self._new()
        return self._slots[-1]

    @staticmethod
    def _is_next(slot: _Slot, call_id: str, arguments: str) -> bool:
        """True if a piece under a used index begins another call.

        A new id says so.  Without an id, arguments that were whole already and
        begin afresh do: gateways to Gemini put every call under index 0.
        """
        if call_id:
            return bool(slot.id) and slot.id != call_id
        if not slot.arguments or not arguments.lstrip().startswith("{"):
            return False
        try:
            json.loads("".join(slot.arguments))
        except (ValueError, RecursionError):
            return False
        return True

    def _new(self) -> _Slot:
        slot = _Slot(len(self._slots))
        self._slots.append(slot)
        return slot


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _arguments(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        raise ProtocolError("tool arguments that JSON cannot hold", phase="stream") from None


def _is_whole(text: str) -> bool:
    """True if no surrogate stands alone in a text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Utf16:
    """Joins surrogate pairs that a server cut over two deltas.

    A high surrogate at a text's end waits for the next text; one that finds no
    partner becomes U+FFFD, so that no lone surrogate reaches a log or a terminal.
    """

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = ""

    def join(self, text: str) -> str:
        if not text and self.held:
            return ""  # an empty delta decides nothing
        text = self.held + text
        self.held = ""
        try:
            text.encode()
            return text
        except UnicodeEncodeError:
            pass
        if "\ud800" <= text[-1] <= "\udbff":
            self.held = text[-1]
            text = text[:-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def flush(self) -> str:
        lost, self.held = self.held, ""
        return "\ufffd" if lost else ""
