"""Token counts as Messages tells them -> Usage.  Pure."""

from __future__ import annotations

import math
from typing import Any, Dict, Optional

from agentstream.results import Usage

__all__ = ["UsageReader"]

_MOST = 2**53


class UsageReader:
    """The usage of one answer, from all the events that tell of it.

    Each count is the sum so far, not an addition: the last value that is no null counts.
    A server may estimate at the start and correct itself at the end.
    """

    def __init__(self) -> None:
        self._told: Dict[str, Any] = {}
        self._usage: Optional[Usage] = None

    def read(self, usage: Any) -> Optional[Usage]:
        """The usage as it stands, if `usage`, an event's, says something new; else None."""
        if not isinstance(usage, dict):
            return None
        self._told.update((name, value) for name, value in usage.items() if value is not None)
        found = self._sum()
        if found == self._usage:
            return None
        self._usage = found
        return found

    def _sum(self) -> Optional[Usage]:
        fresh, output = self._count("input_tokens"), self._count("output_tokens")
        if fresh is None and output is None:
            return None
        cached = self._count("cache_read_input_tokens")
        written = self._count("cache_creation_input_tokens")
        prompt = None if fresh is None else fresh + (cached or 0) + (written or 0)
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=output,
            total_tokens=None if prompt is None or output is None else prompt + output,
            cached_tokens=cached,
            cache_write_tokens=written,
            reasoning_tokens=_whole(self._details().get("thinking_tokens")),
            cost=_number(self._told.get("cost")),
        )

    def _count(self, name: str) -> Optional[int]:
        return _whole(self._told.get(name))

    def _details(self) -> Dict[str, Any]:
        details = self._told.get("output_tokens_details")
        return details if isinstance(details, dict) else {}


def _number(value: Any) -> Optional[float]:
    """`value` if it is a number that can be a count or a price; a bool, NaN or -1 is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if 0 <= value <= _MOST and math.isfinite(value) else None


def _whole(value: Any) -> Optional[int]:
    number = _number(value)
    return None if number is None else round(number)
