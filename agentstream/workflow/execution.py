"""Execution: one run of a workflow: its steps' attempts, and its one end.

Runs in the thread that calls it, and in those it is lent, and says what happens
in the run's log; which threads these are, and who may stop it, is runtime.py's.
What a step works with is scope.py's, what is done for each kind perform.py's, what is
kept for another process to go on with checkpoints.py's.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Optional, Tuple

from agentstream.agent.budget import bearing
from agentstream.cancel import CancelToken
from agentstream.errors import (
    AgentStreamError,
    Cancelled,
    DeadlineExceeded,
    LogError,
    Suspended,
    WorkflowFailed,
)
from agentstream.events import payloads
from agentstream.events.model import EventType
from agentstream.events.stream import RunLog
from agentstream.llm.settings import Retries
from agentstream.results import Usage, WorkflowRun
from agentstream.text import safe_str
from agentstream.workflow.checkpoints import place_of
from agentstream.workflow.definition import Step, Workflow
from agentstream.workflow.host import NoHost, RunHost
from agentstream.workflow.perform import perform
from agentstream.workflow.progress import (
    RestoredStep,
    StepState,
    last_finish_reason,
    named_warnings,
    to_json,
)
from agentstream.workflow.scope import Scope

if TYPE_CHECKING:
    from agentstream.agent.budget import Budget, Spending
    from agentstream.agent.conversation import Conversation
    from agentstream.workflow.run_checkpoints import RunCheckpoints

__all__ = ["Execution"]

logger = logging.getLogger("agentstream.workflow")

_WAITS = Retries()
#: Kinds of steps that call no function of the user's: their errors say enough.
_SELF_EVIDENT = ("Agent", "Workflow")


class Execution:
    """One run of a workflow.  For runtime.py.

    Attributes:
        checkpoints: what is kept of the run and of those within it; None: nothing is.
        key: what the idempotency keys of its calls are made of.
        prefix: what the places of its steps begin with; "" but within another run.
        conversation: that of the run's agent.
        spending: what the requests of its agents count on; None: there is no budget.
        late: set by whoever cancels the run because its time is over: why it failed.
    """

    def __init__(
        self,
        workflow: Workflow,
        log: RunLog,
        cancel: CancelToken,
        *,
        context: Optional[Dict[str, Any]] = None,
        conversation: Optional[Conversation] = None,
        host: Optional[RunHost] = None,
        checkpoints: Optional[RunCheckpoints] = None,
    ) -> None:
        self.checkpoints = checkpoints
        self.key = log.workflow_id
        self.prefix = ""
        self.spending: Optional[Spending] = None
        self._budget: Optional[Budget] = None
        self.conversation = conversation
        self.late: Optional[DeadlineExceeded] = None
        self.log = log
        self.host = host or NoHost()
        self.values: Dict[str, Any] = {} if context is None else context
        self.lock = threading.RLock()
        self.steps: List[StepState] = []
        self._workflow = workflow
        self._cancel = cancel
        self._inner: List[Execution] = []
        self._is_within = False
        self._started = time.monotonic()

    def run(self, input: Any) -> WorkflowRun:
        """Run the steps in this thread, writing into the log.

        Of a run that waits for somebody's answer, the `WorkflowRun` says for what.

        Raises:
            WorkflowFailed, Cancelled: with `run`.
            Suspended: somebody must answer; of a run within another.
        """
        self._started = time.monotonic()
        workflow = self._workflow
        try:
            self.bear(workflow.budget, f"workflow {workflow.name!r}", f"{self.prefix}|spent")
            self.log.note(*self._beginning(), about=self._queued_in())
            steps = ((str(number), step) for number, step in enumerate(workflow.steps))
            output = self.one_after_the_other(steps, input, self._cancel, self.steps)
        except Suspended as error:
            run = self._end_resting("suspended", "somebody must answer", error)
            if self._is_within:
                raise
            return run
        except Cancelled as error:
            if self._is_left():
                raise self._end_left(error) from error.__cause__
            if self.late is None:
                raise self._end_cancelled(error) from error.__cause__
            self.late.partial = error.partial
            raise self._end_failed(self.late) from self.late
        except BaseException as error:  # a SystemExit of user code ends a run, and no more
            if self._is_left():  # what fails as a process ends may be right in the next one
                raise self._end_left(Cancelled()) from error
            raise self._end_failed(error) from error
        return self._end_completed(output)

    def bear(self, budget: Optional[Budget], whose: str, key: str) -> None:
        """Have the run's requests count on a budget too, if there is one.

        Args:
            whose: whose budget it is.
            key: a run that is kept keeps what has been spent under it.
        """
        if budget is not None:
            kept = None if self.checkpoints is None else (self.checkpoints, key)
            self.spending = bearing(budget, whose, self.spending, kept)
            self._budget = budget.with_bounds(self._budget)

    def _beginning(self) -> Tuple[EventType, Dict[str, Any]]:
        """The event that the run, or its further part, begins with."""
        workflow, kept = self._workflow, self.checkpoints
        if kept is not None and self.log.offset:
            from agentstream.workflow.resting import resumption  # noqa: PLC0415 - few runs do

            return EventType.WORKFLOW_RESUMED, resumption(kept, workflow, self.prefix)
        named = ((step.name, step.kind) for step in workflow.steps)
        budget = None if self._budget is None else self._budget.to_dict()
        return EventType.WORKFLOW_STARTED, payloads.workflow_started(workflow.name, named, budget)

    def _queued_in(self) -> Optional[str]:
        """The traceparent of who queued the run, in another process perhaps; None for none."""
        if self.checkpoints is None or self._is_within or self.log.offset:
            return None
        said = self.checkpoints.get("run")
        return None if said is None else said.get("traceparent")

    def give_up(self) -> AgentStreamError:
        """End the run as stopped, in another thread than that of `run`; returns the error.

        For a run that has not begun, or does not stop: what its thread still
        says is dropped.
        """
        for inner in list(self._inner):
            inner.give_up()
        if self._is_left():
            return self._end_left(Cancelled())
        if self.late is not None:
            return self.refuse(self.late)
        return self._end_cancelled(Cancelled())

    def refuse(self, error: AgentStreamError) -> WorkflowFailed:
        """End the run as failed, in another thread than that of `run`; returns the error."""
        failure = self._end_failed(error)
        failure.__cause__ = error
        return failure

    # --- a step -----------------------------------------------------------------------------

    def one_after_the_other(
        self,
        steps: Iterable[Tuple[str, Step]],
        input: Any,
        cancel: CancelToken,
        into: List[StepState],
    ) -> Any:
        """Run steps, each one's output the next one's input; returns the last one's."""
        for label, step in steps:
            if cancel.cancelled:
                raise Cancelled(f"the run was stopped: {cancel.reason}")
            input = self.step(step, label, input, cancel, into)
        return input

    def step(
        self, step: Step, label: str, input: Any, cancel: CancelToken, into: List[StepState]
    ) -> Any:
        """Run a step, as often as it may be tried; returns its output.

        What becomes of it is written to a new `StepState` in `into`.
        """
        place = place_of(self.prefix, label)
        done = None if self.checkpoints is None else self.checkpoints.done(place)
        if done is not None and (done[0].name, done[0].kind) == (step.name, step.kind):
            into.append(RestoredStep(step, label, *done))
            return done[0].output
        state = StepState(step, label)
        into.append(state)
        attempt = self._begin(state, place)
        while True:
            try:
                output = self._attempt(state, input, cancel, attempt)
                break
            except Suspended:
                state.end("suspended")
                raise
            except BaseException as error:
                delay = _delay(step, error, attempt, cancel)
                self._note_failure(state, error, attempt, delay)
                if delay is None:
                    raise
            if cancel.wait(delay):
                stop = Cancelled(f"the run was stopped: {cancel.reason}")
                self._note_failure(state, stop, attempt, None)
                raise stop
            state.begin_again()
            attempt += 1
            if self.checkpoints is not None:
                self.checkpoints.keep_attempt(place, attempt, state.usage)
        state.output = output
        state.end("completed")
        self._note_completed(state, place)
        return output

    def _begin(self, state: StepState, place: str) -> int:
        """Take over what an earlier process spent on a step; returns which try is due."""
        if self.checkpoints is None:
            return 1
        state.worked(self.checkpoints.begun(place))
        attempt, usage = self.checkpoints.attempt(place)
        state.spend(usage)
        return attempt

    def _attempt(self, state: StepState, input: Any, cancel: CancelToken, attempt: int) -> Any:
        step = state.step
        scope = Scope(self, state, cancel)
        inner = scope.open_inner() if step.kind == "Workflow" else None
        self.log.note(
            EventType.WORKFLOW_STEP_STARTED,
            payloads.workflow_step_started(
                state.head(), attempt=attempt, run=inner, items=_items(step, input)
            ),
        )
        return perform(scope, input)

    def _note_failure(
        self, state: StepState, error: BaseException, attempt: int, delay: Optional[float]
    ) -> None:
        stopped = isinstance(error, Cancelled)
        if not (stopped or state.step.kind in _SELF_EVIDENT or state.failed_step() is not state):
            logger.debug("step %.80r failed", state.step.name, exc_info=error)
        data = payloads.workflow_step_failed(state.head(), error, attempt=attempt, delay_s=delay)
        if delay is None:
            state.end("cancelled" if stopped else "failed")
        if not (stopped and self._cancel.cancelled):  # then the run's own end says so
            self._try_append(EventType.WORKFLOW_STEP_FAILED, data)

    def _note_completed(self, state: StepState, place: str) -> None:
        result = state.result("completed")
        resumable = True
        if self.checkpoints is not None:
            named = list(state.named_warnings())
            resumable = self.checkpoints.keep_done(place, result, named, used=state.used)
        if not resumable:
            remark = f"step {state.step.name!r}: its output cannot be kept: no process can go on"
            state.remarks.append(remark)
            result = state.result("completed")
            data = {**state.head(), **payloads.system_warning(remark)}
            self.log.append(EventType.SYSTEM_WARNING, data)
        self.log.note(
            EventType.WORKFLOW_STEP_COMPLETED,
            payloads.workflow_step_completed(
                state.head(),
                duration_s=result.duration_s,
                output=to_json(result.output),
                usage=result.usage.to_dict(),
                tokens_per_second=result.tokens_per_second,
                finish_reason=result.finish_reason,
                warnings=result.warnings,
                resumable=resumable,
            ),
        )

    def inner(
        self,
        workflow: Workflow,
        log: RunLog,
        cancel: CancelToken,
        prefix: str,
        spending: Optional[Spending],
    ) -> Execution:
        """A run within this one, which shares its context; its requests count on `spending`."""
        inner = Execution(
            workflow,
            log,
            cancel,
            context=self.values,
            host=self.host,
            checkpoints=self.checkpoints,
        )
        inner.lock, inner.key, inner.prefix = self.lock, self.key, prefix
        inner.spending = spending
        inner._is_within = True
        self._inner.append(inner)
        return inner

    def forget(self, inner: Execution) -> None:
        """It has ended."""
        self._inner.remove(inner)

    # --- the end: one terminal event, and it is the last ------------------------------------

    def _result(self, status: str, output: Any = None) -> WorkflowRun:
        steps = list(self.steps)
        if status != "completed":
            output = steps[-1].said() if steps else ""
        return WorkflowRun(
            self.log.workflow_id,
            status,
            output,
            sum((step.total() for step in steps), Usage()),
            tuple(step.result(status) for step in steps),
            self._took(),
            last_finish_reason(steps),
            tuple(named_warnings(steps)),
        )

    def _took(self) -> float:
        """Seconds that processes have worked on the run."""
        if self.checkpoints is not None and not self._is_within:
            return self.checkpoints.elapsed
        return time.monotonic() - self._started

    def _is_left(self) -> bool:
        """True if the process leaves the run for another one to go on with."""
        return self.checkpoints is not None and self.checkpoints.leaving and self.late is None

    def _end_left(self, error: Cancelled) -> Cancelled:
        """End what this process does for the run, which another one may resume."""
        reason = self._cancel.reason or str(error)
        run = self._end_resting("interrupted", reason, Suspended())
        return Cancelled(
            f"run {run.workflow_id} was interrupted, and can be resumed: {reason}",
            run=run,
            partial=error.partial,
            phase=error.phase,
        )

    def _end_resting(self, status: str, reason: str, error: Suspended) -> WorkflowRun:
        """End what this process does for the run, which goes on when it is resumed."""
        run = self._result(status)._replace(pending=error.pending)
        from agentstream.workflow.resting import suspension  # noqa: PLC0415 - few runs do

        data = suspension(self._end_data(run), status, reason, error.pending)
        if self.checkpoints is not None and error.pending and not self._is_within:
            with contextlib.suppress(LogError):  # then its last event cannot be written either
                self.checkpoints.keep_pending(data["pending"])
        self._try_append(EventType.WORKFLOW_SUSPENDED, data)
        if not self._is_within:
            with contextlib.suppress(LogError):  # who is told that it rests may tell others
                self.log.flush()
        return run

    def _end_data(self, run: WorkflowRun) -> Dict[str, Any]:
        return payloads.run_end(
            self._workflow.name,
            to_json(run.output),
            run.usage.to_dict(),
            run.duration_s,
            finish_reason=run.finish_reason,
            warnings=run.warnings,
        )

    def _end_completed(self, output: Any) -> WorkflowRun:
        run = self._result("completed", output)
        try:
            end = payloads.workflow_completed(self._end_data(run))
            self.log.note(EventType.WORKFLOW_COMPLETED, end)
        except LogError as error:
            raise self._failure(error, run) from error
        return run

    def _end_cancelled(self, error: Cancelled) -> Cancelled:
        run = self._result("cancelled")
        reason = self._cancel.reason or str(error)
        end = payloads.workflow_cancelled(self._end_data(run), reason=reason)
        self._try_append(EventType.WORKFLOW_CANCELLED, end)
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
            payloads.workflow_failed(
                self._end_data(run),
                payloads.failure(error),
                failed_step=None if failed is None else failed.step.name,
                failed_at=None if failed is None else failed.label,
            ),
        )
        return self._failure(error, run)

    def _failed_step(self) -> Optional[StepState]:
        return self.steps[-1].failed_step() if self.steps else None

    def _failure(self, error: BaseException, run: WorkflowRun) -> WorkflowFailed:
        failed = self._failed_step()
        where = "" if failed is None else f" in step {failed.step.name!r}"
        known = error if isinstance(error, AgentStreamError) else AgentStreamError()
        why = ": ".join(filter(None, (type(error).__name__, safe_str(error))))
        return WorkflowFailed(
            f"run {run.workflow_id} failed{where}: {why}",
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
            self.log.note(kind, data)
        except LogError as error:
            run = self.log.workflow_id
            logger.error("%s of run %s is not in the log: %s", kind.value, run, error)


def _items(step: Step, input: Any) -> Optional[int]:
    """How many items a `Map` has; None for another step, or no list."""
    return len(input) if step.kind == "Map" and isinstance(input, (list, tuple)) else None


def _delay(step: Step, error: BaseException, attempt: int, cancel: CancelToken) -> Optional[float]:
    """Seconds before a further attempt; None: there is none."""
    cause: Optional[BaseException] = error
    while isinstance(cause, WorkflowFailed):  # of a workflow within
        cause = cause.__cause__
    if attempt > step.retries or cancel.cancelled or not _may_pass(cause):
        return None
    delay = _WAITS.delay(attempt - 1)
    known = isinstance(cause, AgentStreamError)  # a stranger's attribute may be anything
    asked = (getattr(cause, "retry_after", None) or 0.0) if known else 0.0
    return None if asked > _WAITS.max_retry_after else max(delay, asked)


def _may_pass(error: Optional[BaseException]) -> bool:
    if isinstance(error, AgentStreamError):
        return error.retryable or isinstance(error, TimeoutError)
    return isinstance(error, Exception)
