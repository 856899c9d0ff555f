"""What the server heard: one HTTP request, read and kept.  No replies, no scripts."""

from __future__ import annotations

import json
import time
from typing import Any, Callable, Iterator, List, Mapping, Optional, Tuple

__all__ = ["Headers", "Request", "read_request"]


class Headers(Mapping[str, str]):
    """A request's header fields, in order; looked up without regard to case."""

    def __init__(self, pairs: List[Tuple[str, str]]) -> None:
        self.pairs = pairs

    def __repr__(self) -> str:  # names only: a value may be a key
        return f"<Headers {', '.join(self)}>"

    def __getitem__(self, name: str) -> str:
        for value in self.get_all(name):
            return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self.pairs))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def get_all(self, name: str) -> List[str]:
        """Every value of that name, in the order they came; empty if there is none."""
        return [value for key, value in self.pairs if key.lower() == name.lower()]


class Request:
    """One request.

    Attributes:
        method: "POST".
        path: the target as the client wrote it, with its query.
        version: "HTTP/1.1".
        headers: a `Headers`.
        body: bytes, a chunked body already put together.
        connection_id: counts the server's connections from 1.
        received: `time.monotonic()` when its last byte was read.
    """

    def __init__(
        self,
        *,
        method: str,
        path: str,
        version: str,
        headers: Headers,
        body: bytes,
        connection_id: int,
    ) -> None:
        self.method = method
        self.path = path
        self.version = version
        self.headers = headers
        self.body = body
        self.connection_id = connection_id
        self.received = time.monotonic()

    def __repr__(self) -> str:
        size = len(self.body)
        return f"<Request {self.method} {self.path}, {size} bytes, connection {self.connection_id}>"

    @property
    def json(self) -> Any:
        """The body as JSON; raises ValueError if it is none."""
        return json.loads(self.body)


def read_request(
    fill: Callable[[], bytes], buffer: bytearray, connection_id: int
) -> Optional[Request]:
    """Read the next request.

    `fill` returns more bytes, b"" at the end; `buffer` holds what was read too
    far and is left with what belongs to the next request.  Returns None if the
    connection ended before the first byte.  Raises ValueError for
    what is not an HTTP request, or ends in the middle of one.
    """
    head = _until(b"\r\n\r\n", fill, buffer)
    if head is None:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3:
        raise ValueError("not an HTTP request line")
    fields = [line.partition(":") for line in lines]
    headers = Headers([(name.strip(), value.strip()) for name, _, value in fields])
    if headers.get("Transfer-Encoding", "").lower() == "chunked":
        body = _chunked(fill, buffer)
    else:
        body = _exactly(int(headers.get("Content-Length", "0")), fill, buffer)
    return Request(
        method=words[0],
        path=words[1],
        version=words[2],
        headers=headers,
        body=body,
        connection_id=connection_id,
    )


def _until(mark: bytes, fill: Callable[[], bytes], buffer: bytearray) -> Optional[bytes]:
    while mark not in buffer:
        data = fill()
        if not data:
            if buffer:
                raise ValueError("the client left in the middle of a request")
            return None
        buffer += data
    found, _, rest = bytes(buffer).partition(mark)
    buffer[:] = rest
    return found


def _exactly(size: int, fill: Callable[[], bytes], buffer: bytearray) -> bytes:
    while len(buffer) < size:
        data = fill()
        if not data:
            raise ValueError("the client left in the middle of a request's body")
        buffer += data
    found = bytes(buffer[:size])
    del buffer[:size]
    return found


def _chunked(fill: Callable[[], bytes], buffer: bytearray) -> bytes:
    body = b""
    while True:
        line = _until(b"\r\n", fill, buffer) or b"0"
        size = int(line.partition(b";")[0], 16)
        if not size:
            while _until(b"\r\n", fill, buffer):  # trailers, then the empty line
                pass
            return body
        body += _exactly(size, fill, buffer)
        _exactly(2, fill, buffer)
