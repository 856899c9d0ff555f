"""StreamResponse: a Response whose `iter_lines` is prompt, and right in every framing."""

from __future__ import annotations

import zlib
from typing import Callable, Iterator, List, Optional, Tuple

import requests

from agentstream.errors import AgentStreamError, LimitExceeded, ProtocolError
from agentstream.llm.settings import Limits
from agentstream.llm.transport.body import READ, Body, open_body
from agentstream.llm.transport.problems import LOW_LEVEL

__all__ = ["StreamResponse"]

#: How a gzip member begins.
_MAGIC = b"\x1f\x8b"
#: Of a compressed body, less: a KiB inflates to a MiB at most.
_READ_COMPRESSED = 1024


class StreamResponse(requests.Response):
    """A response whose `iter_lines` yields every line the moment it arrives.

    Attributes:
        limits: what bounds a line and a decompressed body.
        watch: wraps the function that reads, which may block; the clocks go there.
        progress: called after a read that brought bytes of a data line; a
            comment is no sign of life.
    """

    def __init__(self) -> None:
        super().__init__()
        self.limits = Limits()
        self.watch: Optional[Callable[[Callable[[], bytes]], Callable[[], bytes]]] = None
        self.progress: Optional[Callable[[], object]] = None
        #: The body, still compressed; None until somebody reads it.
        self.body: Optional[Body] = None

    def iter_lines(  # type: ignore[override]
        self,
        chunk_size: Optional[int] = None,
        decode_unicode: bool = False,
        delimiter: Optional[bytes] = None,
    ) -> Iterator[bytes]:
        """Yield the body's lines as bytes, without their line ends (LF, CRLF or CR).

        Every byte that arrived before an error is given out before the error is
        raised; a last line without a line end is given out too, unless an error
        cut it.  `chunk_size` is ignored: as much is read as is there.

        Raises:
            LimitExceeded: a line passed `limits.line`, or the body `limits.decompressed`.
            ValueError: `decode_unicode` or `delimiter` is set; a line of an event
                stream is bytes and ends where the standard says.
        """
        if decode_unicode or delimiter is not None:
            raise ValueError("iter_lines() of an event stream yields bytes and has no delimiter")
        return self._lines()

    def _lines(self) -> Iterator[bytes]:
        read = self._reader()
        pending: List[bytes] = []  # the pieces of the line that has no end yet
        size = 0
        head = b""  # how that line begins, four bytes of it
        after_cr = False  # a CR ended the last piece; an LF now belongs to it
        while True:
            data = read()
            if not data:
                break
            if b"\r" in data or after_cr:
                data, after_cr = _normalise(data, after_cr)
                if not data:
                    continue
            lines = data.split(b"\n")
            if self.progress is not None and _shows_life(lines, head):
                self.progress()
            if len(lines) == 1:
                if len(head) < 4:
                    head = (head + data)[:4]
                pending.append(data)
                size += len(data)
                self._check_line(size)
                continue
            if pending:
                pending.append(lines[0])
                lines[0] = b"".join(pending)
                pending = []
            rest = lines.pop()
            if self.limits.line is not None and len(data) + size > self.limits.line:
                for line in lines:
                    self._check_line(len(line))
                    yield line
            else:
                yield from lines
            size = len(rest)
            head = rest[:4]
            if rest:
                pending.append(rest)
        if pending:
            yield b"".join(pending)

    def _check_line(self, size: int) -> None:
        if self.limits.line is not None and size > self.limits.line:
            raise LimitExceeded(
                f"a line passed {self.limits.line} bytes (Limits.line)",
                limit="line",
                phase="stream",
            )

    def _reader(self) -> Callable[[], bytes]:
        """A function that reads what is there, decompressed; b"" at the end."""
        encoding = self.headers.get("content-encoding", "").strip().lower()
        amount = _READ_COMPRESSED if encoding not in ("", "identity") else READ
        self.body = open_body(self.raw, amount)
        read = self.body.read
        if self.watch is not None:
            read = self.watch(read)
        if amount == READ:
            return read
        if encoding not in ("gzip", "x-gzip", "deflate"):
            return lambda: self._refuse(read(), encoding)
        return _Inflater(read, self.limits.decompressed).read

    def _refuse(self, data: bytes, encoding: str) -> bytes:
        if not data:
            return b""  # no body at all: the headers were cut off, in this very line perhaps
        raise ProtocolError(
            f"the server compressed the answer ({encoding[:40]!r}) though asked not to",
            content_type=self.headers.get("content-type"),
            phase="headers",
        )

    def pieces(self) -> Iterator[bytes]:
        """Yield the body, decompressed, as it comes.

        Raises:
            LimitExceeded: it passed `limits.decompressed`.
            ProtocolError: it is compressed in a way that was not asked for, or damaged.
        """
        return iter(self._reader(), b"")

    def read_text(self, limit: int) -> str:
        """Up to `limit` bytes of the body, as text; what cannot be read is left out."""
        pieces: List[bytes] = []
        size = 0
        try:
            read = self._reader()
            while size < limit:
                data = read()
                if not data:
                    break
                pieces.append(data)
                size += len(data)
        except (AgentStreamError, *LOW_LEVEL):
            pass
        return b"".join(pieces)[:limit].decode("utf-8", "replace")


def _normalise(data: bytes, after_cr: bool) -> Tuple[bytes, bool]:
    """Make every line end an LF; tells whether `data` ended in a CR."""
    if after_cr and data[:1] == b"\n":
        data = data[1:]
    ends_in_cr = data[-1:] == b"\r"
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n"), ends_in_cr


def _shows_life(lines: List[bytes], head: bytes) -> bool:
    """True if `lines`, which a read brought, hold bytes of a data line, of SSE or of NDJSON.

    `head` is how the line begins that the first of them goes on with.
    """
    begins = (head + lines[0][:4])[:4]
    if begins == b"data":
        return bool(lines[0])
    if lines[0] and _is_data(begins):
        return True
    return any(_is_data(line[:4]) for line in lines[1:])


def _is_data(begins: bytes) -> bool:
    """True if a line that begins so holds data: an SSE field `data`, or a JSON object."""
    return bool(begins) and (b"data".startswith(begins) or begins[:1] == b"{")


class _Inflater:
    """Inflates gzip or deflate as it comes, in bounded steps.

    Further gzip members belong to the body; what else follows is padding, and
    skipped (RFC 1952, 2.2; as gzip(1) does).
    """

    def __init__(self, read: Callable[[], bytes], limit: Optional[int]) -> None:
        self._read = read
        self._limit = limit
        self._total = 0
        self._tail = b""
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._first = True
        self._gzip = False
        self._padding = False

    def read(self) -> bytes:
        while True:
            packed = self._tail or self._read()
            if not packed:
                return b""
            data = self._begin_member(packed) if self._inflate.eof else self._step(packed)
            self._total += len(data) or self._padding * len(packed)
            if self._limit is not None and self._total > self._limit:
                raise LimitExceeded(
                    f"the body inflated past {self._limit} bytes (Limits.decompressed)",
                    limit="decompressed",
                    phase="stream",
                )
            if data:
                return data

    def _begin_member(self, packed: bytes) -> bytes:
        """After a member's end: another one, or padding."""
        self._tail = b""
        self._padding = self._padding or not self._gzip or packed[:2] not in (_MAGIC, _MAGIC[:1])
        if self._padding:
            return b""
        if len(packed) == 1:  # half of what decides
            packed += self._read()
            if packed[:2] != _MAGIC:
                self._padding = True
                return b""
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
        return self._step(packed)

    def _step(self, packed: bytes) -> bytes:
        if self._first:
            self._gzip = packed[:1] == _MAGIC[:1]
        data = self._decompress(packed)
        self._tail = self._inflate.unconsumed_tail or self._inflate.unused_data
        return data

    def _decompress(self, packed: bytes) -> bytes:
        first, self._first = self._first, False
        try:
            return self._inflate.decompress(packed, READ)
        except zlib.error:
            if first:  # "deflate" as many servers mean it: without the zlib header
                self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
                try:
                    return self._inflate.decompress(packed, READ)
                except zlib.error:
                    pass
            raise ProtocolError("the compressed body is damaged", phase="stream") from None
