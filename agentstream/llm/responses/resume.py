"""Going on with a response whose stream broke off.

The request says `background`, so that the provider goes on writing, and keeps the response
(`store`).  What was sent after the last event that came is then asked for by its number: no
word comes twice, and none is lost.
"""

from __future__ import annotations

import urllib.parse
from typing import Any, Dict, Optional

from agentstream.errors import (
    AgentStreamError,
    ProtocolError,
    StatusError,
)
from agentstream.llm.accumulator import Accumulator
from agentstream.llm.broken import Break
from agentstream.llm.chunk import parse_chunk
from agentstream.llm.dialect import Ask, Dialect
from agentstream.llm.messages import Delta
from agentstream.llm.responses.dialect import ResponsesDialect
from agentstream.llm.responses.items import text_of_item
from agentstream.llm.server_dialect import ServerDialect
from agentstream.llm.transport import at_path

__all__ = ["ResumingDialect"]

_FIELD = "background"


class ResumingDialect(ResponsesDialect):
    """One response that outlives its stream.

    Args:
        url: where requests go.
        settings: as `ResponsesDialect` takes them.
    """

    def __init__(self, *args: Any, url: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._posts_to = url
        self._last = self._from = -1  # numbers of the last events: that was read, before a break
        self._ordered = True  # each number was above the one before
        self._begun = False  # a stream has
        self._going_on = False  # the request at hand asks for the rest
        #: The last break: its class, its words, and whether it is retryable.
        self._broken: Optional[Break] = None

    # --- whether, and what is sent ------------------------------------------------------------

    @property
    def _has_rest(self) -> bool:
        """True if the stream that was read can be gone on with."""
        known = self._ordered and self._last >= 0 and self._reader.response_id
        return self._begun and self._takes_background and not self.ended and bool(known)

    @property
    def _takes_background(self) -> bool:
        refused = self._without | {
            name for model, name in self._traits.refused if model == self.model
        }
        return _FIELD not in refused and self._body.get(_FIELD, True) is not False

    def prepare(self, ask: Ask) -> Dialect:
        """See `Dialect.prepare`."""
        self._going_on = self._has_rest
        self._from = self._last
        self.url = self._rest_url() if self._going_on else self._posts_to
        return self

    def _rest_url(self) -> str:
        path = "/" + urllib.parse.quote(self._reader.response_id, safe="")
        return at_path(self._posts_to, path, {"stream": "true", "starting_after": str(self._last)})

    def body(self) -> Optional[Dict[str, Any]]:
        """See `Dialect.body`: after a break, none."""
        if self._going_on:
            return None
        body = super().body()
        if body is not None and self._takes_background:
            body.setdefault(_FIELD, True)
        return body

    def amend(self, error: AgentStreamError) -> bool:
        """See `Dialect.amend`: also `background`, and a response that is not there any more."""
        if not isinstance(error, StatusError):
            return False
        if self._going_on:
            if self._answer.begun or error.retryable:
                return False
            self._begun = False  # not a word has come: ask anew
            return True
        if error.status in (400, 422) and _FIELD in error.body and self._takes_background:
            self._without.add(_FIELD)
            return True
        return super().amend(error)

    def may_resume(self, error: AgentStreamError) -> bool:
        """See `Dialect.may_resume`."""
        if self._has_rest and error.phase == "stream" and not isinstance(error, ProtocolError):
            self._broken = Break.of(error)
        return self._has_rest and self._broken is not None

    def final(self, error: AgentStreamError) -> AgentStreamError:
        """See `Dialect.final`: the break, if `error` was a vain try at mending it."""
        if self._broken is None or not (self._going_on and Break.is_vain(error)):
            return super().final(error)
        return self._broken.after(error)

    # --- what comes ---------------------------------------------------------------------------

    def begin(self, answer: Accumulator) -> None:
        """See `Dialect.begin`: a response that goes on is read by the reader it began with."""
        if self._going_on:
            ServerDialect.begin(self, answer)
            said = len(answer.text())
            answer.warn(f"the stream broke off after {said} characters and was resumed")
            return
        super().begin(answer)
        self._begun, self._ordered, self._last, self._broken = True, True, -1, None

    def _parse(self, data: str) -> Any:
        """An event's JSON; None for one that was read before the break."""
        said = parse_chunk(data)
        if said.__class__ is dict:
            number = said.get("sequence_number")
            if number.__class__ is int:
                if self._going_on and number <= self._from:
                    return None
                self._ordered = self._ordered and number > self._last
                self._last = number
        return said

    def read(self, event: str, data: str) -> Optional[Delta]:
        """See `Dialect.read`."""
        delta = super().read(event, data)
        if self.ended and self._going_on and self._failure is None:
            self._compare(data, delta)
        return delta

    def _compare(self, data: str, last: Optional[Delta]) -> None:
        """Warn if the response that ended says other words than came in its parts."""
        response = parse_chunk(data).get("response")
        output = response.get("output") if isinstance(response, dict) else None
        items = (
            [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
        )
        whole = "".join(text_of_item(item) for item in items if item.get("type") == "message")
        came = self._answer.text() + (last.content if last else "")
        if whole and len(whole) != len(came):
            self._answer.warn("the resumed answer is not the one that the provider has kept")

    def flush(self, tail: str) -> Optional[Delta]:
        """See `Dialect.flush`.  Of a stream that may go on, nothing but its end."""
        if self._has_rest and not self._is_end(tail):
            return None  # what waits for its other half will get it
        return super().flush(tail)

    def _is_end(self, tail: str) -> bool:
        try:
            said = parse_chunk(tail)
        except ProtocolError:
            return False
        if not isinstance(said, dict):
            return False
        ends = ("completed", "incomplete", "failed", "cancelled")
        return self._is_failure(said) or said.get("type") in [f"response.{end}" for end in ends]
