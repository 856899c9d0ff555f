"""Raised: what one subscription's callback raises, counted; each kind is logged once whole.

A callback with a bug raises on each event: hundreds of tracebacks a second would hide
the rest of a log, and say nothing that the first one does not.
"""

from __future__ import annotations

import logging
from typing import Dict, Tuple

__all__ = ["Raised"]

logger = logging.getLogger("agentstream.events")

#: What was raised, and the file and line where.
_Kind = Tuple[str, str, int]
#: Kinds that are told apart; the others are one.
_MOST_KINDS = 100
_OTHERS: _Kind = ("other errors", "", 0)


class Raised:
    """Counts a callback's errors.  Used by its thread.

    A kind is an error's class and the line that raised it.  Logged are the first one
    of a kind, with its traceback; the 10th, 100th, 1000th ...; and at the end how many
    there were, if there were more.

    Attributes:
        count: all of them.
    """

    def __init__(self) -> None:
        self.count = 0
        self._kinds: Dict[_Kind, int] = {}
        self._told: Dict[_Kind, int] = {}

    def add(self, error: BaseException, event_id: object) -> None:
        """Note what it raised on an event; called while the error is handled."""
        self.count += 1
        kind = _kind_of(error)
        if kind not in self._kinds and len(self._kinds) >= _MOST_KINDS:
            kind = _OTHERS
        times = self._kinds[kind] = self._kinds.get(kind, 0) + 1
        if times == 1:
            self._told[kind] = 1
            logger.exception("a subscriber's callback raised on %s", event_id)
        elif times == self._told[kind] * 10:
            self._tell(kind, times)

    def end(self) -> None:
        """No event comes any more: tell how many there were."""
        for kind, times in self._kinds.items():
            if times != self._told[kind]:
                self._tell(kind, times)

    def _tell(self, kind: _Kind, times: int) -> None:
        self._told[kind] = times
        name, file, line = kind
        where = f" at {file}:{line}" if file else ""
        logger.error("a subscriber's callback has raised %s%s %d times", name, where, times)


def _kind_of(error: BaseException) -> _Kind:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(error).__name__, "", 0
    return type(error).__name__, trace.tb_frame.f_code.co_filename, trace.tb_lineno
