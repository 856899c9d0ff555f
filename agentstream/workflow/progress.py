"""StepState: the state of a step under way, from which its `StepResult` is made."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, Optional, Sequence

from agentstream.events.model import freeze
from agentstream.events.resting import RESTING
from agentstream.llm.messages import ChatMessage
from agentstream.results import StepResult, Usage
from agentstream.schema.plain import plain
from agentstream.text import as_text, safe_str

if TYPE_CHECKING:
    from agentstream.agent.run import AgentRun
    from agentstream.workflow.definition import Step

__all__ = [
    "RestoredStep",
    "StepState",
    "input_as_text",
    "last_finish_reason",
    "named_warnings",
    "to_json",
]

#: Characters of a run's input that are kept.
_MOST_INPUT = 100_000


class StepState:
    """The state of a step of a run: written by the step's thread, read by any.

    Attributes:
        status: "running" until it has ended; "suspended" if it waits for somebody's answer.
        usage: of its own requests.
        within: the steps within it, in the order in which they began.
        places: the order to tell those in; None for that in which they began.
        failed_label: the label of the one whose failure ended it, where others failed too.
        agent_run: of an agent's step: knows what has been said so far.
        remarks: warnings of its own, besides those of its agent.
        used: the key of the record in the run's checkpoint that it has used up.
    """

    __slots__ = (
        "_started",
        "_took",
        "agent_run",
        "failed_label",
        "label",
        "output",
        "places",
        "rate",
        "remarks",
        "status",
        "step",
        "usage",
        "used",
        "within",
    )

    def __init__(self, step: Step, label: str) -> None:
        self.step = step
        self.label = label
        self.status = "running"
        self.output: Any = None
        self.usage = Usage()
        self.rate: Optional[float] = None
        self.agent_run: Optional[AgentRun] = None
        self.within: List[StepState] = []
        self.places: Optional[Dict[str, str]] = None
        self.failed_label: Optional[str] = None
        self.remarks: List[str] = []
        self.used: Optional[str] = None
        self._started = time.monotonic()
        self._took: Optional[float] = None

    def head(self) -> Dict[str, Any]:
        """The keys that each event of the step begins with."""
        return {"step": self.label, "name": self.step.name, "kind": self.step.kind}

    def begin_again(self) -> None:
        """Discard the output of a failed attempt; its usage still counts."""
        for inner in self.within:
            self.spend(inner.total())
        self.within = []
        self.agent_run = None
        self.rate = None
        self.failed_label = None
        self.remarks = []

    def end(self, status: str) -> None:
        """Set the final status, and stop the clock."""
        self._took = time.monotonic() - self._started
        self.status = status

    def worked(self, seconds: float) -> None:
        """Add what an earlier process took."""
        self._started -= seconds

    def spend(self, usage: Usage) -> None:
        """Add what requests used."""
        self.usage += usage

    def said(self) -> Any:
        """The output so far: a text, or those of the branches or items."""
        if self.status == "completed":
            return self.output
        if self.agent_run is not None:
            return self.agent_run.text()
        within = self._in_order()
        if self.step.kind == "Map":
            return [inner.said() for inner in within]
        if self.places is not None:
            return {self.places[inner.label]: inner.said() for inner in within}
        return within[-1].said() if within else ""

    def total(self) -> Usage:
        """The usage of the step and of the steps within it."""
        return sum((inner.total() for inner in list(self.within)), self.usage)

    def failed_step(self) -> StepState:
        """The innermost step that failed: this one, or one within it; not in a run within."""
        if self.step.kind != "Workflow":  # what is within that is another run's
            for inner in self._in_order():
                if inner.status == "failed" and self.failed_label in (None, inner.label):
                    return inner.failed_step()
        return self

    def result(self, status: str) -> StepResult:
        """The `StepResult`; with `status` where the step has not ended."""
        took = time.monotonic() - self._started if self._took is None else self._took
        return StepResult(
            self.step.name,
            self.step.kind,
            took * 1000,
            self.said(),
            self.total(),
            self.rate,
            self._status_in(status),
            self.label,
            tuple(inner.result(status) for inner in self._in_order()),
            self.finish_reason(),
            (*self._own_warnings(), *named_warnings(self._in_order())),
        )

    def _status_in(self, status: str) -> str:
        """The step's status as a run of that status has it."""
        if self.status == "suspended" and status not in RESTING:
            return "cancelled"  # what failed or was stopped waits for nobody
        return status if self.status == "running" else self.status

    def finish_reason(self) -> Optional[str]:
        """How the last answer ended, of its agent's or of those within it; None for none."""
        if self.agent_run is not None:
            return self.agent_run.finish_reason
        return last_finish_reason(self._in_order())

    def _own_warnings(self) -> List[str]:
        return [*self.remarks, *(self.agent_run.warnings if self.agent_run is not None else ())]

    def named_warnings(self) -> Iterator[str]:
        """The warnings of the step and of those within it, each after its step's name."""
        said = () if self.agent_run is None else self.agent_run.warnings
        yield from self.remarks  # which name the step themselves
        yield from (f"{self.step.name}: {warning}" for warning in said)
        yield from named_warnings(self._in_order())

    def _in_order(self) -> List[StepState]:
        within = list(self.within)
        if self.places is not None:
            order = {label: number for number, label in enumerate(self.places)}
            within.sort(key=lambda inner: order[inner.label])
        return within


class RestoredStep(StepState):
    """A step that an earlier process completed: it is what its result says."""

    __slots__ = ("_result", "_said_warnings")

    def __init__(self, step: Step, label: str, result: StepResult, warnings: Sequence[str]) -> None:
        super().__init__(step, label)
        self._result = result
        self._said_warnings = warnings
        self.output = result.output
        self.status = "completed"

    def total(self) -> Usage:
        """See `StepState`."""
        return self._result.usage

    def result(self, status: str) -> StepResult:
        """See `StepState`."""
        return self._result

    def finish_reason(self) -> Optional[str]:
        """See `StepState`."""
        return self._result.finish_reason

    def named_warnings(self) -> Iterator[str]:
        """See `StepState`."""
        yield from self._said_warnings


def last_finish_reason(steps: Sequence[StepState]) -> Optional[str]:
    """How the last answer of these steps ended; None if none of them had one."""
    reasons = (step.finish_reason() for step in reversed(steps))
    return next((reason for reason in reasons if reason is not None), None)


def named_warnings(steps: Sequence[StepState]) -> Iterator[str]:
    """The warnings of these steps, each after its step's name."""
    for step in steps:
        yield from step.named_warnings()


def to_json(value: Any) -> Any:
    """A step's output as JSON values; "<TypeName>" for what cannot be converted."""
    try:
        return freeze(plain(value))
    except Exception:  # noqa: BLE001 - it contains itself, or is somebody's own class
        return f"<{type(value).__name__}>"


def input_as_text(value: Any) -> str:
    """A run's input as a person reads it; of a message's parts the texts, and "[image_url]"."""
    if isinstance(value, ChatMessage):
        value = value.content
    if isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
        if all(isinstance(part.get("type"), str) for part in value):
            texts = (part.get("text") or f"[{part['type']}]" for part in value)
            return "\n".join(map(safe_str, texts))[:_MOST_INPUT]
    return as_text(to_json(value))[:_MOST_INPUT]
