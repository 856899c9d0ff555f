"""ServerDialect, EventStreamDialect: what the dialects of all servers have in common.

A dialect reads with a reader (the room's own `chunks`, `reader` or `lines`), which
knows what an event holds; failures are said alike in all of them (`failures`).
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Protocol

from agentstream.errors import AgentStreamError, ProtocolError
from agentstream.llm import failures
from agentstream.llm.accumulator import Accumulator
from agentstream.llm.chunk import parse_chunk
from agentstream.llm.dialect import Decoder, Dialect
from agentstream.llm.messages import Delta
from agentstream.llm.secrets import Redactor
from agentstream.llm.sse import EventDecoder

__all__ = ["EventStreamDialect", "ServerDialect"]


class Reader(Protocol):
    """What the events of one answer hold.

    Attributes:
        response_id: the server's id for the answer; "" for none.
    """

    response_id: str

    @property
    def native_finish(self) -> str:
        """Why the answer ended, in the server's own word; "" for none."""

    @property
    def cut(self) -> object:
        """True, or words, if the server said that the answer was cut."""

    def oddities(self) -> List[str]:
        """What was odd about the answer and yet no error."""


class WholeReader(Reader, Protocol):
    """A reader that takes an answer at once too.

    Attributes:
        failure: what says, in an answer, that there will be none; None for nothing.
    """

    failure: Optional[Dict[str, Any]]

    def read_whole(self, body: Dict[str, Any], /) -> Optional[Delta]:
        """The delta of a body that is the whole answer; None if it is none."""


class ServerDialect(Dialect):
    """A dialect that reads what a server sends; `_reader` is the subclass's.

    Args:
        redact: takes secrets out of what errors carry.

    Attributes:
        expected: what a body is to be, for the error of one that is not.
        names_models: an error that says there is no such model says where another is set.
    """

    ended = False
    expected = "an event stream"
    names_models = True
    _reader: Reader

    def __init__(self, redact: Redactor) -> None:
        self._redact = redact
        self._answer = Accumulator()
        self._failure: Optional[AgentStreamError] = None

    def begin(self, answer: Accumulator) -> None:
        """See `Dialect.begin`."""
        self._answer = answer
        self._failure = None
        self.ended = False

    def _fail(self, payload: Any, event: str, raw: str, beside: Optional[Delta] = None) -> None:
        """Take a failure down: nothing follows it.  `beside` is what else its event brought."""
        begun = self._answer.begun or (beside is not None and any(beside[:3]))
        self.ended = True
        self._failure = failures.stream_error(payload, event, raw, redact=self._redact, begun=begun)

    def _unreadable(self, error: ProtocolError, data: str) -> ProtocolError:
        """`error` with the event's data, secrets out."""
        raw = failures.snippet(self._redact(data))
        return ProtocolError(f"{error}: {raw[:200]}", raw=raw, phase="stream")

    def error(self) -> Optional[AgentStreamError]:
        """See `Dialect.error`."""
        return self._failure

    @property
    def cut(self) -> bool:
        """See `Dialect.cut`."""
        return bool(self._reader.cut)

    def warnings(self) -> List[str]:
        """See `Dialect.warnings`."""
        return self._reader.oddities()

    @property
    def response_id(self) -> str:
        """See `Dialect.response_id`."""
        return self._reader.response_id

    @property
    def native_finish(self) -> str:
        """See `Dialect.native_finish`."""
        return self._reader.native_finish

    def status_error(self, status: int, headers: Mapping[str, str], text: str) -> AgentStreamError:
        """See `Dialect.status_error`."""
        if status == 407:
            return failures.proxy_refused(text, redact=self._redact)
        model = self.model if self.names_models else ""
        return failures.status_error(status, headers, text, redact=self._redact, model=model)

    def wrong_content(self, content_type: str, text: str) -> AgentStreamError:
        """See `Dialect.wrong_content`."""
        return failures.wrong_content(
            content_type, text, redact=self._redact, expected=self.expected
        )


class EventStreamDialect(ServerDialect):
    """A dialect whose answers are server-sent events, or one JSON object at once."""

    _reader: WholeReader

    def decoder(self, max_event: Optional[int]) -> Decoder:
        """See `Dialect.decoder`."""
        return EventDecoder(max_event=max_event, error_field=True)

    def read_whole(self, text: str) -> Optional[Delta]:
        """See `Dialect.read_whole`."""
        try:
            body = parse_chunk(text)
        except ProtocolError:  # a stream, perhaps, before which a bare error stands
            self._look_for_error(text.lstrip().partition("\n")[0])
            return None
        if isinstance(body, list) and len(body) == 1:
            body = body[0]  # Gemini's errors
        if not isinstance(body, dict):
            return None
        if self._is_failed_answer(body):
            return self._read_failure(body, "message", text)
        delta = self._reader.read_whole(body)
        if self._reader.failure is not None:
            self._fail(self._reader.failure, "message", text, delta)
        return delta

    def _is_failure(self, said: Dict[str, Any]) -> bool:
        """True if an event is the failure of its stream."""
        return bool(said.get("error")) or said.get("type") == "error"

    def _is_failed_answer(self, body: Dict[str, Any]) -> bool:
        """True if a whole body is a failure and no answer."""
        return self._is_failure(body)

    def _read_failure(self, payload: Any, event: str, raw: str) -> Optional[Delta]:
        """Take a failure down; returns what of it counts all the same."""
        self._fail(payload, event, raw)
        return None

    def _look_for_error(self, text: str) -> None:
        """Take a failure down if `text`, which no blank line ends, is one all the same."""
        try:
            said = parse_chunk(text)
        except ProtocolError:
            return
        if isinstance(said, dict) and self._is_failure(said):
            self._fail(said, "message", text)

    def _take_unreadable(self, error: ProtocolError, event: str, data: str) -> None:
        """Data that is no JSON, or cannot be: an old end mark, or a failure in plain words.

        Raises:
            ProtocolError: it is neither.
        """
        if data.strip() == "[DONE]":
            return
        self._look_for_error(data.partition("\n")[0])
        if self._failure is None and event == "error":
            self._fail(None, event, data)
        if self._failure is None:
            raise self._unreadable(error, data) from None
