"""Execution: one run of a workflow, and Scope: what a step of it works with.

Runs in the thread that calls it, and in those it is lent, and says what happens
in the run's log; which threads these are, and who may stop it, is runtime.py's.
"""

from __future__ import annotations

import contextvars
import logging
import os
import threading
import time
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple

from agentstream import threads
from agentstream.agent import Agent
from agentstream.cancel import CancelToken
from agentstream.errors import (
    AgentStreamError,
    Cancelled,
    DeadlineExceeded,
    LogError,
    WorkflowFailed,
)  # fmt: skip
from agentstream.events.model import EventType
from agentstream.events.stream import RunLog
from agentstream.llm.messages import ChatResponse, Usage
from agentstream.llm.settings import Retries
from agentstream.scribe import Scribe, describe
from agentstream.workflow.branches import linked, side_by_side
from agentstream.workflow.context import Context, as_content, fill
from agentstream.workflow.definition import Step, Workflow
from agentstream.workflow.results import Progress, WorkflowRun

__all__ = ["Crew", "Execution", "Scope"]

logger = logging.getLogger("agentstream.workflow")

_WAITS = Retries()


class Crew:
    """What a run may ask of whoever runs it; this one has nothing to give."""

    def lend(self, work: Callable[[], object]) -> bool:
        """Run `work` in another thread, at once; False if there is none to be had."""
        return False

    def enter(self, workflow_id: str, token: CancelToken) -> None:
        """A run within this one has begun: `token` stops it."""

    def leave(self, workflow_id: str) -> None:
        """It has ended."""


class Execution:
    """One run of a workflow.  For runtime.py."""

    def __init__(
        self,
        workflow: Workflow,
        log: RunLog,
        cancel: CancelToken,
        *,
        context: Optional[Dict[str, Any]] = None,
        crew: Optional[Crew] = None,
    ) -> None:
        self.log = log
        self.crew = crew or Crew()
        self.values: Dict[str, Any] = {} if context is None else context
        self.lock = threading.RLock()
        self.steps: List[Progress] = []
        self._workflow = workflow
        self._cancel = cancel
        self._inner: List[Execution] = []
        self._started = time.monotonic()

    def run(self, input: Any) -> WorkflowRun:
        """Run the steps in this thread, writing into the log.

        Raises:
            WorkflowFailed, Cancelled: with `run`.
        """
        self._started = time.monotonic()
        workflow = self._workflow
        try:
            self.log.append(
                EventType.WORKFLOW_STARTED,
                {
                    "workflow": workflow.name,
                    "steps": [{"name": s.name, "kind": s.kind} for s in workflow.steps],
                },
            )
            steps = ((str(number), step) for number, step in enumerate(workflow.steps))
            output = self.one_after_the_other(steps, input, self._cancel, self.steps)
        except Cancelled as error:
            raise self._end_cancelled(error) from error.__cause__
        except BaseException as error:  # a SystemExit of user code ends a run, and no more
            raise self._end_failed(error) from error
        return self._end_completed(output)

    def give_up(self) -> Cancelled:
        """End the run as cancelled, in another thread than that of `run`; returns the error.

        For a run that has not begun, or does not stop: what its thread still
        says is dropped.
        """
        for inner in list(self._inner):
            inner.give_up()
        return self._end_cancelled(Cancelled())

    def refuse(self, error: AgentStreamError) -> WorkflowFailed:
        """End the run as failed before it has begun; returns the error."""
        failure = self._end_failed(error)
        failure.__cause__ = error
        return failure

    # --- a step -----------------------------------------------------------------------------

    def one_after_the_other(
        self, steps: Iterable[Tuple[str, Step]], input: Any, cancel: CancelToken,
        into: List[Progress],
    ) -> Any:  # fmt: skip
        """Run steps, each one's output the next one's input; returns the last one's."""
        for label, step in steps:
            if cancel.cancelled:
                raise Cancelled(f"the run was stopped: {cancel.reason}")
            input = self.step(step, label, input, cancel, into)
        return input

    def step(
        self, step: Step, label: str, input: Any, cancel: CancelToken, into: List[Progress]
    ) -> Any:
        """Run a step, as often as it may be tried; returns its output.

        What becomes of it is written to a new `Progress` in `into`.
        """
        progress = Progress(step, label)
        into.append(progress)
        attempt = 1
        while True:
            try:
                output = self._attempt(progress, input, cancel, attempt)
                break
            except BaseException as error:
                delay = _delay(step, error, attempt, cancel)
                self._note_failure(progress, error, attempt, delay)
                if delay is None:
                    raise
            if cancel.wait(delay):
                progress.end("cancelled")
                raise Cancelled(f"the run was stopped: {cancel.reason}")
            progress.begin_again()
            attempt += 1
        progress.output = output
        progress.end("completed")
        self._note_completed(progress)
        return output

    def _attempt(
        self, progress: Progress, input: Any, cancel: CancelToken, attempt: int
    ) -> Any:
        step = progress.step
        data: Dict[str, Any] = _head(progress)
        if attempt > 1:
            data["attempt"] = attempt
        scope = Scope(self, progress, cancel)
        if step.kind == "Workflow":
            data["run"] = scope.open_inner()
        self.log.append(EventType.WORKFLOW_STEP_STARTED, data)
        if step.timeout is None:
            return step._perform(scope, input)
        return _within(step.timeout, scope, input)

    def _note_failure(
        self, progress: Progress, error: BaseException, attempt: int, delay: Optional[float]
    ) -> None:
        stopped = isinstance(error, Cancelled)
        data = {**_head(progress), **describe(error)}
        if delay is not None:
            data.update(will_retry=True, attempt=attempt, delay_s=delay)
        else:
            progress.end("cancelled" if stopped else "failed")
        if not (stopped and self._cancel.cancelled):  # then the run's own end says so
            self._try_append(EventType.WORKFLOW_STEP_FAILED, data)

    def _note_completed(self, progress: Progress) -> None:
        result = progress.result("completed")
        self.log.append(
            EventType.WORKFLOW_STEP_COMPLETED,
            {
                **_head(progress),
                "duration_ms": result.duration_ms,
                "output": result.output,
                "usage": result.usage.to_dict(),
                "tokens_per_second": result.tokens_per_second,
            },
        )

    def inner(self, workflow: Workflow, log: RunLog, cancel: CancelToken) -> Execution:
        """A run within this one, which shares its context."""
        inner = Execution(workflow, log, cancel, context=self.values, crew=self.crew)
        inner.lock = self.lock
        self._inner.append(inner)
        return inner

    # --- the end: one terminal event, and it is the last ------------------------------------

    def _result(self, status: str, output: Any = None) -> WorkflowRun:
        usage: Optional[Usage] = None
        steps = list(self.steps)
        for step in steps:
            used = step.total()
            if used is not None:
                usage = used if usage is None else usage + used
        if status != "completed":
            output = steps[-1].said() if steps else ""
        return WorkflowRun(
            self.log.workflow_id, status, output, usage or Usage(),
            tuple(step.result(status) for step in steps),
        )  # fmt: skip

    def _end_data(self, run: WorkflowRun) -> Dict[str, Any]:
        return {
            "workflow": self._workflow.name,
            "output": run.output,
            "usage": run.usage.to_dict(),
            "duration_ms": (time.monotonic() - self._started) * 1000,
        }

    def _end_completed(self, output: Any) -> WorkflowRun:
        run = self._result("completed", output)
        try:
            self.log.append(EventType.WORKFLOW_COMPLETED, self._end_data(run))
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
        failed = self._failed_step()
        self._try_append(
            EventType.WORKFLOW_FAILED,
            {
                **self._end_data(run),
                "failed_step": None if failed is None else failed.step.name,
                "failed_at": None if failed is None else failed.label,
                **describe(error),
            },
        )
        return self._failure(error, run)

    def _failed_step(self) -> Optional[Progress]:
        return self.steps[-1].culprit() if self.steps else None

    def _failure(self, error: BaseException, run: WorkflowRun) -> WorkflowFailed:
        failed = self._failed_step()
        where = "" if failed is None else f" in step {failed.step.name!r}"
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
            self.log.append(kind, data)
        except LogError:
            logger.exception("%s of run %s is not in the log", kind.value, self.log.workflow_id)


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

    def note(self, kind: EventType, **data: Any) -> None:
        """Append an event of the step's."""
        self._execution.log.append(kind, {**_head(self._progress), **data})

    def ask(self, agent: Agent, prompt: Optional[str], input: Any) -> str:
        """Run an agent; returns its text."""
        name, progress = self.step.name, self._progress
        if prompt is None:
            content = as_content(input, name)
        else:
            content = fill(prompt, input, self._execution.values, name)
        scribe = Scribe(self._execution.log, agent.name, progress.label)
        progress.scribe = scribe
        texts = agent.run(content, scribe, self.cancel)
        try:
            while True:
                next(texts)  # it has been published
        except StopIteration as end:
            progress.spend(end.value.usage)
            progress.rate = end.value.tokens_per_second
            response: str = end.value.response
            return response
        except AgentStreamError as error:
            if isinstance(error.partial, ChatResponse):
                progress.spend(error.partial.usage)
            raise

    def call(self, function: Callable[..., Any], input: Any) -> Any:
        """Call a function in a thread that a cancel leaves behind; returns what it does."""
        arguments: Tuple[Any, ...] = (input,)
        if _takes_two(function):
            execution = self._execution
            arguments = (input, Context(
                execution.values, execution.lock, self.cancel,
                execution.log.workflow_id, self._progress.label,
            ))  # fmt: skip
        context = contextvars.copy_context()  # a run that it starts is one within this
        try:
            return threads.abandonable(
                "step", lambda: context.run(function, *arguments), self.cancel
            )
        except FutureTimeout:
            if self.cancel.cancelled:
                raise Cancelled(f"the run was stopped: {self.cancel.reason}") from None
            raise  # its own

    def run(self, part: str, step: Step, input: Any) -> Any:
        """Run a step within this one; returns its output."""
        return self.one_after_the_other(((part, step),), input)

    def one_after_the_other(self, steps: Iterable[Tuple[str, Step]], input: Any) -> Any:
        """Run steps within this one; returns the last one's output."""
        label, progress = self._progress.label, self._progress
        return self._execution.one_after_the_other(
            ((f"{label}.{part}", step) for part, step in steps), input, self.cancel,
            progress.within,
        )  # fmt: skip

    def side_by_side(
        self, branches: Mapping[str, Step], input: Any, *, fail_fast: bool
    ) -> Dict[str, Any]:
        """Run steps within this one at once; returns outputs, or errors, by name."""
        execution, progress = self._execution, self._progress
        progress.places = {f"{progress.label}.{name}": name for name in branches}

        def run(name: str, step: Step) -> Callable[[CancelToken], Any]:
            label = f"{progress.label}.{name}"
            return lambda token: execution.step(step, label, input, token, progress.within)

        work = {name: run(name, step) for name, step in branches.items()}
        return side_by_side(work, self.cancel, execution.crew.lend, fail_fast=fail_fast)

    def open_inner(self) -> str:
        """Begin the log of a run within this one; returns its id."""
        self._inner_log = self._execution.log.open_child(os.urandom(8).hex())
        return self._inner_log.workflow_id

    def run_inner(self, workflow: Workflow, input: Any) -> Any:
        """Run the workflow whose log `open_inner` began; returns its output."""
        log = self._inner_log
        assert log is not None
        with linked(self.cancel) as token:
            inner = self._execution.inner(workflow, log, token)
            self._progress.within = inner.steps
            crew = self._execution.crew
            crew.enter(log.workflow_id, token)
            try:
                return inner.run(input).output
            finally:
                crew.leave(log.workflow_id)


def _head(progress: Progress) -> Dict[str, Any]:
    step = progress.step
    return {"step": progress.label, "name": step.name, "kind": step.kind}


def _within(timeout: float, scope: Scope, input: Any) -> Any:
    """Perform a step, and stop it after `timeout` seconds."""
    outer = scope.cancel
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
                partial=error.partial, phase=error.phase, retryable=True, outcome=error.outcome,
            ) from error  # fmt: skip
        finally:
            alarm.stop()


def _delay(
    step: Step, error: BaseException, attempt: int, cancel: CancelToken
) -> Optional[float]:
    """Seconds before a further attempt; None: there is none."""
    if attempt > step.retries or cancel.cancelled or not _may_pass(error):
        return None
    delay = _WAITS.delay(attempt - 1)
    asked = getattr(error, "retry_after", None) or 0.0
    return None if asked > _WAITS.max_retry_after else max(delay, asked)


def _may_pass(error: Optional[BaseException]) -> bool:
    if isinstance(error, WorkflowFailed):  # of a workflow within
        return _may_pass(error.__cause__)
    if isinstance(error, AgentStreamError):
        return error.retryable or isinstance(error, TimeoutError)
    return isinstance(error, Exception)


def _takes_two(function: Callable[..., Any]) -> bool:
    """True if it takes the context too: a second argument that must be given, or is so named."""
    import inspect  # noqa: PLC0415 - ten milliseconds that only who uses functions pays

    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some builtins do not say
        return False
    by_position = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    if len(parameters) < 2 or parameters[1].kind not in by_position:
        return False
    second = parameters[1]
    return second.default is inspect.Parameter.empty or second.name == "context"
