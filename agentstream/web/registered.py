"""Registered: a workflow that a server may start and resume, and what its runs begin with."""

from __future__ import annotations

from typing import Any, Callable, Dict, NamedTuple, Union

from agentstream.agent.agent import Agent
from agentstream.workflow import Workflow

__all__ = ["Registered", "Runnable"]

Runnable = Union[Workflow, Agent]


class Registered(NamedTuple):
    """A workflow that may be started over HTTP, and what its runs begin with.

    Attributes:
        workflow: the workflow, or the agent.
        input: where the one who starts it gives none.
        context: makes what the steps of a run share, for each run anew.
    """

    workflow: Runnable
    input: str = ""
    context: Callable[[], Dict[str, Any]] = dict
