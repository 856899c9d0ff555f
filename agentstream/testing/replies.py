"""A reply: its head, the framings of its body, and the order in which both are played."""

from __future__ import annotations

import json
import zlib
from http import HTTPStatus
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple, Type, Union

from agentstream.testing.actions import Drip, Framing, Piece, Raw, Stage, as_actions
from agentstream.testing.link import Link
from agentstream.testing.pieces import text_chunks, tool_call_chunks
from agentstream.testing.request import Request

__all__ = ["Reply"]


class _Close(Framing):
    fields = ("Connection: close",)


class _Http10(Framing):
    version = "HTTP/1.0"


class _Chunked(Framing):
    fields: Tuple[str, ...] = ("Transfer-Encoding: chunked",)
    keep_alive = True

    def piece(self, data: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(data), data)

    def end(self) -> bytes:
        return b"0\r\n\r\n"


class _Gzip(_Chunked):
    fields = ("Transfer-Encoding: chunked", "Content-Encoding: gzip")

    def __init__(self, length: int = 0) -> None:
        super().__init__(length)
        self._compressor = zlib.compressobj(wbits=31)

    def piece(self, data: bytes) -> bytes:
        compressor = self._compressor
        return super().piece(compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))

    def end(self) -> bytes:
        return super().piece(self._compressor.flush()) + super().end()


class _Length(Framing):
    def __init__(self, length: int = 0) -> None:
        super().__init__(length)
        self.fields = (f"Content-Length: {length}",)
        self.missing = length
        self.keep_alive = not length

    def piece(self, data: bytes) -> bytes:
        self.missing -= len(data)
        self.keep_alive = not self.missing
        return data


class _OneChunk(_Length):
    def __init__(self, length: int = 0) -> None:
        super().__init__(length)
        self.fields = ("Transfer-Encoding: chunked",)

    def start(self) -> bytes:
        return b"%x\r\n" % self.length if self.length else b""

    def end(self) -> bytes:
        if self.missing:
            return b""
        return b"\r\n0\r\n\r\n" if self.length else b"0\r\n\r\n"


_FRAMINGS: Dict[str, Type[Framing]] = {
    "chunked": _Chunked,
    "close": _Close,
    "gzip": _Gzip,
    "http10": _Http10,
    "length": _Length,
    "one-chunk": _OneChunk,
    "raw": Framing,
}


class Reply:
    """One scripted answer.

    Pieces are bytes or str (each one sendall) and actions.  `framing` is one of
    "chunked" (a chunk a piece), "gzip" (chunked and compressed, flushed after each
    piece), "one-chunk", "length", "close", "http10" and "raw": no head at all, the
    pieces are the whole answer.  `length` is what Content-Length, or the one chunk's
    header, shall say instead of the pieces' total.  Fields in `headers` take the
    place of ours of the same name.  `before_headers` are pieces for the wire before
    the head.  `headers_every` drips the head, a byte each so many seconds.

    Raises ValueError for an unknown framing, TypeError for a piece that is none.
    """

    def __init__(
        self,
        *pieces: Piece,
        status: int = 200,
        reason: Optional[str] = None,
        headers: Union[Mapping[str, str], Iterable[Tuple[str, str]]] = (),
        content_type: Optional[str] = "text/event-stream",
        framing: str = "chunked",
        length: Optional[int] = None,
        before_headers: Iterable[Piece] = (),
        headers_every: float = 0.0,
    ) -> None:
        if framing not in _FRAMINGS:
            raise ValueError(f"framing is one of {', '.join(_FRAMINGS)}; not {framing!r}")
        self.actions = as_actions(pieces)
        self.status = status
        self.reason = _phrase(status) if reason is None else reason
        self.headers = list(headers.items() if isinstance(headers, Mapping) else headers)
        self.content_type = content_type
        self.framing = framing
        self.length = sum(len(action.body) for action in self.actions) if length is None else length
        self.before_headers = as_actions(before_headers)
        self.headers_every = headers_every

    @classmethod
    def text(cls, *texts: str, **options: Any) -> Reply:
        """A chat-completions stream of these texts; options of `text_chunks` and of `Reply`."""
        chunk_options, rest = _split(options)
        return cls(*text_chunks(*texts, **chunk_options), **rest)

    @classmethod
    def tool_calls(cls, *calls: Tuple[str, Union[str, Mapping[str, Any]]], **options: Any) -> Reply:
        """The same for tool calls, each `(name, arguments)`."""
        chunk_options, rest = _split(options)
        return cls(*tool_call_chunks(*calls, **chunk_options), **rest)

    @classmethod
    def json(cls, value: object, **options: Any) -> Reply:
        """A JSON body with its Content-Length."""
        options.setdefault("content_type", "application/json")
        options.setdefault("framing", "length")
        return cls(json.dumps(value), **options)

    def play(self, request: Request, link: Link) -> bool:
        """Answer the request.  Returns True if the connection serves on, raises ScriptEnded."""
        stage = Stage(link)
        for action in self.before_headers:
            action.play(stage)
        framing = stage.framing = _FRAMINGS[self.framing](self.length)
        bodiless = request.method == "HEAD" or self.status in (204, 304)
        persistent = request.version == "HTTP/1.1" and not _says_close(request.headers.pairs)
        if self.framing != "raw":
            head = Raw(self._head(framing, persistent))
            (Drip(head, 1, self.headers_every) if self.headers_every else head).play(stage)
        if bodiless:
            return persistent
        stage.write(framing.start())
        for action in self.actions:
            action.play(stage)
        stage.write(framing.end())
        return persistent and framing.keep_alive and not _says_close(self.headers)

    def _head(self, framing: Framing, persistent: bool) -> bytes:
        fields = list(framing.fields) if self.status not in (204, 304) else []
        if self.content_type is not None:
            fields.insert(0, f"Content-Type: {self.content_type}")
        if not persistent and "Connection: close" not in fields:
            fields.append("Connection: close")
        own = {name.lower() for name, _ in self.headers}
        fields = [field for field in fields if field.partition(":")[0].lower() not in own]
        fields += [f"{name}: {value}" for name, value in self.headers]
        lines = [f"{framing.version} {self.status} {self.reason}", *fields]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _split(options: Dict[str, Any]) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    names = {"finish_reason", "usage", "done", "model"}
    ours = {name: value for name, value in options.items() if name in names}
    return ours, {name: value for name, value in options.items() if name not in names}


def _says_close(pairs: List[Tuple[str, str]]) -> bool:
    return any(name.lower() == "connection" and value.lower() == "close" for name, value in pairs)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
