"""What servers send as chunks, in all their dialects -> Deltas.  Pure.

The rules stand on recorded streams of some thirty servers.  The thread through
them: null, "" and absent mean the same; a key decides, never a position; what
is sent twice counts once.  Tool calls are tool_calls.py's, token counts
usage.py's, reasons for an ending finish.py's, errors failures.py's.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from agentstream.llm.chat.parts import content_of, reasoning_of
from agentstream.llm.chat.state import StateCollector
from agentstream.llm.chat.tool_calls import ToolCallAssembler
from agentstream.llm.chat.usage import UsageReader
from agentstream.llm.chunk import shown_id, text_of
from agentstream.llm.finish import Ending, ending_of
from agentstream.llm.messages import Delta
from agentstream.text import SurrogateJoiner, is_encodable, strip_controls

__all__ = ["ChunkReader"]

_new = tuple.__new__


class ChunkReader:
    """Reads the chunks of one stream, in order; only choice 0 counts.

    Args:
        state: collects what the provider wants back; None for one that nobody asks.

    Attributes:
        refusal: what the model said in refusing, where the server sends that apart.
        response_id: the server's id for the answer; "" for none.
        failure: the part of a chunk that says, within its choice, that there
            will be no answer; None while there is none.
    """

    def __init__(self, state: Optional[StateCollector] = None) -> None:
        self._state = StateCollector() if state is None else state
        self._model = ""
        self._tools = ToolCallAssembler()
        self._usage = UsageReader()
        self._content = SurrogateJoiner()
        self._reasoning = SurrogateJoiner()
        self._finish = ""
        self._native_finish = ""
        self.refusal = ""
        self.response_id = ""
        self.failure: Optional[Dict[str, Any]] = None

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
                        and (content.isascii() or is_encodable(content))
                        and not choice.get("index")
                        and chunk.get("model") == self._model
                        and not self._content.held
                        and ("usage" not in chunk or not chunk["usage"])
                        and "x_groq" not in chunk
                        and "usage" not in choice
                        and "error" not in choice
                        and not (choice.get("native_finish_reason"))
                    ):
                        if not content:
                            return None
                        plain: Delta = _new(
                            Delta, (content, "", (), None, None, None, (), None, None)
                        )
                        return plain
        return self._read_any(chunk)

    def _read_any(self, chunk: Dict[str, Any]) -> Optional[Delta]:
        choice = _first_choice(chunk)
        usage = None
        if chunk.get("usage") or chunk.get("x_groq") or (choice and choice.get("usage")):
            usage = self._usage.read(chunk, choice)
        model = None
        name = chunk.get("model")
        if name != self._model and isinstance(name, str) and name:
            self._model = name
            model = text_of(name)
        if not self.response_id:
            self.response_id = shown_id(chunk.get("id"))
        if choice is None:
            return Delta(usage=usage, model=model) if usage or model else None
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            delta = {}
        if "error" in delta and not choice.get("error"):
            choice = {**choice, "error": delta["error"]}
        finish = None
        if choice.get("finish_reason") or choice.get("native_finish_reason") or "error" in choice:
            finish = self._read_ending(choice)
        content = delta.get("content")
        reasoning = ""
        if content.__class__ is not str or len(delta) > 1:
            if content.__class__ is not str:
                content, reasoning = content_of(content)
            self._state.take(delta)
            reasoning = reasoning_of(delta) or reasoning
            if delta.get("refusal"):
                self.refusal += text_of(delta["refusal"])
        if not content.isascii() or self._content.held:
            content = self._content.join(content)
        if reasoning or self._reasoning.held:
            reasoning = self._reasoning.join(reasoning)
        calls = delta.get("tool_calls")
        if not calls and delta.get("function_call"):  # what there was before tool_calls
            calls = [{"index": 0, "function": delta["function_call"]}]
        pieces = self._tools.read(calls) if calls else ()
        if not (reasoning or pieces or finish or usage or model):
            return Delta(content) if content else None
        return Delta(content, reasoning, pieces, finish, usage, model)

    def _read_ending(self, choice: Dict[str, Any]) -> Optional[str]:
        """The finish_reason of a choice, unless it means a failure, which `failure` then holds."""
        finish = _word(choice.get("finish_reason"))
        native = _word(choice.get("native_finish_reason"))
        error = choice.get("error")
        failed = [word for word in (native, finish) if ending_of(word) is Ending.FAILED]
        if failed or (any(error.values()) if isinstance(error, dict) else error):
            self.failure = {
                "delta": None,
                **choice,
                "error": error or _ended_with(failed[0], choice),
            }
            return None
        self._finish = finish or self._finish
        self._native_finish = native or self._native_finish
        return finish or None

    @property
    def native_finish(self) -> str:
        """Why the answer ended, in the word of whoever served it."""
        return self._native_finish or self._finish

    @property
    def cut(self) -> str:
        """The words that say that the answer was cut; "" if none do."""
        if ending_of(self._finish) is Ending.CUT:
            return f"finish_reason {self._finish}"
        if ending_of(self._native_finish) is Ending.CUT:
            return f"finish_reason {self._finish}, native_finish_reason {self._native_finish}"
        return ""

    def oddities(self) -> List[str]:
        """What was odd about the answer and yet no error: texts for its warnings."""
        found = [f"the model refused: {self.refusal}"] if self.refusal else []
        if self.cut:
            found.append(f"the answer was cut: {self.cut}")
        elif self._finish and ending_of(self._finish) is Ending.UNKNOWN:
            found.append(
                f"the answer ended for a reason that is not known: finish_reason {self._finish}"
            )
        return found

    def flush(self) -> Optional[Delta]:
        """What only the stream's end can tell.

        Halves that were held back and never met their other half: U+FFFD each.
        Tool calls that came twice, or were cut.
        """
        content, reasoning = self._content.flush(), self._reasoning.flush()
        calls = self._tools.finish(bool(self.cut))
        return Delta(content, reasoning, calls) if content or reasoning or calls else None

    def read_whole(self, body: Dict[str, Any]) -> Optional[Delta]:
        """The delta of an unstreamed answer (`choices[0].message`); None if it is none."""
        choice = _first_choice(body)
        if choice is None:
            return None
        message = choice.get("message")
        if not isinstance(message, dict):
            if not choice.get("error") and ending_of(_word(choice.get("finish_reason"))) is not (
                Ending.FAILED
            ):
                return None
            message = {}
        calls = message.get("tool_calls")
        if isinstance(calls, list):  # each is whole, whatever its id and its index
            told = [call for call in calls if isinstance(call, dict)]
            numbered = [{**call, "index": place} for place, call in enumerate(told)]
            message = {**message, "tool_calls": numbered}
        streamed = {"finish_reason": "stop", **choice, "delta": message, "index": 0}
        return self.read({**body, "choices": [streamed]})


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


def _word(value: Any) -> str:
    """A reason for an ending, as it can be shown; "" for none."""
    word = strip_controls(text_of(value))[:200]
    return "" if word.lower() in ("null", "none") else word


def _ended_with(word: str, choice: Dict[str, Any]) -> Dict[str, str]:
    """The error that a finish_reason is, as one that a server reports."""
    said = text_of(choice.get("finish_message"))
    return {"code": word, "message": f"the answer ended with {word}" + (said and f": {said}")}
