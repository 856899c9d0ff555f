"""What Ollama writes, an object a line -> Deltas.  Pure.

The format is that of POST /api/chat with `stream`: `message` holds pieces of `content`
and `thinking`, and whole `tool_calls` whose arguments are objects; the line that says
`done` brings the reason and the counts.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional, Tuple

from agentstream.errors import ProtocolError
from agentstream.llm.finish import Ending, ending_of
from agentstream.llm.messages import Delta, ToolCallDelta
from agentstream.results import Usage
from agentstream.text import SurrogateJoiner, is_encodable, replace_surrogates, strip_controls

__all__ = ["LineReader"]

_new = tuple.__new__

#: Reasons for which the server ends an answer that it never began.
_NO_ANSWER = ("load", "unload")


class LineReader:
    """Reads the lines of one answer, in order.

    Attributes:
        done: the line that ends the answer was read.
        thinking: the pieces of the answer's thinking.
        response_id: "": there is none.
    """

    response_id = ""

    def __init__(self) -> None:
        self.done = False
        self.thinking: List[str] = []
        self._model = ""
        self._calls: List[str] = []  # their arguments
        self._content = SurrogateJoiner()
        self._reasoning = SurrogateJoiner()
        self._reason = ""

    def read(self, line: Dict[str, Any]) -> Optional[Delta]:
        """The delta of a line; None if it adds nothing.

        Raises:
            ProtocolError: a tool call that cannot be read.
        """
        message = line.get("message")
        if message.__class__ is dict and not line.get("done"):  # nearly every line
            content = message.get("content")
            if (
                content.__class__ is str
                and content
                and (content.isascii() or is_encodable(content))
                and not self._content.held
                and "thinking" not in message
                and "tool_calls" not in message
                and line.get("model") == self._model
            ):
                plain: Delta = _new(Delta, (content, "", (), None, None, None, (), None, None))
                return plain
        return self._read_any(line, message if isinstance(message, dict) else {})

    def _read_any(self, line: Dict[str, Any], message: Dict[str, Any]) -> Optional[Delta]:
        content = self._content.join(_text(message.get("content")))
        thinking = self._reasoning.join(_text(message.get("thinking")))
        if thinking:
            self.thinking.append(thinking)
        calls = self._read_calls(message.get("tool_calls"))
        model = None
        name = line.get("model")
        if isinstance(name, str) and name and name != self._model:
            self._model = name
            model = replace_surrogates(name)
        finish = usage = None
        if line.get("done"):
            self.done = True
            usage = _usage_in(line)
            self._reason = strip_controls(replace_surrogates(_text(line.get("done_reason"))))[:200]
            finish = self._finish_reason()
        if content or thinking or calls or model or finish or usage:
            return Delta(content, thinking, calls, finish, usage, model)
        return None

    def _read_calls(self, calls: Any) -> Tuple[ToolCallDelta, ...]:
        """The calls of a line: each is whole, and none was there before."""
        if not calls:
            return ()
        if not isinstance(calls, list):
            raise ProtocolError("tool_calls is not a list", phase="stream")
        pieces = []
        for call in calls:
            function = call.get("function") if isinstance(call, dict) else None
            name = _text(function.get("name")) if isinstance(function, dict) else ""
            if not (isinstance(function, dict) and name):
                raise ProtocolError("a tool call without a name", phase="stream")
            arguments = _arguments(function.get("arguments"))
            place = len(self._calls)
            self._calls.append(arguments)
            call_id = replace_surrogates(_text(call.get("id")))
            pieces.append(ToolCallDelta(place, call_id, replace_surrogates(name), arguments))
        return tuple(pieces)

    def _finish_reason(self) -> Optional[str]:
        """The answer's ending as chat completions name it; an unknown word stays."""
        if self.failed:
            return None
        if self._reason in ("", *_NO_ANSWER) or ending_of(self._reason) is Ending.WHOLE:
            return "tool_calls" if self._calls else "stop"
        return self._reason

    @property
    def native_finish(self) -> str:
        """The last line's done_reason; "" for none."""
        return self._reason

    @property
    def cut(self) -> bool:
        """True if the server said that the answer was cut."""
        return ending_of(self._reason) is Ending.CUT

    @property
    def failed(self) -> str:
        """The word for a failure with which the server ended the answer; "" for none."""
        return self._reason if ending_of(self._reason) is Ending.FAILED else ""

    def flush(self) -> Optional[Delta]:
        """What was held back, now that no more comes, and the mark of a call that was cut."""
        content, thinking = self._content.flush(), self._reasoning.flush()
        if thinking:
            self.thinking.append(thinking)
        last = len(self._calls) - 1
        calls: Tuple[ToolCallDelta, ...] = ()
        if self.cut and self._calls and not _is_object(self._calls[last]):
            calls = (ToolCallDelta(last, cut=True),)
        return Delta(content, thinking, calls) if content or thinking or calls else None

    def oddities(self) -> List[str]:
        """What was odd about the answer and yet no error: texts for its warnings."""
        if self._reason in _NO_ANSWER:
            return [f"the server gave no answer: done_reason {self._reason}"]
        ending = ending_of(self._reason)
        if ending is Ending.CUT:
            return [f"the answer was cut: done_reason {self._reason}"]
        if self._reason and ending is Ending.UNKNOWN:
            return [f"the answer ended for a reason that is not known: done_reason {self._reason}"]
        return []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _arguments(value: Any) -> str:
    """A call's arguments as JSON text: an object on this wire, a text on some others'."""
    if value is None:
        return "{}"
    if isinstance(value, str):
        return replace_surrogates(value)
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        raise ProtocolError("tool arguments that JSON cannot hold", phase="stream") from None
    return replace_surrogates(text)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text, strict=False), dict)
    except (ValueError, RecursionError):
        return False


def _usage_in(line: Dict[str, Any]) -> Optional[Usage]:
    """The counts of a last line.

    A prompt whose tokens were all kept from an earlier request has no count in some
    versions: then there is no total either.
    """
    prompt, completion = (_count(line.get(f"{name}eval_count")) for name in ("prompt_", ""))
    if prompt is None and completion is None:
        return None
    total = None if prompt is None or completion is None else prompt + completion
    return Usage(prompt, completion, total)


def _count(value: Any) -> Optional[int]:
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**53
    return value if usable else None
