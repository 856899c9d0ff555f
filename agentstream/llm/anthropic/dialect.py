"""The dialect of Messages: Anthropic's, and of those who serve it as well.

What is sent; where an event's delta, its error and the stream's end are told apart.
What an event holds is reader.py's, what a request holds request.py's.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

from agentstream.errors import AgentStreamError, ProtocolError, StatusError
from agentstream.llm import failures
from agentstream.llm.accumulator import Accumulator
from agentstream.llm.anthropic.reader import EventReader
from agentstream.llm.anthropic.request import has_marks, mark, to_body
from agentstream.llm.anthropic.turns import DIALECT
from agentstream.llm.chunk import parse_chunk
from agentstream.llm.messages import ChatRequest, Delta
from agentstream.llm.secrets import Redactor
from agentstream.llm.server_dialect import EventStreamDialect

__all__ = ["MessagesDialect", "MessagesTraits"]


class MessagesTraits:
    """What is known and has been learned of a server; one for each client.

    Attributes:
        origin: the URL that requests go to, without secrets.
        takes_marks: False once it has refused `cache_control`.
    """

    def __init__(self, origin: str = "") -> None:
        self.origin = origin
        self.takes_marks = True


class MessagesDialect(EventStreamDialect):
    """One request to Messages.

    Args:
        request: what is asked.
        model, max_tokens: the client's, for requests that name none.
        fields: the client's further fields of the body.
        cache: mark what the server is to keep, where the request itself does not.
        redact: takes secrets out of what errors carry.
        traits: what the client has learned of the server.

    Raises:
        ConfigError: Messages has no words for what is asked.
    """

    end_mark = "message_stop"
    _reader: EventReader

    def __init__(
        self,
        request: ChatRequest,
        *,
        model: str,
        max_tokens: int,
        fields: Mapping[str, Any],
        cache: bool,
        redact: Redactor,
        traits: MessagesTraits,
    ) -> None:
        super().__init__(redact)
        own = {**fields, **request.extra}
        body = to_body(
            request,
            model=model,
            max_tokens=max_tokens,
            origin=traits.origin,
            with_messages="messages" not in own,
        )
        body.update(own)
        self._body = {name: value for name, value in body.items() if value is not None}
        self._marks = cache and not has_marks(self._body)
        self._traits = traits
        self._reader = EventReader()

    # --- the request ------------------------------------------------------------------------

    @property
    def model(self) -> str:
        """See `Dialect.model`."""
        return str(self._body["model"])

    def body(self) -> Dict[str, Any]:
        """See `Dialect.body`.  A field that is None is not sent."""
        return mark(self._body) if self._marks and self._traits.takes_marks else self._body

    def amend(self, error: AgentStreamError) -> bool:
        """See `Dialect.amend`: the marks."""
        marked = self._marks and self._traits.takes_marks
        if not (marked and isinstance(error, StatusError)):
            return False
        self._traits.takes_marks = not failures.names_field(error, "cache_control")
        return not self._traits.takes_marks

    # --- the stream -------------------------------------------------------------------------

    def begin(self, answer: Accumulator) -> None:
        """See `Dialect.begin`."""
        self._reader = EventReader()
        super().begin(answer)

    def read(self, event: str, data: str) -> Optional[Delta]:
        """See `Dialect.read`."""
        try:
            said = parse_chunk(data)
        except ProtocolError as error:
            self._take_unreadable(error, event, data)
            return None
        if said.__class__ is not dict:
            return None
        if event == "error" or "error" in said:
            if event == "error" or said["error"] or said.get("type") == "error":
                self._fail(said, event, data)
                return None
        delta = self._reader.read(said, len(data))
        if self._reader.ended:
            self.ended = True
        elif self._reader.failure is not None:
            self._fail(self._reader.failure, event, data)
        return delta

    def flush(self, tail: str) -> Optional[Delta]:
        """See `Dialect.flush`."""
        if tail.strip():
            self._read_tail(tail.strip())
        rest = self._reader.flush()
        answer = self._answer.response()
        text, reasoning = answer.content, answer.reasoning
        if rest is not None:
            text, reasoning = text + rest.content, reasoning + rest.reasoning
        blocks = self._reader.state(text, reasoning)
        if not blocks:
            return rest
        state = {"dialect": DIALECT, "origin": self._traits.origin, "blocks": blocks}
        more = {"goes_on": True} if self._reader.paused else {}
        return (rest or Delta())._replace(provider_state={**state, **more})

    def _read_tail(self, tail: str) -> None:
        """The last event, whose blank line did not come: an end or a failure counts."""
        self._look_for_error(tail)
        try:
            said = parse_chunk(tail)
        except ProtocolError:
            return
        if isinstance(said, dict) and said.get("type") == "message_stop":
            self._reader.read(said)
            self.ended = True

    def _is_failed_answer(self, body: Dict[str, Any]) -> bool:
        return failures.is_error(body, begun=False) and not isinstance(body.get("content"), list)

    def is_loading(self, error: AgentStreamError) -> bool:
        """See `Dialect.is_loading`: llama.cpp serves Messages too."""
        return failures.is_loading(error)
