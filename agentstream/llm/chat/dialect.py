"""The dialect of chat completions: OpenAI's, and of all who followed it.

What is sent; where an event's chunk, its error and the stream's end are told apart.
What a chunk holds is chunks.py's, what a failure means failures.py's.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from agentstream.errors import AgentStreamError, ProtocolError, StatusError
from agentstream.llm import failures
from agentstream.llm.accumulator import Accumulator
from agentstream.llm.chat.chunks import ChunkReader
from agentstream.llm.chat.state import StateCollector, sent_back
from agentstream.llm.chunk import parse_chunk
from agentstream.llm.messages import ChatMessage, ChatRequest, Delta
from agentstream.llm.secrets import Redactor
from agentstream.llm.server_dialect import EventStreamDialect
from agentstream.text import pattern

__all__ = ["ChatDialect", "ChatTraits", "to_body"]

#: Events whose names say that they say nothing.
_HEARTBEAT = pattern("ping|heart-?beat|keep-?alive", re.IGNORECASE)


class ChatTraits:
    """What is known and has been learned of a server; one for each client.

    Attributes:
        origin: the URL that requests go to, without secrets.
        takes_stream_options: False once it has refused the field.
        refused: fields of an answer's provider state that a model refused to be sent
            back: (model, field).
        url: where requests go; None for the transport's own URL.
        most: the field that says how long an answer may become: max_tokens, or
            max_completion_tokens.
        most_of: that field by model, where a model takes another.
    """

    def __init__(
        self, origin: str = "", *, url: Optional[str] = None, most: str = "max_tokens"
    ) -> None:
        self.origin = origin
        self.url = url
        self.most = most
        self.most_of: Dict[str, str] = {}
        self.takes_stream_options = True
        self.refused: Set[Tuple[str, str]] = set()


class ChatDialect(EventStreamDialect):
    """One chat completion.

    Args:
        request: what is asked.
        model: the client's model, for requests that name none.
        fields: the client's further fields of the body.
        redact: takes secrets out of what errors carry.
        traits: what the client has learned of the server.
    """

    end_mark = "[DONE]"
    _reader: ChunkReader

    def __init__(
        self,
        request: ChatRequest,
        *,
        model: str,
        fields: Mapping[str, Any],
        redact: Redactor,
        traits: ChatTraits,
    ) -> None:
        own = "messages" in fields or "messages" in request.extra
        self._messages: Sequence[Any] = () if own else request.messages
        super().__init__(redact)
        self._traits = traits
        self.url = traits.url
        self._body: Dict[str, Any] = {**to_body(request, model), **fields, **request.extra}
        self._without: Set[str] = set()  # fields of provider state that this call leaves out
        self._most_changed = False
        self._most = self._renamed_most(fields, request.extra)
        self._put_back()
        self._asked_for_usage = False
        self._state = StateCollector()
        self._reader = ChunkReader()

    # --- the request ------------------------------------------------------------------------

    @property
    def model(self) -> str:
        """See `Dialect.model`."""
        return str(self._body["model"])

    def body(self) -> Dict[str, Any]:
        """See `Dialect.body`.  A field that is None is not sent."""
        body = {name: value for name, value in self._body.items() if value is not None}
        self._asked_for_usage = (
            self._traits.takes_stream_options and "stream_options" not in self._body
        )
        if self._asked_for_usage:
            body["stream_options"] = {"include_usage": True}
        return body

    def amend(self, error: AgentStreamError) -> bool:
        """See `Dialect.amend`: `stream_options`, and what an earlier answer is sent back with."""
        if not isinstance(error, StatusError):
            return False
        if self._asked_for_usage and failures.refuses_stream_options(error):
            self._traits.takes_stream_options = False
            return True
        if self._most and not self._most_changed:
            other = failures.renamed(error, self._most)
            if other is not None:
                self._body[other] = self._body.pop(self._most)
                self._most, self._most_changed = other, True
                return True
        refused = {name for name in self._sent_back if failures.names_field(error, name)}
        self._without |= refused
        self._put_back()
        return bool(refused)

    def _renamed_most(self, *given: Mapping[str, Any]) -> str:
        """The field in which the request's own `max_tokens` goes out; "" if there is none."""
        if "max_tokens" not in self._body or any("max_tokens" in fields for fields in given):
            return ""
        name = self._traits.most_of.get(self.model, self._traits.most)
        most = self._body.pop("max_tokens")
        self._body.setdefault(name, most)
        return name

    def _put_back(self) -> None:
        """Write the messages, each with its provider state as far as the server takes it."""
        self._sent_back: Set[str] = set()
        refused = {name for model, name in self._traits.refused if model == self.model}
        messages: List[Dict[str, Any]] = []
        for message in self._messages:
            if isinstance(message, ChatMessage):
                body, used = sent_back(message, self._traits.origin, refused | self._without)
                self._sent_back |= used
                messages.append(body)
            else:
                messages.append(dict(message))
        if messages:
            self._body["messages"] = messages

    # --- the stream -------------------------------------------------------------------------

    def begin(self, answer: Accumulator) -> None:
        """See `Dialect.begin`."""
        self._traits.refused |= {(self.model, name) for name in self._without}
        if self._most_changed:
            self._traits.most_of[self.model] = self._most
        if not answer.begun:  # or what came before the break is part of the answer's state
            self._state = StateCollector()
        self._reader = ChunkReader(self._state)
        super().begin(answer)

    def read(self, event: str, data: str) -> Optional[Delta]:
        """See `Dialect.read`."""
        try:
            if event != "message":
                if event == "error":
                    return self._read_failure(_readable(data), event, data)
                if _HEARTBEAT.fullmatch(event):
                    return None
            if data[:1] != "{":
                word = data.strip()
                if word.strip('"').upper() == "[DONE]":
                    self.ended = True
                    return None
                if not word:
                    return None  # a heartbeat
            chunk = parse_chunk(data)
            if chunk.__class__ is list and len(chunk) == 1:
                chunk = chunk[0]  # Gemini's errors
            if chunk.__class__ is not dict:
                return None  # null, a list, a number: some proxies send them, none means anything
            if "error" in chunk or not chunk.get("choices"):
                if failures.is_error(chunk, begun=self._answer.begun):
                    return self._read_failure(chunk, event, data)
            delta = self._reader.read(chunk)
            if self._reader.failure is not None:
                self._fail(self._reader.failure, event, data, delta)
            return delta
        except ProtocolError as error:
            self._take_unreadable(error, event, data)
            return None

    def _is_failure(self, said: Dict[str, Any]) -> bool:
        return failures.is_error(said, begun=self._answer.begun)

    def _read_failure(self, payload: Any, event: str, raw: str) -> Optional[Delta]:
        """A chunk that is a failure: its usage counts; other things it says are not delivered."""
        self._fail(payload, event, raw)
        last = self._reader.read(payload) if isinstance(payload, dict) else None
        if last is None or not (last.usage or last.model):
            return None
        return Delta(usage=last.usage, model=last.model)

    def flush(self, tail: str) -> Optional[Delta]:
        """See `Dialect.flush`."""
        tail = tail.strip()
        self.ended = self.ended or tail == "[DONE]"
        if tail[:1] == "{":
            self._look_for_error(tail)
        rest = self._reader.flush()
        state = self._state.state(self._traits.origin)
        if state is None:
            return rest
        return (rest or Delta())._replace(provider_state=state)

    def warnings(self) -> List[str]:
        """See `Dialect.warnings`."""
        found = super().warnings()
        if self._state.dropped:
            found.append("what the provider wants back with the answer is too long to be kept")
        return found


def _readable(data: str) -> Any:
    """The JSON of an event that says by its name that it is a failure; None if it is none."""
    try:
        return parse_chunk(data)
    except ProtocolError:
        return None


def to_body(request: ChatRequest, model: str) -> Dict[str, Any]:
    """The JSON body of a streaming request but for its messages, `model` being the client's."""
    body: Dict[str, Any] = {"model": request.model or model, "messages": [], "stream": True}
    for name in (
        "temperature",
        "top_p",
        "max_tokens",
        "seed",
        "response_format",
        "reasoning_effort",
    ):
        value = getattr(request, name)
        if value is not None:
            body[name] = value
    if request.stop is not None:
        body["stop"] = request.stop if isinstance(request.stop, str) else list(request.stop)
    if request.tools:
        body["tools"] = [dict(tool) for tool in request.tools]
        if request.tool_choice is not None:
            body["tool_choice"] = request.tool_choice
        if request.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = request.parallel_tool_calls
    return body
