"""Newline-delimited JSON: each line an event.  Pure; takes the place of sse.py's decoder."""

from __future__ import annotations

from typing import Iterable, Iterator, Optional, Tuple

from agentstream.errors import LimitExceeded

__all__ = ["LineDecoder"]


class LineDecoder:
    """Turns lines into events without a name; blank lines are skipped.

    The last line may be one that the body's end cut off.  To its reader, a line that
    is no JSON is an error only if another line follows.

    Args:
        max_event: the most bytes one line may have; None for no limit.

    Attributes:
        invalid_utf8: True once bytes that are not UTF-8 were replaced by U+FFFD.
    """

    any_line_is_life = True

    def __init__(self, *, max_event: Optional[int] = None) -> None:
        self.invalid_utf8 = False
        self._max_event = max_event

    def fits(self, first: bytes, content_type: str) -> bool:
        """True if the line `first` can begin such a stream, whatever its Content-Type."""
        return first.lstrip(b"\xef\xbb\xbf \t")[:1] == b"{"

    def decode_data(self, lines: Iterable[bytes]) -> Iterator[Tuple[str, str]]:
        """Yield ("", the line's text) for each line.

        Raises:
            LimitExceeded: a line passed `max_event`.
        """
        most = self._max_event
        for line in lines:
            if most is not None and len(line) > most:
                raise LimitExceeded(
                    f"an event passed {most} bytes (Limits.event)", limit="event", phase="stream"
                )
            try:
                text = line.decode("utf-8-sig")
            except UnicodeDecodeError:
                self.invalid_utf8 = True
                text = line.decode("utf-8", "replace")
            if text and not text.isspace():
                yield "", text

    def tail(self) -> str:
        """Nothing: a last line without its line end is a line."""
        return ""
