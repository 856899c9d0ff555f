"""AgentLog: a run's log, bound to an agent and a step.

What the data of an event holds is events/payloads.py's.
"""

from __future__ import annotations

import logging
from typing import Any, Mapping, Optional

from agentstream.errors import LogError
from agentstream.events import payloads
from agentstream.events.model import EventType, FrozenDict
from agentstream.events.stream import RunLog

__all__ = ["AgentLog"]

logger = logging.getLogger("agentstream.agent.agent")


class AgentLog:
    """Appends an agent's events, each with the agent's name and its step; or none.

    Any number of threads may use one.

    Args:
        log: the run's log; None: nothing is appended.
        agent: the agent's name.
        step: the workflow's step; "" outside a workflow.

    Attributes:
        muted: true while a run goes over what an earlier process has appended already.
    """

    __slots__ = ("_author", "_is_plain", "agent", "log", "muted", "step")

    def __init__(self, log: Optional[RunLog], agent: str, step: str = "") -> None:
        self.log = log
        self.agent = agent
        self.step = step
        self.muted = False
        self._author = payloads.author(agent, step)
        self._is_plain = agent.isascii() and step.isascii()

    @property
    def workflow_id(self) -> str:
        """The run's id; "" without a log."""
        return self.log.workflow_id if self.log is not None else ""

    def note(self, kind: EventType, data: Mapping[str, Any], about: object = None) -> None:
        """Append an event; `about` as `RunLog.note` has it."""
        if self.log is not None and not self.muted:
            self.log.note(kind, {**self._author, **data}, about)

    def trace(self, kind: EventType, data: Mapping[str, Any], about: object = None) -> None:
        """Tell who traces runs of what goes on here, and an earlier process has appended."""
        if self.log is not None:
            self.log.trace(kind, {**self._author, **data}, about)

    def note_failure(self, kind: EventType, data: Mapping[str, Any]) -> None:
        """As `note`; a log that fails too must not hide the failure."""
        try:
            self.note(kind, data)
        except LogError as error:
            logger.error("%s of %s is not in the log: %s", kind.value, self.agent, error)

    def chunk(self, kind: EventType, text: str) -> None:
        """Append a piece of text or reasoning; on the way of every chunk."""
        if self.log is not None:
            if self._is_plain and text.__class__ is str and text.isascii():
                # Frozen here: there is nothing in it for the stream to clean.
                self.log.append(kind, FrozenDict(self._author, chunk=text))
            else:
                self.log.append(kind, {**self._author, "chunk": text})
