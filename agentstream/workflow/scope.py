"""Scope: what a step works with while it runs; and `perform`, which gives it its time.

Asks agents, calls functions, runs the steps and workflows within.  How often a
step is tried, and what is said of it, is execution.py's.
"""

from __future__ import annotations

import contextvars
import logging
import time
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Mapping, Optional, Tuple

from agentstream import threads
from agentstream.agent.agent import Agent
from agentstream.agent.journal import AgentLog
from agentstream.agent.run import AgentRun
from agentstream.cancel import CancelToken
from agentstream.errors import AgentStreamError, Cancelled, DeadlineExceeded, WorkflowFailed
from agentstream.events.model import EventType, new_id
from agentstream.events.stream import RunLog
from agentstream.tools.context import RunContext
from agentstream.workflow.branches import Outcome, blamed, linked, side_by_side
from agentstream.workflow.context import as_content, fill
from agentstream.workflow.definition import Step, Workflow, takes_two
from agentstream.workflow.progress import Progress

if TYPE_CHECKING:
    from agentstream.workflow.execution import Execution

__all__ = ["Scope", "perform"]

logger = logging.getLogger("agentstream.workflow")


class Scope:
    """One attempt at a step: where it belongs, and what it may do."""

    __slots__ = ("_execution", "_inner_log", "_progress", "cancel")

    def __init__(self, execution: Execution, progress: Progress, cancel: CancelToken) -> None:
        self._execution = execution
        self._progress = progress
        self._inner_log: Optional[RunLog] = None
        self.cancel = cancel

    @property
    def step(self) -> Step:
        """The step."""
        return self._progress.step

    def note(self, kind: EventType, data: Mapping[str, Any]) -> None:
        """Append an event of the step's."""
        self._execution.log.append(kind, {**self._progress.head(), **data})

    def ask(self, agent: Agent, prompt: Optional[str], input: Any) -> str:
        """Run an agent; returns its text."""
        name, progress = self.step.name, self._progress
        if prompt is None:
            content = as_content(input, name)
        else:
            content = fill(prompt, input, self._execution.values, name)
        log = AgentLog(self._execution.log, agent.name, progress.label)
        run = AgentRun(agent.settings, content, log, self._context(agent.name))
        progress.agent_run = run
        try:
            for _ in run.texts():
                pass  # it has been published
        finally:
            progress.spend(run.usage())
        output = run.output
        assert output is not None
        progress.rate = output.tokens_per_second
        return output.response

    def _context(self, agent: str = "") -> RunContext:
        """The run as the step's function, or its agent's tools, see it."""
        execution = self._execution
        return RunContext(
            execution.log.workflow_id,
            agent,
            self._progress.label,
            cancel=self.cancel,
            values=execution.values,
            lock=execution.lock,
            within=self._run_agent,
        )

    def call(self, function: Callable[..., Any], input: Any) -> Any:
        """Call a function in a thread that a cancel leaves behind; returns what it does."""
        execution = self._execution
        arguments: Tuple[Any, ...] = (input,)
        if takes_two(function):
            arguments = (input, self._context())
        # Let go of when it begins: it leads to the run's error, whose traceback leads here.
        contexts = [contextvars.copy_context()]
        execution.host.bind(contexts[0], execution.log.workflow_id, self.cancel)

        def work() -> Any:
            return contexts.pop().run(function, *arguments)

        try:
            output = threads.abandonable("step", work, self.cancel)
            if self.cancel.cancelled:  # what it returned because of that is no result
                raise Cancelled(f"the run was stopped: {self.cancel.reason}")
            return output
        except Cancelled:
            raise
        except BaseException as error:
            if self.cancel.cancelled:  # whatever it raised: that was why
                raise Cancelled(
                    f"the run was stopped: {self.cancel.reason}",
                    partial=error.partial if isinstance(error, AgentStreamError) else None,
                ) from None if isinstance(error, FutureTimeout) else error
            if not contexts or not isinstance(error, RuntimeError):
                raise
        logger.warning("no thread for a function: it cannot be left behind")
        return work()

    def run(self, part: str, step: Step, input: Any) -> Any:
        """Run a step within this one; returns its output."""
        return self.one_after_the_other(((part, step),), input)

    def one_after_the_other(self, steps: Iterable[Tuple[str, Step]], input: Any) -> Any:
        """Run steps within this one; returns the last one's output."""
        label, progress = self._progress.label, self._progress
        return self._execution.one_after_the_other(
            ((f"{label}.{part}", step) for part, step in steps),
            input,
            self.cancel,
            progress.within,
        )

    def side_by_side(
        self, branches: Mapping[str, Step], input: Any, *, fail_fast: bool
    ) -> Dict[str, Outcome]:
        """Run steps within this one at once; returns what came of each, by name.

        Raises:
            The error that ends this step: with `fail_fast` the first, else one
            if all of them failed.
        """
        execution, progress = self._execution, self._progress
        progress.places = {f"{progress.label}.{name}": name for name in branches}

        def run(name: str, step: Step) -> Callable[[CancelToken], Any]:
            label = f"{progress.label}.{name}"
            return lambda token: execution.step(step, label, input, token, progress.within)

        work = {name: run(name, step) for name, step in branches.items()}
        outcomes = side_by_side(work, self.cancel, execution.host.lend, fail_fast=fail_fast)
        name = blamed(outcomes, self.cancel, fail_fast=fail_fast)
        error = None if name is None else outcomes[name].error
        if error is None:
            return outcomes
        progress.blamed = f"{progress.label}.{name}"
        try:
            raise error
        finally:
            del outcomes, error  # no cycle through its traceback

    def open_inner(self) -> str:
        """Begin the log of a run within this one; returns its id."""
        self._inner_log = self._execution.log.open_child(new_id())
        return self._inner_log.workflow_id

    def run_inner(self, workflow: Workflow, input: Any) -> Any:
        """Run the workflow whose log `open_inner` began; returns its output."""
        log = self._inner_log
        assert log is not None
        return self._run_within(workflow, log, input, self.cancel, self._progress)

    def _run_agent(self, agent: Agent, input: Any, context: RunContext) -> str:
        """Run an agent, which a tool or function asks for, as a workflow within this run."""
        log = self._execution.log.open_child(new_id())
        text: str = self._run_within(Workflow(agent.name, [agent]), log, input, context.cancel)
        return text

    def _run_within(
        self,
        workflow: Workflow,
        log: RunLog,
        input: Any,
        cancel: CancelToken,
        progress: Optional[Progress] = None,
    ) -> Any:
        """Run a workflow within this run; `progress` is told its steps."""
        with linked(cancel) as token:
            inner = self._execution.inner(workflow, log, token)
            if progress is not None:
                progress.within = inner.steps
            host = self._execution.host
            host.enter(log.workflow_id, token)
            context = contextvars.copy_context()
            host.bind(context, log.workflow_id, token)
            try:
                return context.run(inner.run, input).output
            finally:
                del context  # as in `call`
                host.leave(log.workflow_id)
                self._execution.forget(inner)


def perform(scope: Scope, input: Any) -> Any:
    """Do the scope's step once, within its timeout if it has one; returns its output."""
    outer, timeout = scope.cancel, scope.step.timeout
    if timeout is None:
        return scope.step._perform(scope, input)
    with linked(outer) as token:
        scope.cancel = token
        alarm = threads.Alarm(lambda _: token.cancel("its time is over"), grain=timeout)
        threads.arm(alarm, time.monotonic() + timeout)
        try:
            return scope.step._perform(scope, input)
        except (Cancelled, WorkflowFailed) as error:
            if outer.cancelled or not token.cancelled:
                raise
            raise DeadlineExceeded(
                f"step {scope.step.name!r} did not end within {timeout:g} s (timeout)",
                partial=error.partial,
                phase=error.phase,
                retryable=True,
                outcome=error.outcome,
            ) from error
        finally:
            alarm.stop()
