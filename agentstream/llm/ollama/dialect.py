"""The dialect of Ollama's own API: what is sent, when an answer ends, which line is an error."""

from __future__ import annotations

import re
from typing import Any, Dict, Mapping, Optional

from agentstream.errors import AgentStreamError, ProtocolError, ProviderStreamError, StatusError
from agentstream.llm.accumulator import Accumulator
from agentstream.llm.chunk import parse_chunk
from agentstream.llm.dialect import Decoder
from agentstream.llm.messages import ChatRequest, Delta
from agentstream.llm.ndjson import LineDecoder
from agentstream.llm.ollama.lines import LineReader
from agentstream.llm.ollama.request import DIALECT, Settings, to_body
from agentstream.llm.secrets import Redactor
from agentstream.llm.server_dialect import ServerDialect

__all__ = ["OllamaDialect"]

#: A 400 for what the model itself cannot do.
_CANNOT = re.compile(r"does not support (tools|thinking)", re.IGNORECASE)
_HINTS = {
    "tools": "the request has tools",
    "thinking": "think= or reasoning_effort asks for it",
}


class OllamaDialect(ServerDialect):
    """One answer of POST /api/chat.

    Args:
        request: what is asked.
        settings: the client's.
        redact: takes secrets out of what errors carry.

    Raises:
        ConfigError: the request holds what this API cannot express.
    """

    end_mark = '"done": true'
    expected = "lines of JSON"
    names_models = False  # `_hint` says how to fetch one
    _reader: LineReader

    def __init__(self, request: ChatRequest, settings: Settings, redact: Redactor) -> None:
        super().__init__(redact)
        self._origin = settings.origin
        self._body = to_body(request, settings)
        self._reader = LineReader()
        self._no_json = ""

    # --- the request ------------------------------------------------------------------------

    @property
    def model(self) -> str:
        """See `Dialect.model`."""
        return str(self._body["model"])

    def body(self) -> Dict[str, Any]:
        """See `Dialect.body`."""
        return self._body

    # --- the stream -------------------------------------------------------------------------

    def decoder(self, max_event: Optional[int]) -> Decoder:
        """See `Dialect.decoder`."""
        return LineDecoder(max_event=max_event)

    def begin(self, answer: Accumulator) -> None:
        """See `Dialect.begin`."""
        self._reader = LineReader()
        self._no_json = ""
        super().begin(answer)

    def read(self, event: str, data: str) -> Optional[Delta]:
        """See `Dialect.read`.  A line that is no JSON is an error once another follows."""
        if self._no_json:
            raise self._unreadable(ProtocolError("a line is not valid JSON"), self._no_json)
        try:
            line = parse_chunk(data)
        except ProtocolError:
            self._no_json = data
            return None
        if line.__class__ is not dict:
            return None
        if line.get("error"):
            self._fail(line, "error", data)
            return None
        try:
            delta = self._reader.read(line)
        except ProtocolError as error:
            raise self._unreadable(error, data) from None
        if self._reader.done:
            self.ended = True
            if self._reader.failed:
                why = {"error": f"the answer ended: {self._reader.failed}"}
                self._fail(why, "error", data)
        return delta

    def _fail(self, payload: Any, event: str, raw: str, beside: Optional[Delta] = None) -> None:
        """Take a failure down: nothing follows it.

        A line without a code is what the server would have answered with a status of 500,
        had it not begun to answer.
        """
        super()._fail(payload, event, raw, beside)
        error = self._failure
        if isinstance(error, ProviderStreamError) and error.code is None:
            error.retryable = not self._answer.begun

    def flush(self, tail: str) -> Optional[Delta]:
        """See `Dialect.flush`."""
        rest = self._reader.flush()
        if not self._reader.thinking:
            return rest
        fields = {"thinking": "".join(self._reader.thinking)}
        state = {"dialect": DIALECT, "origin": self._origin, "fields": fields}
        return (rest or Delta())._replace(provider_state=state)

    def read_whole(self, text: str) -> Optional[Delta]:
        """See `Dialect.read_whole`.  An answer is a line, whole or streamed: this is none."""
        return None

    # --- failures ---------------------------------------------------------------------------

    def status_error(self, status: int, headers: Mapping[str, str], text: str) -> AgentStreamError:
        """See `Dialect.status_error`.

        Of a model that is not there, or that cannot do what is asked, it says what to do.
        """
        error = super().status_error(status, headers, text)
        hint = self._hint(error) if isinstance(error, StatusError) else ""
        if hint:
            error.args = (f"{error.args[0]} ({hint})",)
        return error

    def _hint(self, error: StatusError) -> str:
        if error.status == 404:
            if error.body.lstrip().startswith("{"):
                return f"to fetch the model: ollama pull {self.model}"
            return "is base_url that of Ollama, without a path?"
        cannot = _CANNOT.search(error.body) if error.status == 400 else None
        if cannot is None:
            return ""
        what = cannot.group(1).lower()
        return f"{_HINTS[what]}; what a model can do: ollama show {self.model}"
