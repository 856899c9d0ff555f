"""LoopDetector: which calls of a run bring the same result again and again.

Pure bookkeeping of one run, used by one thread.  It says how often; what becomes of
the run is run.py's.
"""

from __future__ import annotations

import json
from typing import Dict, NamedTuple, Optional

from agentstream.results import ToolCall
from agentstream.schema.parse import parse_json

__all__ = ["LoopDetector", "same_call"]


def same_call(call: ToolCall) -> str:
    """A text that two calls share if they name the same tool and mean the same arguments."""
    arguments = call.arguments.strip() or "{}"
    try:
        arguments = json.dumps(parse_json(arguments), sort_keys=True)
    except (ValueError, RecursionError):
        pass  # not JSON: the same only if written the same
    return f"{call.name}\n{arguments}"


class _Seen(NamedTuple):
    result: str
    times: int
    answer: int


class LoopDetector:
    """The calls of a run's answers, and what they brought.

    Args:
        memory: a call that was not made in so many answers is forgotten; None or 0
            for never.
    """

    def __init__(self, memory: Optional[int] = None) -> None:
        self._memory = memory
        self._answer = 0
        self._seen: Dict[str, _Seen] = {}

    def begin_answer(self) -> None:
        """The calls from here on are a further answer's; forgets what is too long ago."""
        self._answer += 1
        if self._memory:
            oldest = self._answer - self._memory
            self._seen = {key: seen for key, seen in self._seen.items() if seen.answer >= oldest}

    def count(self, key: str, result: str) -> int:
        """Take a call's result in; returns how many answers in a row it was this one.

        Args:
            key: the call, as `same_call` tells it from others.
            result: what the model is told.
        """
        seen = self._seen.get(key)
        times = 1
        if seen is not None and seen.result == result:
            times = seen.times + (seen.answer != self._answer)
        self._seen[key] = _Seen(result, times, self._answer)
        return times
