"""Server-Sent Events, both ways: lines in, bytes out.  Pure: no socket, no clock, no JSON.

Follows the WHATWG HTML standard, section 9.2.  Lines come without their line
ends; cutting bytes into lines is the transport's work.
"""

from __future__ import annotations

import itertools
from typing import Iterable, Iterator, List, NamedTuple, NoReturn, Optional, Tuple, Union

from agentstream.errors import LimitExceeded

__all__ = ["LOOSE", "EventDecoder", "ServerSentEvent", "compact", "encode_comment", "encode_event"]

#: So many lines are kept as they are before they are joined.
LOOSE = 256

_BOM = b"\xef\xbb\xbf"
#: How a line of an event stream begins; `error` is llama.cpp's.
_FIELDS = (b"data", b"event", b"id", b"retry", b"error", b":", _BOM)


class ServerSentEvent(NamedTuple):
    """One event.  `id` is the last one seen, which persists; `retry` is in milliseconds."""

    event: str = "message"
    data: str = ""
    id: str = ""
    retry: Optional[int] = None


class EventDecoder:
    """Turns lines into events.

    Args:
        max_event: the most bytes one event's data may have; None for no limit.
        error_field: also take the non-standard field `error`, which llama.cpp
            wrote until September 2025 and llama-box writes still: its line
            becomes an event named "error".  And take a line that begins with "{"
            for data: some gateways write an error so, without a field.  The standard
            would ignore both, and so report the failure as an empty success.

    Attributes:
        retry: the last reconnection time sent, in milliseconds, or None.
        invalid_utf8: True once bytes that are not UTF-8 were replaced by U+FFFD.
    """

    #: A comment is none; the transport knows one from a data line.
    any_line_is_life = False

    def __init__(self, *, max_event: Optional[int] = None, error_field: bool = False) -> None:
        self.retry: Optional[int] = None
        self.invalid_utf8 = False
        self._max_event = max_event
        self._error_field = error_field
        self._data: List[bytes] = []
        self._joined = 0  # how many of those are lines joined
        self._size = 0
        self._event = ""
        self._id = ""

    def fits(self, first: bytes, content_type: str) -> bool:
        """True if a body whose first line is `first` is an event stream, whatever its Content-Type.

        JSON and HTML are none; an unknown field is one where the Content-Type says so.
        """
        if first[:1] in (b"{", b"["):
            return False
        if not first or "event-stream" in content_type.lower():
            return first[:1] != b"<"
        return first.startswith(_FIELDS)

    def decode(self, lines: Iterable[bytes]) -> Iterator[ServerSentEvent]:
        """Yield each event as its blank line arrives.

        An event that the stream's end cut off is not yielded, as the standard
        has it; `tail` tells what it held.

        Raises:
            LimitExceeded: an event's data passed `max_event`.
        """
        for event, data in self.decode_data(lines):
            yield ServerSentEvent(event, data, self._id, self.retry)

    def decode_data(self, lines: Iterable[bytes]) -> Iterator[Tuple[str, str]]:
        """As `decode`, but only each event's name and data: the way of every chunk."""
        rest = iter(lines)
        for line in rest:  # the first one: a byte order mark may precede it
            rest = itertools.chain([line[3:] if line.startswith(_BOM) else line], rest)
            break
        most = self._max_event
        only: Optional[bytes] = None  # the one line of an event that has nothing else
        for line in rest:
            if not line:
                if only is not None:
                    try:
                        data = only.decode()
                    except UnicodeDecodeError:
                        data = self._text(only)
                    only = None
                    yield "message", data
                elif self._data:
                    yield self._dispatch()
                else:
                    self._event = ""
            elif only is None and line[:6] == b"data: " and not self._data and not self._event:
                only = line[6:]
                if most is not None and len(only) > most:
                    self._too_long()
            else:
                if only is not None:
                    self._add(only)
                    only = None
                self._field(line)
        if only is not None:
            self._add(only)

    def tail(self) -> str:
        """The data of the event that the stream's end left without its blank line."""
        return self._text(b"\n".join(self._data))

    def _dispatch(self) -> Tuple[str, str]:
        event = self._event or "message", self._text(b"\n".join(self._data))
        self._data = []
        self._joined = 0
        self._size = 0
        self._event = ""
        return event

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._add(value)
        elif name == b"event":
            self._event = self._text(value)
        elif name == b"id":
            if b"\0" not in value:
                self._id = self._text(value)
        elif name == b"retry":
            if value.isdigit() and len(value) < 10:
                self.retry = int(value)
        elif name == b"error" and self._error_field:
            self._event = "error"
            self._add(value)
        elif line[:1] == b"{" and self._error_field:
            self._add(line)

    def _add(self, value: bytes) -> None:
        self._data.append(value)
        if len(self._data) > self._joined + LOOSE:
            self._joined = compact(self._data, self._joined)
        if self._max_event is not None:
            self._size += len(value) + 1
            if self._size - 1 > self._max_event:
                self._too_long()

    def _too_long(self) -> NoReturn:
        self._data = []
        self._joined = 0
        raise LimitExceeded(
            f"an event passed {self._max_event} bytes (Limits.event)", limit="event", phase="stream"
        )

    def _text(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.invalid_utf8 = True
            return raw.decode("utf-8", "replace")


def compact(lines: List[bytes], start: int) -> int:
    """Join the lines from `start` on to one, with LF between; returns where the next begin.

    A line of two bytes takes forty as an object of its own.
    """
    lines[start:] = [b"\n".join(lines[start:])]
    return start + 1


def encode_event(
    data: str,
    *,
    event: Optional[str] = None,
    id: Union[int, str, None] = None,
    retry: Optional[int] = None,
) -> bytes:
    """One event as bytes, its blank line included.

    Line breaks in `data` (CR, LF, CRLF) become further data lines; in `event`
    and `id`, where they would start a field of somebody else's making, they
    and NULs are dropped.
    """
    lines = []
    if event is not None:
        lines.append(f"event: {_one_line(event)}")
    if id is not None:
        lines.append(f"id: {_one_line(str(id))}")
    if retry is not None:
        lines.append(f"retry: {int(retry)}")
    for line in data.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        lines.append(f"data: {line}")
    lines.append("\n")
    return "\n".join(lines).encode("utf-8", "replace")


def encode_comment(text: str = "") -> bytes:
    """A comment, which readers skip: a heartbeat."""
    return f": {_one_line(text)}\n\n".encode("utf-8", "replace") if text else b":\n\n"


def _one_line(text: str) -> str:
    return text.replace("\r", "").replace("\n", "").replace("\0", "")
