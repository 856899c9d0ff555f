"""Reasoning that a model writes into its answer, between <think> and </think>, told apart.  Pure.

For servers that leave it there.  Some templates open the tag in the prompt, so
that only </think> comes; an answer that has not begun with <think> is therefore
held back until a tag shows which it is, or `HELD` characters show that none will.
"""

from __future__ import annotations

from typing import List, Optional, Tuple

from agentstream.errors import AgentStreamError
from agentstream.llm.accumulator import Accumulator
from agentstream.llm.dialect import Dialect, Wrapped
from agentstream.llm.messages import Delta

__all__ = ["HELD", "ThinkDialect", "ThinkSplitter"]

#: The most characters of an answer without tags that are held back.
HELD = 65536

_OPEN, _CLOSE = "<think>", "</think>"


class ThinkSplitter:
    """Splits a text that comes in pieces, its tags cut anywhere, into content and reasoning."""

    def __init__(self) -> None:
        self._held = ""
        self._scanned = 0  # so much of it has been searched
        self._inside = False
        self._sure = False  # a tag has shown what the answer's beginning is
        self._blank = True  # the content has not begun: white space is none of it
        self._out: Tuple[List[str], List[str]] = ([], [])

    @property
    def holds_back(self) -> bool:
        """True if some of the text is held back."""
        return bool(self._held)

    def feed(self, text: str) -> Tuple[str, str]:
        """The content and the reasoning that can go out now that `text` has come."""
        self._held += text
        while self._take():
            pass
        return self._taken()

    def end(self) -> Tuple[str, str]:
        """What was held back, since no more will come."""
        self._sure = True
        while self._take():
            pass
        self._move(len(self._held), self._inside)
        return self._taken()

    def _take(self) -> bool:
        """Move what is certain out of what is held; True if there may be more of it."""
        start = max(0, self._scanned - len(_CLOSE))
        self._scanned = len(self._held)
        opened = -1 if self._inside else self._held.find(_OPEN, start)
        closed = self._held.find(_CLOSE, start) if self._inside or not self._sure else -1
        if closed >= 0 and (opened < 0 or closed < opened):
            self._move(closed, True, len(_CLOSE))
            self._inside = False
            self._blank = True
        elif opened >= 0:
            self._move(opened, False, len(_OPEN))
            self._inside = True
        else:
            if self._sure or len(self._held) > HELD:
                self._sure = True
                tag = _CLOSE if self._inside else _OPEN
                self._move(len(self._held) - _beginning(self._held, tag), self._inside)
            return False
        self._sure = True
        return True

    def _move(self, length: int, is_reasoning: bool, tag: int = 0) -> None:
        text = self._held[:length]
        self._held = self._held[length + tag :]
        self._scanned = 0
        if not is_reasoning and self._blank:
            text = text.lstrip()
            self._blank = not text
        self._out[is_reasoning].append(text)

    def _taken(self) -> Tuple[str, str]:
        content, reasoning = self._out
        self._out = ([], [])
        return "".join(content), "".join(reasoning)


def _beginning(text: str, tag: str) -> int:
    """How many characters at the end of `text` may be the beginning of `tag`."""
    for length in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:length]):
            return length
    return 0


class ThinkDialect(Wrapped):
    """A dialect whose answers hold their reasoning between tags in their content."""

    def __init__(self, inner: Dialect) -> None:
        super().__init__(inner)
        self._splitter = ThinkSplitter()

    def begin(self, answer: Accumulator) -> None:
        """See `Dialect.begin`.  An answer that goes on after a break goes on being split."""
        if not answer.begun:
            self._splitter = ThinkSplitter()
        self._failure: Optional[AgentStreamError] = None
        super().begin(answer)

    def read(self, event: str, data: str) -> Optional[Delta]:
        """See `Dialect.read`.

        What is held back goes out before a failure, unless that failure is one
        that another attempt follows: to that one it would be in the way.
        """
        try:
            delta = super().read(event, data)
        except AgentStreamError as error:
            self._failure = error
            delta = None
        failure = self.error()
        if failure is not None:
            if failure.retryable or not (delta or self.holds_back):
                return delta
            return self._split(delta or Delta(), True)
        return None if delta is None else self._split(delta, super().ended)

    @property
    def ended(self) -> bool:
        """See `Dialect.ended`."""
        return self._failure is not None or super().ended

    def error(self) -> Optional[AgentStreamError]:
        """See `Dialect.error`."""
        return self._failure or super().error()

    @property
    def holds_back(self) -> bool:
        """See `Dialect.holds_back`."""
        return self._splitter.holds_back

    def read_whole(self, text: str) -> Optional[Delta]:
        """See `Dialect.read_whole`."""
        delta = super().read_whole(text)
        return None if delta is None else self._split(delta, True)

    def flush(self, tail: str) -> Optional[Delta]:
        """See `Dialect.flush`."""
        delta = self._split(super().flush(tail) or Delta(), True)
        return delta if any(delta) else None

    def _split(self, delta: Delta, last: bool) -> Delta:
        content, reasoning = self._splitter.feed(delta.content)
        if last or delta.finish_reason or delta.tool_calls:
            more, thought = self._splitter.end()
            content += more
            reasoning += thought
        return delta._replace(content=content, reasoning=delta.reasoning + reasoning)
