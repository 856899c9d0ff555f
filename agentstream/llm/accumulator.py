"""Accumulator: deltas adding up to a ChatResponse, with the clock on them."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, Mapping, Optional, Set, Tuple

from agentstream.llm.messages import Delta
from agentstream.results import ChatResponse, ToolCall, Usage

__all__ = ["Accumulator", "tokens_per_second"]

#: So many pieces at a time are made one: a million small str cost ten times their text.
_FOLD = 2048


def _fold(pieces: List[str], first: int) -> int:
    """Make one str of the oldest pieces from `first` on, if they are many; returns where they end.

    Their sum stays the same at every moment, for whoever looks from another thread.
    """
    if len(pieces) - first < 2 * _FOLD:
        return first
    pieces[first : first + _FOLD] = ["".join(pieces[first : first + _FOLD])]
    return first + 1


class Accumulator:
    """Deltas adding up to a `ChatResponse`, with the clock on them.

    One per call.  `add` is on the way of every chunk; `response` may be asked
    for at any time and from any thread.

    Args:
        model, provider: those that are asked.

    Attributes:
        provider: as given.
        started: when the call began, on `time.monotonic`'s scale.
    """

    __slots__ = (
        "_calls",
        "_content",
        "_cut",
        "_deltas",
        "_ended",
        "_extras",
        "_finish",
        "_first",
        "_folds",
        "_id",
        "_model",
        "_native_finish",
        "_others",
        "_reasoning",
        "_reasoning_at",
        "_state",
        "_usage",
        "_warnings",
        "provider",
        "started",
    )

    def __init__(self, model: str = "", provider: str = "") -> None:
        self.provider = provider
        self.started = time.monotonic()
        self._first: Optional[float] = None
        self._ended: Optional[float] = None
        self._content: List[str] = []  # older pieces folded, the newest as they came
        self._reasoning: List[str] = []
        self._folds = [0, 0]  # how many of each list are folded ones
        self._reasoning_at = -1  # how many texts there were when the last of it came
        self._calls: List[List[str]] = []  # [id, name, arguments, arguments, ...]
        self._extras: Dict[int, Mapping[str, Any]] = {}  # by the call's place
        self._finish: Optional[str] = None
        self._model = model
        self._usage: Optional[Usage] = None
        self._warnings: List[str] = []
        self._state: Optional[Mapping[str, Any]] = None
        self._deltas = 0  # with content
        self._others = 0  # with reasoning, or pieces of calls
        self._id = self._native_finish = ""
        self._cut: Set[int] = set()  # the places of calls that were cut

    def start(self) -> float:
        """Start the clock; returns the time."""
        self.started = time.monotonic()
        return self.started

    @property
    def begun(self) -> bool:
        """True once there was text, reasoning or a tool call."""
        return self._first is not None

    @property
    def finish_reason(self) -> Optional[str]:
        """The last one given."""
        return self._finish

    @property
    def usage(self) -> Optional[Usage]:
        """What the server has counted so far; None if nothing."""
        return self._usage

    @property
    def goes_on(self) -> bool:
        """See `ChatResponse.goes_on`."""
        return bool(self._state and self._state.get("goes_on"))

    @property
    def in_reasoning(self) -> bool:
        """True if the last words were reasoning, not content."""
        return self._reasoning_at == self._deltas

    def add(self, delta: Delta) -> None:
        """Take one delta in."""
        content, reasoning, tool_calls, finish_reason, usage, model, warnings, _, state = delta
        if content:
            if self._first is None:
                self._first = time.monotonic()
            self._content.append(content)
            self._deltas += 1
            if not self._deltas % _FOLD:
                self._folds[0] = _fold(self._content, self._folds[0])
        if reasoning or tool_calls or finish_reason or usage or model or warnings or state:
            self._add_rest(delta)

    def _add_rest(self, delta: Delta) -> None:
        _, reasoning, tool_calls, finish_reason, usage, model, warnings, _, state = delta
        if self._first is None and (reasoning or tool_calls):
            self._first = time.monotonic()
        if reasoning:
            self._reasoning.append(reasoning)
            self._folds[1] = _fold(self._reasoning, self._folds[1])
            self._reasoning_at = self._deltas
        if not delta[0] and (reasoning or any(not (p.replaces or p.cut) for p in tool_calls)):
            self._others += 1
        for piece in tool_calls:
            while len(self._calls) <= piece.place:
                self._calls.append(["", ""])
            call = self._calls[piece.place]
            call[0] = call[0] or piece.id
            call[1] = piece.name or call[1]
            if piece.replaces:
                call[2:] = [piece.arguments]
            elif piece.arguments:
                call.append(piece.arguments)
            if piece.cut:
                self._cut.add(piece.place)
            if piece.extra_content:
                self._extras[piece.place] = piece.extra_content
        if finish_reason:
            self._finish = finish_reason
            self._ended = time.monotonic()
        if usage is not None:
            self._usage = usage
        if model:
            self._model = model
        if warnings:
            self._warnings.extend(warnings)
        if state:
            self._state = state

    def warn(self, warning: str) -> None:
        """Note something odd."""
        self._warnings.append(warning)

    def identify(self, response_id: str, native_finish: str) -> None:
        """Note the server's id for the answer, and its own word for why that ended; "" for none."""
        self._id = response_id or self._id
        self._native_finish = native_finish or self._native_finish

    def end(self) -> None:
        """Stop the clock; calls that never got an id get one, for the reply that must name it."""
        if self._ended is None:
            self._ended = time.monotonic()
        for call in self._calls:
            call[0] = call[0] or f"call_{os.urandom(12).hex()}"

    def text(self) -> str:
        """The content so far."""
        return "".join(self._content)

    def texts(self) -> List[str]:
        """The same, in pieces; the last two thousand at least as they came."""
        return list(self._content)

    def forget_usage(self) -> None:
        """Count the deltas from here on, as if the server had given no usage."""
        self._usage = None

    def _tool_calls(self) -> Tuple[ToolCall, ...]:
        calls = tuple(ToolCall(c[0], c[1], "".join(c[2:])) for c in list(self._calls))
        for place, extra in list(self._extras.items()):
            if place < len(calls):
                calls[place].extra_content = extra
        for place in list(self._cut):
            if place < len(calls):
                calls[place].cut = True
        return calls

    def response(self) -> ChatResponse:
        """The sum so far."""
        now = self._ended if self._ended is not None else time.monotonic()
        first = None if self._first is None else self._first - self.started
        usage = self._usage
        if usage is None:
            usage = Usage(completion_tokens=self._deltas + self._others, estimated=True)
        response = ChatResponse(
            content="".join(self._content),
            reasoning="".join(self._reasoning),
            tool_calls=self._tool_calls(),
            finish_reason=self._finish,
            model=self._model,
            usage=usage,
            warnings=tuple(self._warnings),
            first_token_s=first,
            duration_s=now - self.started,
            provider_state=self._state,
            response_id=self._id or None,
            native_finish_reason=self._native_finish or None,
            provider=self.provider,
        )
        return response._replace(tokens_per_second=tokens_per_second(response))


def tokens_per_second(response: ChatResponse) -> Optional[float]:
    """The rate of the tokens after the first one, over the time they took.

    The wait for the first token belongs to the prompt and would blur the
    model's own pace.  None for fewer than two tokens, or no time between them.
    """
    tokens = response.usage.completion_tokens
    if response.first_token_s is None or not tokens or tokens < 2:
        return None
    took = response.duration_s - response.first_token_s
    return (tokens - 1) / took if took > 0 else None
