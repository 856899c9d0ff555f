"""The dialect of the Responses API: OpenAI's, and of those who serve it as well.

What is sent; where an event's delta, its error and the stream's end are told apart.
What an event holds is reader.py's, what a request holds request.py's, what goes back of
an earlier answer items.py's.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, Optional, Set, Tuple

from agentstream.errors import AgentStreamError, ProtocolError, StatusError
from agentstream.llm import failures
from agentstream.llm.accumulator import Accumulator
from agentstream.llm.chunk import parse_chunk
from agentstream.llm.messages import ChatRequest, Delta
from agentstream.llm.responses.items import ItemCollector, write
from agentstream.llm.responses.reader import EventReader
from agentstream.llm.responses.request import to_body
from agentstream.llm.secrets import Redactor
from agentstream.llm.server_dialect import EventStreamDialect

__all__ = ["ResponsesDialect", "ResponsesTraits"]

#: What is asked of a server beyond the request, and what a complaint about it says.
_OURS = {
    "include": (["reasoning.encrypted_content"], re.compile(r"\binclude\b|[Ee]ncrypted")),
    "stream_options": (
        {"include_obfuscation": False},
        re.compile("stream_options|include_obfuscation"),
    ),
}
#: A complaint about what an earlier answer left.
_STATE = re.compile(r"[Ee]ncrypted|\breasoning\b.*\bitem|Item with id|rs_\w")


class ResponsesTraits:
    """What is known and has been learned of a server; one for each client.

    Attributes:
        url: where requests go; None for the transport's own URL.
        origin: the same, without secrets.
        refused: fields that we ask for and a model refused: (model, field).
        moved: models of which another API of the server said that they are served here.
    """

    def __init__(self, origin: str = "", url: Optional[str] = None) -> None:
        self.url = url
        self.origin = origin
        self.refused: Set[Tuple[str, str]] = set()
        self.moved: Set[str] = set()


class ResponsesDialect(EventStreamDialect):
    """One response.

    Args:
        request: what is asked.
        model: the client's model, for requests that name none.
        fields: the client's further fields of the body.
        store: the provider may keep the response.
        redact: takes secrets out of what errors carry.
        traits: what the client has learned of the server.
        instead_of: the failure of another API, in whose place this one is asked.

    Raises:
        ConfigError: the API has no words for what is asked.
    """

    end_mark = "response.completed"
    _reader: EventReader
    _parse = staticmethod(parse_chunk)

    def __init__(
        self,
        request: ChatRequest,
        *,
        model: str,
        fields: Mapping[str, Any],
        store: bool,
        redact: Redactor,
        traits: ResponsesTraits,
        instead_of: Optional[AgentStreamError] = None,
    ) -> None:
        super().__init__(redact)
        self.url = traits.url
        self._traits = traits
        self._instead_of = instead_of
        own = {**fields, **request.extra}
        self._body = {"store": store, **to_body(request, model, own)}
        self._messages = () if "input" in own else request.messages
        self._without: Set[str] = set()  # of what we ask for, in this call
        self._asked: Set[str] = set()
        self._write_input(without_state=False)
        self._items = ItemCollector()
        self._reader = EventReader(self._items)

    # --- the request ------------------------------------------------------------------------

    @property
    def model(self) -> str:
        """See `Dialect.model`."""
        return str(self._body["model"])

    def body(self) -> Optional[Dict[str, Any]]:
        """See `Dialect.body`.  A field that is None is not sent."""
        body = {name: value for name, value in self._body.items() if value is not None}
        refused = {name for model, name in self._traits.refused if model == self.model}
        self._asked = set(_OURS) - set(self._body) - refused - self._without
        return {**body, **{name: _OURS[name][0] for name in sorted(self._asked)}}

    def amend(self, error: AgentStreamError) -> bool:
        """See `Dialect.amend`: what an earlier answer left, and what is asked for besides."""
        if not isinstance(error, StatusError) or error.status not in (400, 404, 422):
            return False
        if self._with_state and _STATE.search(error.body):
            self._write_input(without_state=True)
            return True
        if error.status == 404:
            return False
        refused = {name for name in self._asked if _OURS[name][1].search(error.body)}
        self._without |= refused
        return bool(refused)

    def _write_input(self, *, without_state: bool) -> None:
        """Write the messages, with what earlier answers left if the server takes it."""
        self._with_state = False
        if not self._messages:
            return
        written = write(self._messages, self._traits.origin, without_state=without_state)
        self._with_state = written.with_state
        self._body["input"] = written.input
        if written.instructions is not None:
            self._body.setdefault("instructions", written.instructions)

    # --- the stream -------------------------------------------------------------------------

    def begin(self, answer: Accumulator) -> None:
        """See `Dialect.begin`."""
        if self._instead_of is not None:
            self._traits.moved.add(self.model)
            self._instead_of = None
        self._traits.refused |= {(self.model, name) for name in self._without}
        self._items = ItemCollector()
        self._reader = EventReader(self._items)
        super().begin(answer)

    def read(self, event: str, data: str) -> Optional[Delta]:
        """See `Dialect.read`."""
        try:
            said = self._parse(data)
            if said.__class__ is not dict:
                return None
            kind = said.get("type") or event
            if kind == "error" or event == "error" or said.get("error"):
                self._fail(said, event, data)
                return None
            delta = self._reader.read(said, kind, len(data))
        except ProtocolError as error:
            self._take_unreadable(error, event, data)
            return None
        if self._reader.ended:
            self.ended = True
            if self._reader.failure is not None:
                self._fail(self._reader.failure, event, data)
        return delta

    def flush(self, tail: str) -> Optional[Delta]:
        """See `Dialect.flush`.  A whole last event counts, though no blank line ends it."""
        last = self._read_tail(tail.strip())
        rest = self._reader.flush()
        if last is not None and rest is not None:
            last = last._replace(
                content=last.content + rest.content,
                reasoning=last.reasoning + rest.reasoning,
                tool_calls=last.tool_calls + rest.tool_calls,
            )
        rest = rest if last is None else last
        stored = bool(self._body["store"])
        state = self._items.state(self._traits.origin, stored=stored)
        if state is None:
            return rest
        return (rest or Delta())._replace(provider_state=state)

    def _read_tail(self, tail: str) -> Optional[Delta]:
        try:
            said = parse_chunk(tail)
        except ProtocolError:
            return None
        if not isinstance(said, dict) or said.get("type") == "response.output_text.delta":
            return None
        self._look_for_error(tail)
        delta = self.read("message", tail) if self._failure is None else None
        return delta if self._reader.ended else None

    def _is_failed_answer(self, body: Dict[str, Any]) -> bool:
        return "output" not in body and failures.is_error(body, begun=False)

    def warnings(self) -> List[str]:
        """See `Dialect.warnings`."""
        found = super().warnings()
        if self._items.dropped:
            found.append("what the provider wants back with the answer is too long to be kept")
        most, usage = self._body.get("max_output_tokens"), self._answer.response().usage
        if most and usage.completion_tokens == most and not (usage.estimated or self.cut):
            found.append(f"the answer took all of its {most} tokens, and may be cut")
        return found

    def final(self, error: AgentStreamError) -> AgentStreamError:
        """See `Dialect.final`: where this API is not served, what was said before counts."""
        if self._instead_of is not None and isinstance(error, StatusError):
            if error.status in (404, 405, 501):
                return self._instead_of
        return error
