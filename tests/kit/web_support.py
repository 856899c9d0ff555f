"""What the tests of the HTTP endpoint share: apps on a socket, and a plain reader of SSE."""

from __future__ import annotations

import contextlib
import http.client
import json
import urllib.parse
from typing import Any, Iterator, List, NamedTuple, Optional

from agentstream import EventStream, Runtime
from agentstream.web import create_app
from agentstream.web.server import Server, listen

TOKEN = "a-token-MARKEDKEY-for-tests"


class Sent(NamedTuple):
    """One block of an event stream: an event, or what is none (then `data` is None)."""

    event: Optional[str]
    id: Optional[str]
    data: Any
    retry: Optional[str]
    comment: Optional[str]


class SSE:
    """One GET of an event stream over a socket of its own."""

    def __init__(
        self,
        url: str,
        path: str,
        *,
        after: Any = None,
        token: Optional[str] = None,
        http10: bool = False,
        timeout: float = 10.0,
        **headers: str,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        self.connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port, timeout=timeout
        )
        if http10:
            self.connection._http_vsn = 10  # type: ignore[attr-defined]
            self.connection._http_vsn_str = "HTTP/1.0"  # type: ignore[attr-defined]
        if after is not None:
            headers["Last-Event-ID"] = str(after)
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self.connection.request("GET", parts.path.rstrip("/") + path, headers=headers)
        self.sock = self.connection.sock  # http.client lets go of it before a body without length
        self.response = self.connection.getresponse()
        self.status = self.response.status

    def block(self) -> Optional[Sent]:
        """The next block, or None at the stream's end."""
        fields: dict = {}
        data: List[str] = []
        while True:
            line = self.response.readline().decode()
            if not line:
                return None
            name, _, value = line.rstrip("\n").partition(":")
            value = value[1:] if value.startswith(" ") else value
            if line == "\n":
                break
            if name == "data":
                data.append(value)
            else:
                fields[name or "comment"] = value
        text = "\n".join(data)
        return Sent(
            fields.get("event"),
            fields.get("id"),
            json.loads(text) if data else None,
            fields.get("retry"),
            fields.get("comment"),
        )

    def blocks(self) -> Iterator[Sent]:
        while True:
            block = self.block()
            if block is None:
                return
            yield block

    def event(self) -> Sent:
        """The next event; fails the test if there is none."""
        for block in self.blocks():
            if block.data is not None:
                return block
        raise AssertionError("the stream has ended")

    def events(self) -> List[Sent]:
        """All events up to the stream's end."""
        return [block for block in self.blocks() if block.data is not None]

    def ids(self) -> List[int]:
        return [int(sent.id) for sent in self.events() if sent.id is not None]

    def text(self) -> str:
        return self.response.read().decode()

    def close(self) -> None:
        self.response.close()
        self.connection.close()
        if self.sock is not None:
            self.sock.close()

    def __enter__(self) -> SSE:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Site(NamedTuple):
    """A served app."""

    url: str
    app: Any
    events: EventStream
    runtime: Any
    server: Any


@contextlib.contextmanager
def site(
    source: Any = None,
    token: Optional[str] = None,
    *,
    port: int = 0,
    cut_after: float = 10.0,
    **settings: Any,
) -> Iterator[Site]:
    """An app under waitress, as `agentstream serve` runs it; of a new Runtime by default."""
    settings.setdefault("max_streams", 8)
    runtime = Runtime() if source is None else source
    app = create_app(runtime, token, **settings)
    events = runtime.event_stream if isinstance(runtime, Runtime) else EventStream(runtime)
    try:
        with Server(app, listen("127.0.0.1", port, cut_after=cut_after)) as server:
            yield Site(server.url, app, events, runtime, server)
    finally:
        if source is None:
            runtime.shutdown(cancel=True)


def chunks(events: EventStream, run: str, count: int, text: str = "x") -> None:
    """Append `count` chunks to a run."""
    for _ in range(count):
        events.append("agent_llm_stream_chunk", run, {"agent": "a", "step": "0", "chunk": text})


def finish(events: EventStream, run: str) -> None:
    events.append("workflow_completed", run, {})
