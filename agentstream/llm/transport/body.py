"""The bytes of an HTTP body, as many at once as are there.

http.client hands out one chunk of a chunked body a call, by way of several
layers; that is most of what reading a token would cost.  This takes what the
socket has and undoes the framing (RFC 9112, sections 6 and 7) in one pass.  The
socket, its buffer and its release stay http.client's and urllib3's.
"""

from __future__ import annotations

import http.client
from typing import Any, Callable, List, Optional

__all__ = ["READ", "open_body"]

#: As much as one read takes at most.
READ = 65536
#: A chunk's header, or the trailers, may be this long.
_MOST_HEADER = 65536


def open_body(raw: Any, amount: int = READ) -> Callable[[], bytes]:
    """A function that reads what is there of a urllib3 response; b"" at the body's end.

    What it returns was all sent before any error it raises.  At the end, the
    connection goes back to its pool.

    Raises (the function):
        http.client.IncompleteRead: the body ended before its framing said so.
        http.client.HTTPException, OSError, urllib3's errors: the connection broke.
    """
    body = getattr(raw, "_fp", None)
    if isinstance(body, http.client.HTTPResponse) and body.fp is not None:
        if body.chunked:
            return _Chunked(raw, body, amount).read
        return _Plain(raw, body, amount).read
    read1 = raw.read1  # not http.client's: a stand-in of somebody's tests

    def read() -> bytes:
        return read1(amount, decode_content=False) or b""

    return read


class _Body:
    """What both framings share."""

    def __init__(self, raw: Any, body: http.client.HTTPResponse, amount: int) -> None:
        self._raw = raw
        self._body = body
        self._amount = amount
        self._read1: Callable[[int], bytes] = body.fp.read1
        self._over = False

    def _finish(self, clean: bool) -> None:
        """The body is over; `clean` if nothing follows it."""
        self._over = True
        if not clean:
            self._body.will_close = True
            self._raw.close()
            return
        self._body.close()  # the response's half; the socket is the connection's
        self._raw.release_conn()


class _Plain(_Body):
    """A body with a length, or one that ends with the connection."""

    def __init__(self, raw: Any, body: http.client.HTTPResponse, amount: int) -> None:
        super().__init__(raw, body, amount)
        self._left: Optional[int] = body.length
        if self._left == 0:
            self._finish(True)

    def read(self) -> bytes:
        if self._over:
            return b""
        left = self._left
        data = self._read1(self._amount if left is None else min(self._amount, left))
        if left is not None:
            if not data:
                raise http.client.IncompleteRead(b"", left)
            self._left = left - len(data)
            if self._left == 0:
                self._finish(True)
        elif not data:
            self._finish(True)
        return data


class _Chunked(_Body):
    """A chunked body."""

    def __init__(self, raw: Any, body: http.client.HTTPResponse, amount: int) -> None:
        super().__init__(raw, body, amount)
        self._left = 0  # what is still to come of a chunk, its CRLF included
        self._rest = b""  # the beginning of a header
        self._in_trailers = False
        self._problem: Optional[http.client.HTTPException] = None

    def read(self) -> bytes:
        while not self._over:
            if self._problem is not None:
                raise self._problem
            data = self._read1(self._amount)
            if not data:
                raise http.client.IncompleteRead(b"")
            if self._rest:
                data = self._rest + data
                self._rest = b""
            elif not self._left and not self._in_trailers:
                # Just one chunk, whole: what a token looks like when it comes.
                end = data.find(b"\r\n", 0, 18)
                if end > 0 and data[:end].isalnum() and data[-2:] == b"\r\n":
                    try:
                        if len(data) - end - 4 == int(data[:end], 16) > 0:
                            return data[end + 2 : -2]
                    except ValueError:
                        pass  # `_cut` will say so
            found: List[bytes] = []
            try:
                self._cut(data, found)
            except ValueError:
                self._problem = http.client.HTTPException("a chunk's header cannot be read")
            if found:
                return found[0] if len(found) == 1 else b"".join(found)
        return b""

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
            elif self._in_trailers:
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
                    self._in_trailers = True
        self._left = left

    def _trailer(self, data: bytes, position: int) -> int:
        """Skip one trailer line; -1 where the data, or the body, ends."""
        end = data.find(b"\r\n", position)
        if end < 0:
            self._keep(data[position:])
            return -1
        if end > position:
            return end + 2
        self._finish(clean=end + 2 == len(data))
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
