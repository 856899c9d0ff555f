"""HTTPResponse: http.client's, strict where another answer's bytes might be taken for this one's.

RFC 9110, section 15.2 (interim answers), RFC 9112, section 6.3 (a body's length).
"""

from __future__ import annotations

import email.errors
import http
import http.client
from typing import IO, Any, List, Tuple

__all__ = ["CutHead", "HTTPResponse", "NotHTTP", "Unasked", "UnclearHead"]

#: Interim answers before the real one: so many, and so many bytes of headers together.
_MOST_INTERIM = 64
_MOST_BYTES = 65536


_BLANK = (b"\r\n", b"\n")
#: What the parser says of a line among the headers that is none.
_NO_HEADER = (
    email.errors.MissingHeaderBodySeparatorDefect,
    email.errors.FirstHeaderLineIsContinuationDefect,
    email.errors.MisplacedEnvelopeHeaderDefect,
)


class NotHTTP(http.client.HTTPException):
    """Bytes that are no head of an answer; its text says what is wrong with them."""


class CutHead(http.client.HTTPException):
    """The head of an answer that ended with its connection."""


class Unasked(http.client.HTTPException):
    """Bytes that were there before the request was sent."""


class UnclearHead(http.client.HTTPException):
    """The head of an answer that nobody can go by; its text says why."""


class HTTPResponse(http.client.HTTPResponse):
    """An answer's head.

    http.client skips "100 Continue" alone: of "103 Early Hints" it makes an
    answer without a body, and of the real one the next request's.
    """

    def _read_status(self) -> Tuple[str, int, str]:
        skipped = 0
        for _ in range(_MOST_INTERIM):
            version, status, reason = self._status_line(skipped > 0)
            if status >= 200:
                return version, status, reason
            if status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                raise UnclearHead("101: it switches to a protocol nobody asked for")
            skipped = self._skip_headers(skipped)
        raise UnclearHead("interim answers without end")

    def _status_line(self, begun: bool) -> Tuple[str, int, str]:
        """One status line; `begun` if an interim answer has come before it.

        Raises:
            http.client.RemoteDisconnected: the connection ended before any byte.
            CutHead: it ended later; NotHTTP: what came is no status line.
        """
        try:
            version, status, reason = super()._read_status()  # type: ignore[misc]
        except http.client.RemoteDisconnected:
            if not begun:
                raise
        except http.client.BadStatusLine as error:
            line = str(error)
            if line.startswith("\x15\x03"):
                raise NotHTTP("a TLS alert: https://?") from None
            if line.endswith("\n") or line[:5] != "HTTP/"[: len(line)]:
                raise NotHTTP("no status line") from None
        except http.client.LineTooLong:
            raise NotHTTP("a line without end") from None
        else:
            if not version.startswith(("HTTP/1.", "HTTP/0.9")):
                raise NotHTTP("another version of it")
            return version, status, reason
        raise CutHead("cut in its first line")

    def _skip_headers(self, skipped: int) -> int:
        """Skip the headers of an interim answer; returns the bytes skipped until now."""
        while True:
            line = self.fp.readline(_MOST_BYTES + 1)
            skipped += len(line)
            if skipped > _MOST_BYTES:
                raise UnclearHead("interim answers without end")
            if line in _BLANK:
                return skipped
            if not line.endswith(b"\n"):
                raise CutHead("cut in an interim answer")

    def begin(self) -> None:
        """Read the head.

        Raises:
            http.client.RemoteDisconnected: the connection ended before any byte.
            CutHead: it was cut off.
            NotHTTP: there is none.
            UnclearHead: it does not say where the body ends, or twice.
        """
        fp = self.fp
        lines = _Lines(fp)
        self.fp = lines  # type: ignore[assignment]
        super().begin()
        self.fp = fp
        if lines.last not in _BLANK:  # http.client takes the end for a blank line
            raise CutHead("cut in its headers")
        if lines.odd or any(isinstance(defect, _NO_HEADER) for defect in self.headers.defects):
            # http.client has dropped that line and all that follow, or made two of it.
            raise NotHTTP("a line among the headers is none")
        codings = [c for c in self._values("transfer-encoding") if c != "identity"]
        lengths = self._values("content-length")
        if codings:
            if any(coding != "chunked" for coding in codings):
                raise UnclearHead("a transfer coding nobody asked for")
            self.chunked = True
            self.chunk_left = None
            self.length = None
            if lengths or len(codings) > 1:
                self.will_close = True  # by the other framing, what follows is no new answer
        elif lengths:
            self._check_length(lengths)

    def _check_length(self, lengths: List[str]) -> None:
        if not all(text.isascii() and text.isdigit() and len(text) < 19 for text in lengths):
            raise UnclearHead("a Content-Length that is no number")
        values = {int(text) for text in lengths}
        if len(values) > 1:
            raise UnclearHead("Content-Lengths that differ")
        if self.length != 0:  # 0: an answer without a body, whatever its length says
            self.length = values.pop()

    def _values(self, name: str) -> List[str]:
        """The values of a header that is a list, in lower case."""
        found = self.headers.get_all(name) or []
        return [value.strip(" \t\r\n").lower() for line in found for value in line.split(",")]


class _Lines:
    """A reader that remembers the last line it gave, and whether one of them had a CR within.

    RFC 9112, section 2.2: that CR ends no line; http.client takes it for an end.
    """

    def __init__(self, reader: IO[bytes]) -> None:
        self._reader = reader
        self.last = b""
        self.odd = False

    def readline(self, limit: int = -1) -> bytes:
        self.last = line = self._reader.readline(limit)
        self.odd = self.odd or b"\r" in line[:-2]
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)
