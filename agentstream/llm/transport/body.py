"""The bytes of an HTTP body, as many at once as are there.

http.client hands out one chunk of a chunked body a call, by way of several
layers; that is most of what reading a token would cost.  This takes what the
socket has and undoes the framing (RFC 9112, sections 6 and 7) in one pass.  The
socket, its buffer and its release stay http.client's and urllib3's.
"""

from __future__ import annotations

import http.client
import io
from typing import Any, Callable, List, Optional, Protocol

from agentstream.llm.transport.poll import has_bytes

__all__ = ["READ", "Body", "open_body"]

#: As much as one read takes at most.
READ = 65536
#: A chunk's header, or the trailers, may be this long.
_MOST_HEADER = 65536


def open_body(raw: Any, amount: int = READ) -> Body:
    """The body of a urllib3 response, which is read through this from now on.

    `amount` is what one read takes at most.
    """
    body = getattr(raw, "_fp", None)
    if isinstance(body, http.client.HTTPResponse) and body.fp is not None:
        kind = _Chunked if body.chunked else _Plain
        return kind(raw, body, amount)
    return _StandIn(raw, amount)


class Body(Protocol):
    """A body that is read as it comes.

    Attributes:
        over: all of it has been read.
        reader: what it is read from, and the connection's bytes after it; None
            where there is none.
    """

    over: bool
    reader: Optional[io.BufferedReader]

    def read(self) -> bytes:
        """What is there of it, waiting for the first byte; b"" at the body's end.

        What it returns was all sent before any error it raises.  At the end, the
        connection goes back to its pool, unless something is left over in it.

        Raises:
            http.client.IncompleteRead: the body ended before its framing said so.
            http.client.HTTPException, OSError, urllib3's errors: the connection broke.
        """

    def skip(self) -> int:
        """Take what `reader` holds, at least a byte; returns how many bytes were taken.

        Raises:
            As `read`.
        """


class _StandIn:
    """A body that is not http.client's: somebody's tests have made it."""

    def __init__(self, raw: Any, amount: int) -> None:
        self.over = False
        self.reader: Optional[io.BufferedReader] = None
        self._read1 = raw.read1
        self._amount = amount

    def read(self) -> bytes:
        return self._read1(self._amount, decode_content=False) or b""

    def skip(self) -> int:
        return len(self.read())


class _Framed:
    """What both framings share."""

    def __init__(self, raw: Any, body: http.client.HTTPResponse, amount: int) -> None:
        self.over = False
        self.reader: Optional[io.BufferedReader] = body.fp
        self._raw = raw
        self._body = body
        self._amount = amount
        self._read1: Callable[[int], bytes] = body.fp.read1

    def _finish(self, *, left_over: bool = False) -> None:
        """The body is over: its connection serves again if nothing came after it."""
        self.over = True
        if left_over or self._something_follows():
            self._body.will_close = True
            self._raw.close()
            return
        self._body.close()  # the response's half; the socket is the connection's
        self._raw.release_conn()

    def _something_follows(self) -> bool:
        """True if bytes are waiting after the body: in the buffer, in TLS, in the socket.

        They would be read as the next request's answer.
        """
        sock = getattr(getattr(self._raw, "connection", None), "sock", None)
        if sock is None:
            return False  # it ends with its connection: there is none to give back
        try:
            return has_bytes(self._body.fp, sock) is not False
        except (OSError, ValueError):  # broken, or shut this moment by a cancel
            return True


class _Plain(_Framed):
    """A body with a length, or one that ends with the connection."""

    def __init__(self, raw: Any, body: http.client.HTTPResponse, amount: int) -> None:
        super().__init__(raw, body, amount)
        self._left: Optional[int] = body.length
        if self._left == 0:
            self._finish()

    def read(self) -> bytes:
        if self.over:
            return b""
        left = self._left
        data = self._read1(self._amount if left is None else min(self._amount, left))
        if left is not None:
            if not data:
                raise http.client.IncompleteRead(b"", left)
            self._left = left - len(data)
            if self._left == 0:
                self._finish()
        elif not data:
            self._finish()
        return data

    def skip(self) -> int:
        return len(self.read())


class _Chunked(_Framed):
    """A chunked body."""

    def __init__(self, raw: Any, body: http.client.HTTPResponse, amount: int) -> None:
        super().__init__(raw, body, amount)
        self._left = 0  # what is still to come of a chunk, its CRLF included
        self._rest = b""  # the beginning of a header
        self._trailers = -1  # bytes of them; -1 before the last chunk
        self._problem: Optional[http.client.HTTPException] = None

    def read(self) -> bytes:
        while not self.over:
            if self._problem is not None:
                raise self._problem
            data = self._read1(self._amount)
            if not data:
                raise http.client.IncompleteRead(b"")
            if self._rest:
                data = self._rest + data
                self._rest = b""
            elif not self._left and self._trailers < 0:
                # Just one chunk, whole: what a token looks like when it comes.
                end = data.find(b"\r\n", 0, 18)
                if end > 0 and data[:end].isalnum() and data[-2:] == b"\r\n":
                    try:
                        if len(data) - end - 4 == int(data[:end], 16) > 0:
                            return data[end + 2 : -2]
                    except ValueError:
                        pass  # `_cut` will say so
            found: List[bytes] = []
            self._take(data, found)
            if found:
                return found[0] if len(found) == 1 else b"".join(found)
        return b""

    def skip(self) -> int:
        if self._problem is not None:
            raise self._problem
        data = self._read1(self._amount)
        self._take(self._rest + data, [])
        return len(data)

    def _take(self, data: bytes, found: List[bytes]) -> None:
        self._rest = b""
        try:
            self._cut(data, found)
        except ValueError:
            self._problem = http.client.HTTPException("a chunk's header cannot be read")

    def _cut(self, data: bytes, found: List[bytes]) -> None:
        """Take the chunks' contents out of `data`; what is no whole header waits in `_rest`."""
        position = 0
        length = len(data)
        left = self._left
        while position < length:
            if left > 2:
                piece = data[position : position + left - 2]
                found.append(piece)
                position += len(piece)
                left -= len(piece)
            elif left:
                took = min(left, length - position)  # the CRLF after a chunk
                if data[position : position + took] != b"\r\n"[2 - left : 2 - left + took]:
                    self._left = left
                    raise ValueError
                position += took
                left -= took
            elif self._trailers >= 0:
                position = self._trailer(data, position)
                if position < 0:
                    break
            else:
                end = data.find(b"\r\n", position)
                if end < 0:
                    self._keep(data[position:])
                    break
                size = _size(data[position:end])
                position = end + 2
                if size:
                    left = size + 2
                else:
                    self._trailers = 0
        self._left = left

    def _trailer(self, data: bytes, position: int) -> int:
        """Skip one trailer line; -1 where the data, or the body, ends."""
        end = data.find(b"\r\n", position)
        if end < 0:
            self._keep(data[position:])
            return -1
        if end > position:
            self._trailers += end + 2 - position
            if self._trailers > _MOST_HEADER:
                raise ValueError
            return end + 2
        self._finish(left_over=end + 2 != len(data))
        return -1

    def _keep(self, rest: bytes) -> None:
        if len(rest) > _MOST_HEADER:
            raise ValueError
        self._rest = rest


def _size(header: bytes) -> int:
    """A chunk's size; an extension after ";" is ignored."""
    digits = header.partition(b";")[0].strip(b" \t")
    if not digits or len(digits) > 16 or not digits.isalnum():
        raise ValueError
    return int(digits, 16)
