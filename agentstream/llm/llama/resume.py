"""Going on with an answer that broke off: whether it may, what is sent, how the parts join.

Pure: a dialect around a dialect; call.py does the sending and the waiting.  The server
must be one that continues the words of an assistant's message that comes last (llama.cpp's).
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

from agentstream.errors import (
    AgentStreamError,
    StallTimeout,
    StreamTruncated,
)
from agentstream.llm.accumulator import Accumulator
from agentstream.llm.broken import Break
from agentstream.llm.dialect import Dialect, Wrapped
from agentstream.llm.messages import Delta
from agentstream.results import Usage

__all__ = ["ResumingDialect", "Seam"]

#: As much of the answer's beginning as shows that a server began again.  Long
#: enough to be no accident, short enough for two answers that part ways early.
#: A text that goes on mostly does so with a space; only behind one of the marks
#: may it well begin with its own beginning, quoting itself, and more is asked for.
_TELLTALE = 12
_TELLTALE_QUOTED = 64
_MARKS = tuple("\"'`*_([{<\u201c\u2018\u201e\u00ab")

_CAPS = ("max_tokens", "max_completion_tokens", "n_predict")
_CONSTRAINTS = ("response_format", "grammar", "json_schema")


class Seam:
    """Where the continuation of a text is fitted to it.

    The text was sent without its trailing white space, so the continuation begins
    with that: as much of it as is there already is dropped.  What might still be
    the text's own beginning is held back until it is clear that it is not.

    Args:
        said: the text that is there.
        before: what the server was sent in front of it, of the same message.
        strict: one character of the beginning is proof enough.

    Attributes:
        sent: what the server is to continue, `before` and `said` without the white space.
    """

    def __init__(self, said: str, before: str = "", *, strict: bool = False) -> None:
        whole = before + said
        self.sent = whole.rstrip()
        self._blank = whole[len(self.sent) :]
        size = _TELLTALE_QUOTED if self.sent.endswith(_MARKS) else _TELLTALE
        self._heads = {
            head
            for text in (said.rstrip(), self.sent)
            for head in _heads(text, 1 if strict else size)
        }
        self._held = ""
        self._open = False

    def take(self, text: str) -> Optional[str]:
        """What may go out now that `text` has come; None if the server began again."""
        if self._open:
            return text
        held = self._held = self._held + text
        if held.startswith(tuple(self._heads)):
            return None
        if any(start.startswith(held) for start in (*self._heads, self._blank)):
            return ""  # either a beginning, or white space with more to come
        return self.end()

    def end(self) -> str:
        """What is still held back and now goes out, since no more of it will come."""
        self._open = True
        held, self._held = self._held, ""
        same = 0
        while same < min(len(held), len(self._blank)) and held[same] == self._blank[same]:
            same += 1
        return held[same:]


def _heads(text: str, size: int) -> Tuple[str, ...]:
    """The beginnings of `text`, with its leading white space and without; none of a blank text."""
    bare = text.lstrip()
    if not bare:
        return ()
    return text[: len(text) - len(bare) + size], bare[:size]


class _Joint:
    """Fits the deltas of a continuation to those that were there before the break.

    Args:
        seam: where its text begins.
        kept: the tokens of the text before.
        said: the characters of it.
        broke: what the break was.

    Attributes:
        begun: something of it has been given out.
        repeats: it was no continuation.
    """

    def __init__(self, seam: Seam, kept: int, said: int, broke: str) -> None:
        self._seam = seam
        self._kept = kept
        self._said = said
        self._broke = broke
        self.begun = False
        self.repeats = False

    def fit(self, delta: Delta) -> Optional[Delta]:
        """The delta as a further one of the same answer; None if nothing of it is left.

        Raises:
            StreamTruncated: the server began again.
        """
        usage = delta.usage
        if usage is not None:
            usage = self._add_kept(usage)
        delta = delta._replace(usage=usage, model=None)  # a name would count as the first token
        if not self.begun:
            content = None if delta.reasoning else self._seam.take(delta.content)
            if content is None:
                self.repeats = True
                raise StreamTruncated(
                    f"{self._broke}; the server began again instead of going on",
                    phase="stream",
                    retryable=True,
                    outcome="unknown",
                )
            if delta.tool_calls or delta.finish_reason:
                content += self._seam.end()
            delta = self._begin(delta._replace(content=content))
        return delta if any(delta) else None

    def fit_last(self, delta: Delta) -> Optional[Delta]:
        """As `fit`, of what the stream's reader had held back; with what the seam holds."""
        fitted = self.fit(delta)
        if not self.begun:
            fitted = self._begin((fitted or Delta())._replace(content=self._seam.end()))
        return fitted if fitted and any(fitted) else None

    def _begin(self, delta: Delta) -> Delta:
        if not (delta.content or delta.tool_calls or delta.finish_reason):
            return delta
        self.begun = True
        warning = f"the stream broke off after {self._said} characters and was resumed"
        return delta._replace(warnings=(warning,))

    def _add_kept(self, usage: Usage) -> Usage:
        """The counts of the whole answer, from those of its continuation.

        Its prompt held the words kept from before, which are no prompt of the caller's.
        """
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        if prompt is not None:
            prompt = max(0, prompt - self._kept)
        if completion is not None:
            completion += self._kept
        return usage._replace(prompt_tokens=prompt, completion_tokens=completion, estimated=True)


class ResumingDialect(Wrapped):
    """A dialect whose answers go on after a break.

    Args:
        inner: the dialect of a server that continues the words of an assistant's
            message that comes last.
    """

    def __init__(self, inner: Dialect) -> None:
        super().__init__(inner)
        self._answer = Accumulator()
        #: The last break: its class, its words, and whether it is retryable.
        self._broken: Optional[Break] = None
        self._joint: Optional[_Joint] = None
        self._seam = Seam("")
        self._kept = 0

    # --- whether ----------------------------------------------------------------------------

    def may_resume(self, error: AgentStreamError) -> bool:
        """See `Dialect.may_resume`.

        It may after a break in the midst of plain text, and after what went wrong
        with a try at going on before that brought anything.
        """
        if not isinstance(error, (StreamTruncated, StallTimeout)):
            return self._broken is not None and not self._under_way()
        if not self._can_go_on():
            return False
        self._broken = Break.of(error)
        self._joint = None
        self._answer.forget_usage()  # what it says of a part would pass for the whole
        return True

    def _under_way(self) -> bool:
        return self._joint is not None and self._joint.begun

    def _can_go_on(self) -> bool:
        answer = self._answer
        if self._joint is not None and self._joint.repeats:
            return False
        if answer.in_reasoning or answer.finish_reason is not None:
            return False
        so_far = answer.response()
        body = self._posted()
        before = _words_at_end(body["messages"][-1])
        if not so_far.content or so_far.tool_calls or before is None:
            return False
        strict = any(_constrains(body.get(name)) for name in _CONSTRAINTS)
        self._seam = Seam(so_far.content, before, strict=strict)
        again = _touching_end(answer.texts(), len(before + so_far.content) - len(self._seam.sent))
        self._kept = max(0, (so_far.usage.completion_tokens or 0) - again)
        return all(_left(body.get(name), self._kept) != 0 for name in _CAPS)

    def final(self, error: AgentStreamError) -> AgentStreamError:
        """See `Dialect.final`: the break, if `error` was a vain try at mending it."""
        if self._broken is None or self._under_way() or not Break.is_vain(error):
            return error
        return self._broken.after(error)

    # --- what is sent -----------------------------------------------------------------------

    def _posted(self) -> Dict[str, Any]:
        body = self._inner.body()
        assert body is not None  # chat completions are always posted
        return body

    def body(self) -> Dict[str, Any]:
        """See `Dialect.body`: after a break, the request with the words so far at its end."""
        body = self._posted()
        if self._broken is None:
            return body
        for name in _CAPS:
            if body.get(name) is not None:
                body[name] = _left(body[name], self._kept)
        if not self._seam.sent:
            return body  # nothing but white space was said: the same question again
        message: Dict[str, Any] = {"role": "assistant"}
        messages: List[Dict[str, Any]] = list(body["messages"])
        if messages[-1].get("role") == "assistant":
            message = dict(messages.pop())
        message["content"] = self._seam.sent
        reasoning = self._answer.response().reasoning
        if reasoning:
            message["reasoning_content"] = reasoning
        body["messages"] = [*messages, message]
        # What llama.cpp does by default, said aloud for one that was started without it.
        body["continue_final_message"] = True
        body["add_generation_prompt"] = False
        return body

    # --- what comes -------------------------------------------------------------------------

    def begin(self, answer: Accumulator) -> None:
        """See `Dialect.begin`."""
        self._answer = answer
        super().begin(answer)
        if self._broken is not None:
            said = len(answer.text())
            self._joint = _Joint(self._seam, self._kept, said, self._broken.message)

    def read(self, event: str, data: str) -> Optional[Delta]:
        """See `Dialect.read`."""
        delta = self._inner.read(event, data)
        if self._joint is None or delta is None:
            return delta
        return self._joint.fit(delta)

    def read_whole(self, text: str) -> Optional[Delta]:
        """See `Dialect.read_whole`."""
        delta = self._inner.read_whole(text)
        if self._joint is None or delta is None:
            return delta
        return self._joint.fit(delta) or Delta()

    def flush(self, tail: str) -> Optional[Delta]:
        """See `Dialect.flush`.

        Nothing comes of an answer that may go on: what waits for its other half
        will come again.
        """
        rest = self._inner.flush(tail)
        if not self.ended and self._answer.finish_reason is None:
            return None
        if self._joint is None:
            return rest
        return self._joint.fit_last(rest or Delta())


def _words_at_end(last: Any) -> Optional[str]:
    """The assistant's words that a request itself ends with; None if it ends with a call."""
    if not isinstance(last, dict):
        return None
    if last.get("role") != "assistant":
        return ""
    content = last.get("content") or ""
    return content if isinstance(content, str) and not last.get("tool_calls") else None


def _constrains(value: object) -> bool:
    return bool(value) and not (isinstance(value, dict) and value.get("type") == "text")


def _left(cap: Any, used: int) -> Any:
    """What is left of a bound on tokens; as it is, if it is none (None, -1)."""
    if isinstance(cap, int) and not isinstance(cap, bool) and cap > 0:
        return max(0, cap - used)
    return cap


def _touching_end(texts: List[str], length: int) -> int:
    """How many of `texts` the last `length` characters of them all lie in."""
    count = 0
    while length > 0 and count < len(texts):
        count += 1
        length -= len(texts[-count])
    return count
