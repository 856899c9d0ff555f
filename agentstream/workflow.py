"""Workflow: steps one after the other, each one's output the next one's input.

Runs in the thread that calls it and says what happens in the run's log;
which thread that is, and who may stop it, is runtime.py's.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from agentstream.agent import Agent, AgentOutput, Scribe, describe
from agentstream.cancel import CancelToken
from agentstream.errors import (
    AgentStreamError,
    Cancelled,
    ConfigError,
    LogError,
    WorkflowFailed,
)  # fmt: skip
from agentstream.events.model import EventType
from agentstream.events.stream import RunLog
from agentstream.llm.messages import ChatResponse, Usage

__all__ = ["StepResult", "Workflow", "WorkflowRun"]

logger = logging.getLogger("agentstream.workflow")


class StepResult(NamedTuple):
    """What a step came to, or how far it got.

    Attributes:
        name, kind: the step's name, and "Agent".
        duration_ms: how long it took.
        output: its text, as far as it got.
        usage: its tokens; what a failed step used is not known.
        tokens_per_second: of its last answer; None when it cannot be known.
        status: "completed", "failed" or "cancelled".
    """

    name: str
    kind: str
    duration_ms: float
    output: str
    usage: Usage
    tokens_per_second: Optional[float]
    status: str


class WorkflowRun(NamedTuple):
    """A run, ended or as far as it got.

    Attributes:
        workflow_id: the run's id, that of its events.
        status: "completed", "failed" or "cancelled".
        output: the last step's output; of a run that did not complete, all that
            its last step had said.
        usage: of all steps together.
        steps: one `StepResult` for each step that began.
    """

    workflow_id: str
    status: str
    output: str = ""
    usage: Usage = Usage()
    steps: Tuple[StepResult, ...] = ()


class Workflow:
    """Agents one after the other.

    Args:
        name: what the run's events call it.
        steps: the agents, at least one; each gets the output of the one before.

    Raises:
        ConfigError: there is no step, or one is no agent.
    """

    def __init__(self, name: str, steps: Sequence[Agent]) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigError("a workflow needs a name")
        if isinstance(steps, Agent) or not isinstance(steps, Sequence) or not steps:
            raise ConfigError(f"workflow {name!r}: steps must be a list of at least one agent")
        for number, step in enumerate(steps, 1):
            if not isinstance(step, Agent):
                raise ConfigError(
                    f"workflow {name!r}: step {number} must be an Agent, not {type(step).__name__}"
                )
        self.name = name
        self.steps: Tuple[Agent, ...] = tuple(steps)

    def __repr__(self) -> str:
        return f"<Workflow {self.name!r}: {' -> '.join(step.name for step in self.steps)}>"


class Execution:
    """One run of a workflow.  For runtime.py."""

    def __init__(self, workflow: Workflow, log: RunLog, cancel: CancelToken) -> None:
        self._workflow = workflow
        self._log = log
        self._cancel = cancel
        self._steps: List[StepResult] = []
        self._step_now: Optional[Tuple[Agent, float, Scribe]] = None
        self._started = time.monotonic()

    def run(self, input: Any) -> WorkflowRun:
        """Run the steps in this thread, writing into the log.

        Raises:
            WorkflowFailed, Cancelled: with `run`.
        """
        self._started = time.monotonic()
        try:
            self._log.append(
                EventType.WORKFLOW_STARTED,
                {
                    "workflow": self._workflow.name,
                    "steps": [{"name": s.name, "kind": "Agent"} for s in self._workflow.steps],
                },
            )
            for number, step in enumerate(self._workflow.steps):
                if self._cancel.cancelled:
                    raise Cancelled(f"the run was stopped: {self._cancel.reason}")
                input = self._step(str(number), step, input)
        except Cancelled as error:
            raise self._end_cancelled(error) from error.__cause__
        except BaseException as error:  # a SystemExit of user code ends a run, and no more
            raise self._end_failed(error) from error
        return self._end_completed(input)

    def give_up(self) -> Cancelled:
        """End the run as cancelled, in another thread than that of `run`; returns the error.

        For a run that has not begun, or does not stop: what its thread still
        says is dropped.
        """
        return self._end_cancelled(Cancelled())

    def refuse(self, error: AgentStreamError) -> WorkflowFailed:
        """End the run as failed before it has begun; returns the error."""
        failure = self._end_failed(error)
        failure.__cause__ = error
        return failure

    def _step(self, number: str, agent: Agent, input: Any) -> str:
        """Run one step; returns its output."""
        self._log.append(
            EventType.WORKFLOW_STEP_STARTED, {"step": number, "name": agent.name, "kind": "Agent"}
        )
        started = time.monotonic()
        scribe = Scribe(self._log, agent.name, number)
        self._step_now = (agent, started, scribe)
        try:
            output = self._drain(agent, input, scribe)
        except BaseException as error:
            status = "cancelled" if isinstance(error, Cancelled) else "failed"
            partial = error.partial if isinstance(error, AgentStreamError) else None
            usage = partial.usage if isinstance(partial, ChatResponse) else Usage()
            self._record(agent, started, scribe.text(), usage=usage, status=status)
            if status == "failed":
                data: Dict[str, Any] = {"step": number, "name": agent.name, "kind": "Agent"}
                self._try_append(EventType.WORKFLOW_STEP_FAILED, {**data, **describe(error)})
            raise
        result = self._record(
            agent, started, output.response,
            usage=output.usage, status="completed", rate=output.tokens_per_second,
        )  # fmt: skip
        self._log.append(
            EventType.WORKFLOW_STEP_COMPLETED,
            {
                "step": number,
                "name": agent.name,
                "kind": "Agent",
                "duration_ms": result.duration_ms,
                "output": result.output,
                "usage": result.usage.to_dict(),
                "tokens_per_second": result.tokens_per_second,
            },
        )
        return output.response

    def _drain(self, agent: Agent, input: Any, scribe: Scribe) -> AgentOutput:
        texts = agent.run(input, scribe, self._cancel)
        while True:
            try:
                next(texts)  # it has been published
            except StopIteration as end:
                output: AgentOutput = end.value
                return output

    def _record(
        self, agent: Agent, started: float, output: str, *, usage: Usage, status: str,
        rate: Optional[float] = None,
    ) -> StepResult:  # fmt: skip
        took = (time.monotonic() - started) * 1000
        result = StepResult(agent.name, "Agent", took, output, usage, rate, status)
        self._step_now = None
        self._steps.append(result)
        return result

    # --- the end: one terminal event, and it is the last ------------------------------------

    def _result(self, status: str, output: Optional[str] = None) -> WorkflowRun:
        usage: Optional[Usage] = None
        steps = list(self._steps)
        if self._step_now is not None:  # its thread did not stop
            agent, started, scribe = self._step_now
            took = (time.monotonic() - started) * 1000
            text = scribe.text()
            steps.append(StepResult(agent.name, "Agent", took, text, Usage(), None, status))
        for step in steps:
            usage = step.usage if usage is None else usage + step.usage
        if output is None:
            output = steps[-1].output if steps else ""
        return WorkflowRun(
            self._log.workflow_id, status, output, usage or Usage(), tuple(steps)
        )

    def _end_data(self, run: WorkflowRun) -> Dict[str, Any]:
        return {
            "workflow": self._workflow.name,
            "output": run.output,
            "usage": run.usage.to_dict(),
            "duration_ms": (time.monotonic() - self._started) * 1000,
        }

    def _end_completed(self, output: str) -> WorkflowRun:
        run = self._result("completed", output)
        try:
            self._log.append(EventType.WORKFLOW_COMPLETED, self._end_data(run))
        except LogError as error:
            raise self._failure(error, run) from error
        return run

    def _end_cancelled(self, error: Cancelled) -> Cancelled:
        run = self._result("cancelled")
        reason = self._cancel.reason or str(error)
        self._try_append(
            EventType.WORKFLOW_CANCELLED, {**self._end_data(run), "reason": reason}
        )
        return Cancelled(
            f"run {run.workflow_id} was stopped: {reason}",
            run=run,
            partial=error.partial,
            phase=error.phase,
        )

    def _end_failed(self, error: BaseException) -> WorkflowFailed:
        run = self._result("failed")
        failed = self._steps[-1].name if self._steps else None
        self._try_append(
            EventType.WORKFLOW_FAILED,
            {**self._end_data(run), "failed_step": failed, **describe(error)},
        )
        return self._failure(error, run)

    def _failure(self, error: BaseException, run: WorkflowRun) -> WorkflowFailed:
        where = f" in step {run.steps[-1].name!r}" if run.steps else ""
        known = error if isinstance(error, AgentStreamError) else AgentStreamError()
        return WorkflowFailed(
            f"run {run.workflow_id} failed{where}: {type(error).__name__}: {error}",
            run=run,
            partial=known.partial,
            phase=known.phase,
            retryable=known.retryable,
            request_id=known.request_id,
            outcome=known.outcome,
        )

    def _try_append(self, kind: EventType, data: Dict[str, Any]) -> None:
        """Append in the course of a failure; a log that fails too must not hide it."""
        try:
            self._log.append(kind, data)
        except LogError:
            logger.exception("%s of run %s is not in the log", kind.value, self._log.workflow_id)
