"""The tools of the soak's agents, and a ledger of the calls that were really made.

Each call's one argument names it: call, round, attempt and number, so that the ledger can
be held against the answers that asked for them.
"""

from __future__ import annotations

import threading
from typing import Any, Dict, List

from agentstream import CancelToken, ToolLimits

__all__ = ["LIMITS", "STUCK_S", "Ledger"]

STUCK_S = 2.5  # far above what a slow tool takes on a loaded machine
LIMITS = ToolLimits(timeout=STUCK_S)


class Ledger:
    """Makes the tools, and keeps what each was called with.  All methods from any thread."""

    def __init__(self) -> None:
        self._made: Dict[str, List[str]] = {}
        self._guard = threading.Lock()

    def _note(self, name: str) -> None:
        with self._guard:
            self._made.setdefault(name.partition("/")[0], []).append(name)

    def pop(self, call: str) -> List[str]:
        """The arguments with which tools were called on behalf of `call`, forgotten here."""
        with self._guard:
            return self._made.pop(call, [])

    def tools(self) -> List[Any]:
        """One that answers, one that raises, one that is slow, one that is out of time."""

        def lookup(name: str) -> str:
            """Look a bird up."""
            self._note(name)
            return f"{name} is a bird"

        def broken(name: str) -> str:
            """Fail."""
            self._note(name)
            raise KeyError(f"no {name}: soak means to")

        def slow(name: str, cancel: CancelToken) -> str:
            """Take some time, and stop when told to."""
            self._note(name)
            cancel.wait(0.15)
            return f"{name} is slow"

        def stuck(name: str, cancel: CancelToken) -> str:
            """Take more time than a tool may, and heed the token only."""
            self._note(name)
            cancel.wait(30.0)
            return f"{name} comes too late"

        return [lookup, broken, slow, stuck]
