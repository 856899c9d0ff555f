"""A step as it goes: written by the step's thread, read by any, and at last a `StepResult`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from agentstream.events.model import freeze
from agentstream.results import StepResult, Usage

if TYPE_CHECKING:
    from agentstream.agent.run import AgentRun
    from agentstream.workflow.definition import Step

__all__ = ["Progress", "as_told"]


class Progress:
    """A step of a run as it goes: written by the step's thread, read by any.

    Attributes:
        status: "running" until it has ended.
        usage: of its own requests; None if it made none.
        within: the steps within it, in the order in which they began.
        places: the order to tell those in; None for that in which they began.
        blamed: the label of the one whose failure ended it, where others failed too.
        agent_run: of an agent's step: knows what has been said so far.
    """

    __slots__ = (
        "_started",
        "_took",
        "agent_run",
        "blamed",
        "label",
        "output",
        "places",
        "rate",
        "status",
        "step",
        "usage",
        "within",
    )

    def __init__(self, step: Step, label: str) -> None:
        self.step = step
        self.label = label
        self.status = "running"
        self.output: Any = None
        self.usage: Optional[Usage] = None
        self.rate: Optional[float] = None
        self.agent_run: Optional[AgentRun] = None
        self.within: List[Progress] = []
        self.places: Optional[Dict[str, str]] = None
        self.blamed: Optional[str] = None
        self._started = time.monotonic()
        self._took: Optional[float] = None

    def head(self) -> Dict[str, Any]:
        """What each event of the step's says first."""
        return {"step": self.label, "name": self.step.name, "kind": self.step.kind}

    def begin_again(self) -> None:
        """Void what it has said and done, for a further attempt; what it used was used."""
        for inner in self.within:
            self.spend(inner.total())
        self.within = []
        self.agent_run = None
        self.rate = None
        self.blamed = None

    def end(self, status: str) -> None:
        """It has ended so."""
        self._took = time.monotonic() - self._started
        self.status = status

    def spend(self, usage: Optional[Usage]) -> None:
        """Add what a request used."""
        if usage is not None:
            self.usage = usage if self.usage is None else self.usage + usage

    def said(self) -> Any:
        """What it has said so far: text, or by name that of its branches."""
        if self.status == "completed":
            return self.output
        if self.agent_run is not None:
            return self.agent_run.text()
        within = self._in_order()
        if self.places is not None:
            return {self.places[inner.label]: inner.said() for inner in within}
        return within[-1].said() if within else ""

    def total(self) -> Optional[Usage]:
        """What it and the steps within it used; None if no request was made."""
        total = self.usage
        for inner in list(self.within):
            used = inner.total()
            if used is not None:
                total = used if total is None else total + used
        return total

    def culprit(self) -> Progress:
        """The innermost step of its run that failed."""
        if self.step.kind != "Workflow":  # what is within that is another run's
            for inner in self._in_order():
                if inner.status == "failed" and self.blamed in (None, inner.label):
                    return inner.culprit()
        return self

    def result(self, status: str) -> StepResult:
        """Its `StepResult`; `status` is that of a step which has not ended."""
        took = time.monotonic() - self._started if self._took is None else self._took
        return StepResult(
            self.step.name,
            self.step.kind,
            took * 1000,
            self.said(),
            self.total() or Usage(),
            self.rate,
            status if self.status == "running" else self.status,
            self.label,
            tuple(inner.result(status) for inner in self._in_order()),
        )

    def _in_order(self) -> List[Progress]:
        within = list(self.within)
        if self.places is not None:
            order = list(self.places)
            within.sort(key=lambda inner: order.index(inner.label))
        return within


def as_told(value: Any) -> Any:
    """A step's output as an event can hold it; what cannot be written, by its type's name."""
    try:
        return freeze(value)
    except Exception:  # noqa: BLE001 - it contains itself, or is somebody's own class
        return f"<{type(value).__name__}>"
