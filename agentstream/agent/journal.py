"""Scribe: writes what an agent does into its run's log, each event labelled with its author.

And what an event says of an error.  Which events there are is events/model.py's.
"""

from __future__ import annotations

import logging
from typing import Any, Dict, List, Optional

from agentstream.errors import AgentStreamError, LogError
from agentstream.events.model import EventType, FrozenDict
from agentstream.events.stream import RunLog
from agentstream.llm.accumulator import Accumulator

__all__ = ["Scribe", "describe", "message_of"]

logger = logging.getLogger("agentstream.agent.agent")


class Scribe:
    """Writes an agent's events, each labelled with the agent and its step; or nowhere.

    Any number of threads may use one.

    Attributes:
        answers: the model's answers so far, the last one perhaps under way.
    """

    __slots__ = ("_is_plain", "agent", "answers", "log", "step")

    def __init__(self, log: Optional[RunLog], agent: str, step: str) -> None:
        self.log = log
        self.agent = agent
        self.step = step
        self.answers: List[Accumulator] = []
        self._is_plain = agent.isascii() and step.isascii()

    @property
    def workflow_id(self) -> str:
        """The run's id; "" without a log."""
        return self.log.workflow_id if self.log is not None else ""

    def text(self) -> str:
        """What the agent has said so far."""
        return "".join(answer.text() for answer in self.answers)

    def note(self, kind: EventType, **data: Any) -> None:
        """Append an event."""
        if self.log is not None:
            self.log.append(kind, {"agent": self.agent, "step": self.step, **data})

    def note_failure(self, kind: EventType, error: BaseException, **data: Any) -> None:
        """As `note`; a log that fails too must not hide the failure."""
        try:
            self.note(kind, **data, **describe(error))
        except LogError:
            logger.exception("%s of %s is not in the log", kind.value, self.agent)

    def chunk(self, kind: EventType, text: str) -> None:
        """Append a piece of text or reasoning; on the way of every chunk."""
        if self.log is not None:
            data = {"agent": self.agent, "step": self.step, "chunk": text}
            if self._is_plain and text.__class__ is str and text.isascii():
                data = FrozenDict(data)  # there is nothing to clean in it
            self.log.append(kind, data)


def message_of(error: BaseException) -> str:
    """What an error says; "" of one whose own code cannot tell."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - somebody's __str__: a run must end all the same
        return ""


def describe(error: BaseException) -> Dict[str, Any]:
    """What an event says of an error."""
    data: Dict[str, Any] = {"error": type(error).__name__, "message": message_of(error)}
    if isinstance(error, AgentStreamError):
        data.update(
            phase=error.phase,
            retryable=error.retryable,
            request_id=error.request_id,
            outcome=error.outcome,
        )
    return data
