"""What an agent's run has called before: earlier results, and how often they were asked for.

Pure bookkeeping of one run, used by one thread.  It decides when a loop is one;
what becomes of the run is the agent's.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Deque, Dict, Iterable, Optional, Set

from agentstream.results import ToolCall
from agentstream.tools.arguments import parse_json

__all__ = ["Repeats", "same_call"]


def same_call(call: ToolCall) -> str:
    """A text that two calls share if they name the same tool and mean the same arguments."""
    arguments = call.arguments.strip() or "{}"
    try:
        arguments = json.dumps(parse_json(arguments), sort_keys=True)
    except (ValueError, RecursionError):
        pass  # not JSON: the same only if written the same
    return f"{call.name}\n{arguments}"


class Repeats:
    """The calls of a run's last turns.

    Args:
        memory: how many turns are remembered; None for all of the run's, 0 for none.
    """

    def __init__(self, memory: Optional[int]) -> None:
        self._memory = memory
        self._turns: Deque[Set[str]] = deque(maxlen=memory)
        self._counts: Dict[str, int] = {}
        self._results: Dict[str, str] = {}

    def begin_turn(self, keys: Iterable[str]) -> Optional[str]:
        """Count a turn's calls, each kind once; returns the one made most often."""
        turn = set(keys)
        if self._memory is not None and len(self._turns) == self._memory and self._turns:
            self._forget(self._turns[0] - turn)
        self._turns.append(turn)
        for key in turn:
            self._counts[key] = self._counts.get(key, 0) + 1
        return max(turn, key=self._counts.__getitem__, default=None)

    def _forget(self, keys: Set[str]) -> None:
        later = set().union(*list(self._turns)[1:])
        for key in keys - later:
            self._counts.pop(key, None)
            self._results.pop(key, None)

    def count(self, key: str) -> int:
        """How often a call was made, by the turns that are remembered and those next to them."""
        return self._counts.get(key, 0)

    def result(self, key: str) -> Optional[str]:
        """The result of an earlier turn's same call; None if there is none."""
        return self._results.get(key)

    def keep(self, key: str, result: str) -> None:
        """Remember what a call brought."""
        if self._memory != 0:
            self._results[key] = result
