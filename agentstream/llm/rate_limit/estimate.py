"""What a request will cost in tokens, before anybody has counted them.

The prompt: the bytes of the request's texts in UTF-8, a quarter of a token each, and 1,000
tokens for a picture or a file.  The answer: as many as answers had of late, but no more than the
request allows; 256 before there was one.  Both are learnt from what servers count.
"""

from __future__ import annotations

from typing import Any, Iterator, List, Mapping, Optional, Tuple

from agentstream.results import Usage

__all__ = ["Estimator", "answer_bound", "size_of"]

_PICTURE = 1000
#: An ASCII text without a blank that is this long is a picture or a file, encoded.
_LONG = 2048
#: Where requests say how long an answer may be; Ollama's are among its options.
_BOUNDS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict")
#: How much the latest answer counts among those before it.
_SHARE = 0.2
#: Tokens a byte, at least and at most: no server's odd usage may carry it off.
_LEAST, _MOST = 0.05, 4.0


class Estimator:
    """Estimates, for requests that share a limit.  Any thread may use it."""

    def __init__(self) -> None:
        self._per_byte = 0.25
        self._answer = 256.0

    def tokens(self, body: Mapping[str, Any]) -> int:
        """What a request will cost, prompt and answer."""
        size, files = size_of(body)
        answer = self._answer
        bound = answer_bound(body)
        if bound is not None:
            answer = min(answer, bound)
        return int(size * self._per_byte + files * _PICTURE + answer) + 1

    def learn(self, body: Mapping[str, Any], usage: Usage) -> None:
        """Take in what a server counted."""
        if usage.estimated:
            return
        if usage.completion_tokens:
            self._answer += (usage.completion_tokens - self._answer) * _SHARE
        size, files = size_of(body)
        if usage.prompt_tokens and size and not files:
            seen = min(max(usage.prompt_tokens / size, _LEAST), _MOST)
            self._per_byte += (seen - self._per_byte) * _SHARE


def answer_bound(body: Mapping[str, Any]) -> Optional[int]:
    """The most tokens that a request allows its answer; None if it does not say."""
    options = body.get("options")
    for holder in (body, options if isinstance(options, Mapping) else {}):
        for name in _BOUNDS:
            bound = holder.get(name)
            if isinstance(bound, int) and not isinstance(bound, bool) and bound > 0:
                return bound
    return None


def size_of(body: Mapping[str, Any]) -> Tuple[int, int]:
    """The bytes of a request's texts in UTF-8, and how many pictures and files it holds."""
    size = files = 0
    for text in _texts(body):
        if not text.isascii():
            size += len(text.encode("utf-8", "surrogatepass"))
        elif len(text) >= _LONG and " " not in text[:_LONG]:
            files += 1
        else:
            size += len(text)
    return size, files


def _texts(body: Mapping[str, Any]) -> Iterator[str]:
    """Its texts, the names of fields left out: by a list, for it may be nested deeply."""
    left: List[Any] = [body]
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            left.extend(value.values())
        elif isinstance(value, (list, tuple)):
            left.extend(value)
