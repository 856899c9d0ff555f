"""Dialect: what a server's language is to a call.

A call (call.py) knows attempts, waits, deadlines and endings, and no word of any
language; a transport knows sockets and lines.  All that lies between is a dialect's:
what is sent, how an event becomes a delta, what ends a stream, which payload is an
error, what a status means, and whether a refused request is worth changing.

One object a call, made by the client; it holds what has been read of the stream.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Protocol, Tuple

from agentstream.errors import AgentStreamError
from agentstream.llm.accumulator import Accumulator
from agentstream.llm.messages import Delta

__all__ = ["Ask", "Decoder", "Dialect", "Wrapped"]

#: GETs a URL of the server: (url, seconds, bytes) -> (status, headers, text), the body
#: read for so long and so far at most.  Raises `AgentStreamError` if there is no answer.
Ask = Callable[[str, float, int], Tuple[int, Mapping[str, str], str]]


class Decoder(Protocol):
    """Cuts a body's lines into events: `sse.EventDecoder`, `ndjson.LineDecoder`.

    Attributes:
        invalid_utf8: bytes that are not UTF-8 were replaced by U+FFFD.
        any_line_is_life: each line is a sign of life; the transport tells of those
            of an event stream itself.
    """

    invalid_utf8: bool
    any_line_is_life: bool

    def fits(self, first: bytes, content_type: str) -> bool:
        """True if a body of that Content-Type which begins with the line `first` is such a stream.

        Servers' Content-Types are not to be trusted.
        """

    def decode_data(self, lines: Iterable[bytes]) -> Iterator[Tuple[str, str]]:
        """Yield each event's name and data."""

    def tail(self) -> str:
        """The data of the event that the stream's end cut off; "" for none."""


class Dialect(ABC):
    """One request and its answer in a server's language.

    A call asks in this order: `prepare`, `body`, then `status_error` or, for a
    success, `begin` and `read` for each event until `ended`, and `flush`; or
    `read_whole` in their place for a body that is no stream.  `error`, `goes_on` and
    `warnings` come last.  Another attempt begins again with `prepare`, and so does the
    request for an answer's rest.

    Attributes:
        url: where the request goes; None for the transport's own URL.
        headers: of this request, over the transport's; None for none.
        end_mark: how the stream's end is written, for messages about its lack.
    """

    url: Optional[str] = None
    headers: Optional[Mapping[str, str]] = None
    end_mark: str = ""

    # --- the request ------------------------------------------------------------------------

    def prepare(self, ask: Ask) -> Dialect:
        """Find out what must be known of the server first; returns what to speak, mostly itself.

        Raises:
            AgentStreamError: the request cannot be made, or the server does not answer.
        """
        return self

    @property
    @abstractmethod
    def model(self) -> str:
        """The model that is asked."""

    @abstractmethod
    def body(self) -> Optional[Dict[str, Any]]:
        """The JSON body to post now; None to GET the URL."""

    def amend(self, error: AgentStreamError) -> bool:
        """True if the server refused a part of the request that it can do without.

        `body` leaves it out from now on, and the client's later requests do too.
        """
        return False

    # --- the stream -------------------------------------------------------------------------

    @abstractmethod
    def decoder(self, max_event: Optional[int]) -> Decoder:
        """What cuts the body into events, each of `max_event` bytes at most."""

    @abstractmethod
    def begin(self, answer: Accumulator) -> None:
        """A stream begins.  `answer` is the sum of all that was read, earlier attempts included."""

    @property
    @abstractmethod
    def ended(self) -> bool:
        """True once nothing of the answer can follow: its end was read, or a failure."""

    @abstractmethod
    def read(self, event: str, data: str) -> Optional[Delta]:
        """The delta of one event; None if it adds nothing.  On the way of every chunk.

        Raises:
            AgentStreamError: the event cannot be read.
        """

    def flush(self, tail: str) -> Optional[Delta]:
        """What was held back, now that the body is over.

        Args:
            tail: the data of the event that the body's end cut off.  Cut JSON is
                not to be delivered; an end mark may count.
        """
        return None

    @abstractmethod
    def read_whole(self, text: str) -> Optional[Delta]:
        """The delta of a body that is the whole answer at once; None if it is no answer.

        Raises:
            AgentStreamError: as `read`.
        """

    def error(self) -> Optional[AgentStreamError]:
        """The failure that the stream itself reported; None for none."""
        return None

    @property
    def goes_on(self) -> bool:
        """True if the answer, whole as far as it goes, has a rest; `body` then asks for it."""
        return False

    @property
    def holds_back(self) -> bool:
        """True while words of the answer have come that no delta has told of."""
        return False

    @property
    def cut(self) -> bool:
        """True if the server said that the answer was cut: at a limit, or by a filter."""
        return False

    def warnings(self) -> List[str]:
        """What was odd about the answer and yet no error."""
        return []

    @property
    def response_id(self) -> str:
        """The server's id for the answer; "" if it gave none, or not yet."""
        return ""

    @property
    def native_finish(self) -> str:
        """Why the answer ended, in the server's own word; "" if it did not say."""
        return ""

    # --- failures ---------------------------------------------------------------------------

    @abstractmethod
    def status_error(self, status: int, headers: Mapping[str, str], text: str) -> AgentStreamError:
        """What an HTTP status that is no success means; `text` is the beginning of its body."""

    @abstractmethod
    def wrong_content(self, content_type: str, text: str) -> AgentStreamError:
        """The error for a success whose body is neither a stream nor an answer."""

    def is_loading(self, error: AgentStreamError) -> bool:
        """True for the answer of a server that is still loading its model."""
        return False

    def may_resume(self, error: AgentStreamError) -> bool:
        """True if another attempt can go on where this one broke off; `body` then asks for that."""
        return False

    def final(self, error: AgentStreamError) -> AgentStreamError:
        """What to raise if no further attempt follows `error`."""
        return error


class Wrapped(Dialect):
    """A dialect around another one, which does all that is not overridden here."""

    def __init__(self, inner: Dialect) -> None:
        self._inner = inner
        self.url = inner.url
        self.headers = inner.headers
        self.end_mark = inner.end_mark

    def prepare(self, ask: Ask) -> Dialect:
        self._inner = inner = self._inner.prepare(ask)
        self.url, self.headers, self.end_mark = inner.url, inner.headers, inner.end_mark
        return self

    @property
    def model(self) -> str:
        return self._inner.model

    def body(self) -> Optional[Dict[str, Any]]:
        return self._inner.body()

    def amend(self, error: AgentStreamError) -> bool:
        return self._inner.amend(error)

    def decoder(self, max_event: Optional[int]) -> Decoder:
        return self._inner.decoder(max_event)

    def begin(self, answer: Accumulator) -> None:
        self._inner.begin(answer)

    @property
    def ended(self) -> bool:
        return self._inner.ended

    def read(self, event: str, data: str) -> Optional[Delta]:
        return self._inner.read(event, data)

    def flush(self, tail: str) -> Optional[Delta]:
        return self._inner.flush(tail)

    def read_whole(self, text: str) -> Optional[Delta]:
        return self._inner.read_whole(text)

    def error(self) -> Optional[AgentStreamError]:
        return self._inner.error()

    @property
    def goes_on(self) -> bool:
        return self._inner.goes_on

    @property
    def holds_back(self) -> bool:
        return self._inner.holds_back

    @property
    def cut(self) -> bool:
        return self._inner.cut

    def warnings(self) -> List[str]:
        return self._inner.warnings()

    @property
    def response_id(self) -> str:
        return self._inner.response_id

    @property
    def native_finish(self) -> str:
        return self._inner.native_finish

    def status_error(self, status: int, headers: Mapping[str, str], text: str) -> AgentStreamError:
        return self._inner.status_error(status, headers, text)

    def wrong_content(self, content_type: str, text: str) -> AgentStreamError:
        return self._inner.wrong_content(content_type, text)

    def is_loading(self, error: AgentStreamError) -> bool:
        return self._inner.is_loading(error)

    def may_resume(self, error: AgentStreamError) -> bool:
        return self._inner.may_resume(error)

    def final(self, error: AgentStreamError) -> AgentStreamError:
        return self._inner.final(error)
