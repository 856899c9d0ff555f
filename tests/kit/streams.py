"""Plays recorded bodies through a client's whole path but the socket, cut as a test likes."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Optional, Tuple

from agentstream.errors import AgentStreamError
from agentstream.llm.chat.dialect import ChatDialect, ChatTraits
from agentstream.llm.clients import HTTPClient, LlamaClient
from agentstream.llm.messages import ChatMessage, ChatRequest, Delta, as_request
from agentstream.llm.secrets import Redactor
from agentstream.llm.transport.response import StreamResponse


class Pieces:
    """A body that arrives in the given pieces, one a read, as urllib3's response gives it."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def read1(self, amount: int = -1, decode_content: bool = False) -> bytes:
        data = self._rest or next(self._pieces, b"")
        if 0 <= amount < len(data):
            self._rest = data[amount:]
            return data[:amount]
        self._rest = b""
        return data

    def close(self) -> None:
        self._pieces = iter(())


def response_of(pieces: Iterable[bytes], headers: Optional[dict] = None, status: int = 200) -> Any:
    response = StreamResponse()
    response.status_code = status
    response.headers.update({"content-type": "text/event-stream", **(headers or {})})
    response.raw = Pieces(pieces)
    return response


class PlayingClient(LlamaClient):
    """A LlamaClient whose server is a list of pieces."""

    def __init__(self, pieces: Iterable[bytes], **settings: Any) -> None:
        super().__init__("http://127.0.0.1:1", **settings)
        self._transport._send = lambda *_: response_of(pieces)  # type: ignore[method-assign]


def play(
    pieces: Iterable[bytes], client: Optional[HTTPClient] = None, **settings: Any
) -> Tuple[List[Delta], Any, Optional[AgentStreamError]]:
    """All deltas, the response, and the error that ended the stream if one did.

    Args:
        client: whose server the pieces take the place of; it is closed.  None for a
            LlamaClient with these settings.
    """
    if client is None:
        client = PlayingClient(pieces, **settings)
    try:
        return heard(client, pieces)
    finally:
        client.close()


def heard(
    client: HTTPClient, pieces: Iterable[bytes]
) -> Tuple[List[Delta], Any, Optional[AgentStreamError]]:
    """As `play`, of a client that stays open: thousands of answers are read in a second or two."""
    client._transport._send = lambda *_: response_of(pieces)  # type: ignore[method-assign]
    stream = client.stream_deltas(as_request("hi"))
    deltas: List[Delta] = []
    try:
        for delta in stream:
            deltas.append(delta)
    except AgentStreamError as error:
        return deltas, error.partial, error
    finally:
        stream.close()
    return deltas, stream.answer.response(), None


def cut(body: bytes, places: Iterable[int]) -> List[bytes]:
    """`body` cut at `places`."""
    edges = [0, *sorted(places), len(body)]
    return [body[a:b] for a, b in zip(edges, edges[1:]) if b > a]


def chat_dialect(body: Optional[Dict[str, Any]] = None) -> ChatDialect:
    """A chat completion's dialect whose request has these fields; it asks for no usage."""
    return ChatDialect(
        ChatRequest([ChatMessage.user("Hi")]),
        model="m",
        fields={"stream_options": None, **(body or {})},
        redact=Redactor(),
        traits=ChatTraits(),
    )
