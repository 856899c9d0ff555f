"""Token counts in the spellings of all servers -> Usage.  Pure."""

from __future__ import annotations

import math
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

from agentstream.results import Usage

__all__ = ["UsageReader"]

#: Where each count stands; the first place that has more than 0 counts, a dot goes one level down.
_PLACES: Dict[str, Tuple[str, ...]] = {
    "prompt_tokens": (
        "prompt_tokens",
        "input_tokens",
        "promptTokens",
        "inputTokens",
        "promptTokenCount",
        "prompt_eval_count",
    ),
    "completion_tokens": (
        "completion_tokens",
        "output_tokens",
        "completionTokens",
        "outputTokens",
        "candidatesTokenCount",
        "eval_count",
    ),
    "total_tokens": ("total_tokens", "totalTokens", "totalTokenCount"),
    "cached_tokens": (
        "prompt_tokens_details.cached_tokens",
        "input_tokens_details.cached_tokens",
        "prompt_cache_hit_tokens",
        "cached_tokens",
        "num_cached_tokens",
        "cache_read_input_tokens",
        "cachedContentTokenCount",
    ),
    "cache_write_tokens": (
        "prompt_tokens_details.cache_write_tokens",
        "input_tokens_details.cache_write_tokens",
        "prompt_tokens_details.cache_creation_tokens",
        "cache_write_tokens",
        "cache_creation_input_tokens",
    ),
    "reasoning_tokens": (
        "completion_tokens_details.reasoning_tokens",
        "output_tokens_details.reasoning_tokens",
        "reasoning_tokens",
        "thoughtsTokenCount",
    ),
}
_COSTS = ("cost", "cost.total_cost", "total_cost", "estimated_cost")
_MOST = 2**53


class UsageReader:
    """The usage of one stream, from the chunks that tell it."""

    def __init__(self) -> None:
        self._usage: Optional[Usage] = None
        self._rank = 0

    def read(
        self, chunk: Mapping[str, Any], choice: Optional[Mapping[str, Any]]
    ) -> Optional[Usage]:
        """The usage as it stands, if `chunk` says something better than was known; else None.

        The last one counts, but counts win over a placeholder of zeros, and the
        top level over the places where some servers repeat it.  What a later one
        leaves out, or has as 0, stays as it was.
        """
        for rank, place in _holders(chunk, choice):
            usage = _usage_in(place)
            if usage is None:
                continue
            weight = 2 * rank if any(usage) else rank - 1
            if weight < self._rank:
                return None
            if weight == self._rank and self._usage is not None:
                usage = _merged(self._usage, usage)
            self._rank = weight
            self._usage = usage
            return usage
        return None


def _merged(before: Usage, usage: Usage) -> Usage:
    """A later usage over an earlier one."""
    known = {
        name: count
        for name, count in usage._asdict().items()
        if count or getattr(before, name) is None
    }
    merged = before._replace(**known)
    prompt, completion, total = merged[:3]
    if total is not None and None not in (usage.total_tokens, prompt, completion):
        # Each of them told one part and called that the total.
        merged = merged._replace(total_tokens=max(total, (prompt or 0) + (completion or 0)))
    return merged


def _holders(
    chunk: Mapping[str, Any], choice: Optional[Mapping[str, Any]]
) -> Iterator[Tuple[int, Any]]:
    yield 2, chunk.get("usage")
    groq = chunk.get("x_groq")
    if isinstance(groq, dict):
        yield 1, groq.get("usage")
    if choice is not None:
        yield 1, choice.get("usage")


def _usage_in(place: Any) -> Optional[Usage]:
    if not isinstance(place, dict):
        return None
    counts: Dict[str, Any] = {name: _first_count(place, names) for name, names in _PLACES.items()}
    if all(counts[name] is None for name in ("prompt_tokens", "completion_tokens", "total_tokens")):
        return None
    costs = (_number(_at(place, name)) for name in _COSTS)
    return Usage(**counts, cost=next((cost for cost in costs if cost is not None), None))


def _first_count(place: Mapping[str, Any], names: Tuple[str, ...]) -> Optional[int]:
    found: Optional[int] = None
    for name in names:
        number = _number(_at(place, name))
        if number:
            return round(number)
        found = found if number is None else 0
    return found


def _at(place: Mapping[str, Any], path: str) -> Any:
    name, _, inner = path.partition(".")
    value = place.get(name)
    return value.get(inner) if inner and isinstance(value, dict) else None if inner else value


def _number(value: Any) -> Optional[float]:
    """`value` if it is a number that can be a count or a price; a bool, NaN or -1 is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if 0 <= value <= _MOST and math.isfinite(value) else None
