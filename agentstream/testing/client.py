"""ScriptedClient: a model that says what a test wrote, for tests that want no socket."""

from __future__ import annotations

import re
import threading
from collections import deque
from typing import Callable, Deque, Iterator, List, Optional, Sequence, Union

from agentstream.cancel import CancelToken
from agentstream.errors import Cancelled
from agentstream.llm.clients import ChatClient
from agentstream.llm.messages import ChatRequest, Delta, ToolCallDelta
from agentstream.results import ToolCall, Usage

__all__ = ["ScriptedClient"]

#: A piece of a reply: text, a delta, a tool call, an exception to raise, or a
#: function to call (to wait on an event, say).
Piece = Union[str, Delta, ToolCall, BaseException, Callable[[], object]]
Reply = Union[Piece, Sequence[Piece]]


class ScriptedClient(ChatClient):
    """Answers each request with the next reply of a script.

    Args:
        replies: one for each request, in order.  A text is streamed word by
            word; a list is streamed piece by piece: text, `Delta`, `ToolCall`,
            an exception to raise, a function to call.
        model: what it calls itself.

    Attributes:
        requests: the `ChatRequest`s it got.
    """

    provider = "scripted"

    def __init__(self, *replies: Reply, model: str = "scripted") -> None:
        self.model = model
        self.requests: List[ChatRequest] = []
        self._replies: Deque[Reply] = deque(replies)
        self._lock = threading.Lock()

    def reply(self, *pieces: Piece) -> None:
        """Add a reply to the script."""
        self._replies.append(pieces)

    def stream_deltas(
        self, request: ChatRequest, *, cancel: Optional[CancelToken] = None
    ) -> Iterator[Delta]:
        """See `ChatClient.stream_deltas`.

        Raises:
            AssertionError: the script has no reply left.
        """
        with self._lock:
            self.requests.append(request)
            number = len(self.requests)
            if not self._replies:
                raise AssertionError(f"the script has no reply for request {number}")
            reply = self._replies.popleft()
        return _play(_pieces(reply), cancel or CancelToken(), self.model)


def _pieces(reply: Reply) -> Sequence[Piece]:
    if isinstance(reply, str):
        return re.findall(r"\s*\S+\s*$|\s*\S+", reply) or [reply]
    if isinstance(reply, (list, tuple)) and not isinstance(reply, (Delta, ToolCall)):
        return reply
    return [reply]  # type: ignore[list-item]


def _play(pieces: Sequence[Piece], cancel: CancelToken, model: str) -> Iterator[Delta]:
    calls = 0
    texts = 0
    ended = False
    for piece in pieces:
        if cancel.cancelled:
            raise Cancelled(f"the call was stopped: {cancel.reason}", phase="stream")
        if isinstance(piece, BaseException):
            raise piece
        if isinstance(piece, Delta):
            ended = ended or piece.finish_reason is not None
            yield piece
        elif isinstance(piece, ToolCall):
            yield Delta(tool_calls=(ToolCallDelta(calls, *piece),))
            calls += 1
        elif isinstance(piece, str):
            texts += 1
            yield Delta(piece)
        else:
            piece()
    if cancel.cancelled:
        raise Cancelled(f"the call was stopped: {cancel.reason}", phase="stream")
    if not ended:
        reason = "tool_calls" if calls else "stop"
        yield Delta(finish_reason=reason, usage=Usage(0, texts, texts), model=model)
