"""Scope: what a step works with while it runs.

Asks agents, calls functions, runs the steps and workflows within.  How often a
step is tried, and what is said of it, is execution.py's.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from concurrent.futures import TimeoutError as FutureTimeout
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    Optional,
    Protocol,
    Set,
    Tuple,
)

from agentstream import threads
from agentstream.agent.agent import Agent
from agentstream.agent.journal import AgentLog
from agentstream.agent.run import AgentRun
from agentstream.cancel import CancelToken
from agentstream.errors import (
    AgentStreamError,
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    Suspended,
)
from agentstream.events import payloads
from agentstream.events.model import EventType, new_id
from agentstream.events.stream import RunLog
from agentstream.results import PendingSignal, WorkflowRun
from agentstream.tools.context import RunContext, key_of
from agentstream.workflow.branches import (
    Outcome,
    first_failure,
    linked,
    side_by_side,
    suspended,
)
from agentstream.workflow.checkpoints import place_of
from agentstream.workflow.context import answered, as_content, fill
from agentstream.workflow.definition import Step, Workflow, takes_two
from agentstream.workflow.host import RunHost
from agentstream.workflow.progress import StepState, input_as_text
from agentstream.workflow.waiting import MISSING, Wait

if TYPE_CHECKING:
    from agentstream.agent.budget import Spending
    from agentstream.agent.conversation import Conversation
    from agentstream.workflow.run_checkpoints import RunCheckpoints

__all__ = ["Execution", "Scope"]

logger = logging.getLogger("agentstream.workflow")


class Execution(Protocol):
    """What a scope needs of the run that it is part of; execution.py has it.

    Attributes:
        log: the run's.
        values, lock: what the run's steps share.
        conversation: that of the run's agent.
        host: lends threads.
        steps: those that have begun.
        checkpoints, key, prefix, spending: as execution.py has them.
    """

    log: RunLog
    values: Dict[str, Any]
    lock: threading.RLock
    conversation: Optional[Conversation]
    host: RunHost
    steps: List[StepState]
    checkpoints: Optional[RunCheckpoints]
    key: str
    prefix: str
    spending: Optional[Spending]

    def run(self, input: Any) -> WorkflowRun:
        """Run the steps; raises WorkflowFailed or Cancelled, with `run`."""

    def step(
        self, step: Step, label: str, input: Any, cancel: CancelToken, into: List[StepState]
    ) -> Any:
        """Run a step, as often as it may be tried; its state is added to `into`."""

    def one_after_the_other(
        self,
        steps: Iterable[Tuple[str, Step]],
        input: Any,
        cancel: CancelToken,
        into: List[StepState],
    ) -> Any:
        """Run steps, each one's output the next one's input."""

    def inner(
        self,
        workflow: Workflow,
        log: RunLog,
        cancel: CancelToken,
        prefix: str,
        spending: Optional[Spending],
    ) -> Execution:
        """A run within this one, which shares its values."""

    def forget(self, inner: Any) -> None:
        """Unregister a run within this one that has ended."""


class Scope:
    """One attempt at a step: its place in the run, and what it does there."""

    __slots__ = ("_agents", "_execution", "_inner_log", "_place", "_state", "cancel")

    def __init__(self, execution: Execution, state: StepState, cancel: CancelToken) -> None:
        self._execution = execution
        self._state = state
        self._place = place_of(execution.prefix, state.label)
        self._inner_log: Optional[RunLog] = None
        self._agents: Dict[str, Set[int]] = {}  # run by a function or a tool, by its key
        self.cancel = cancel

    @property
    def step(self) -> Step:
        """The step."""
        return self._state.step

    def note(self, kind: EventType, data: Mapping[str, Any]) -> None:
        """Append an event of the step's."""
        self._execution.log.append(kind, {**self._state.head(), **data})

    def warn(self, remark: str) -> None:
        """Note something odd about the step, which is no error."""
        self._state.remarks.append(remark)
        self.note(EventType.SYSTEM_WARNING, payloads.system_warning(remark))

    def ask(self, agent: Agent, prompt: Optional[str], input: Any) -> Any:
        """Run an agent; returns its text, or its value if it has an `output`."""
        name, state = self.step.name, self._state
        if prompt is None:
            content = as_content(input, name)
        else:
            content = fill(prompt, input, self._execution.values, name)
        log = AgentLog(self._execution.log, agent.name, state.label)
        settings, on_cut = agent.settings, self.step.on_cut
        if on_cut is not None:
            settings = settings.replace(on_cut=on_cut)
        context = self._context(agent.name)
        kept = self._execution.checkpoints
        run = AgentRun(
            settings,
            content,
            log,
            context,
            self._execution.conversation,
            checkpoint=None if kept is None else kept.agent(self._place),
        )
        state.agent_run = run
        try:
            for _ in run.texts():
                pass  # it has been published
        finally:
            state.spend(run.usage())
        output = run.output
        assert output is not None
        state.rate = output.tokens_per_second
        return output.response if settings.output is None else answered(output.value)

    def _context(self, agent: str = "") -> RunContext:
        """The run as the step's function, or its agent's tools, see it."""
        execution = self._execution
        return RunContext(
            execution.log.workflow_id,
            agent,
            self._state.label,
            cancel=self.cancel,
            values=execution.values,
            lock=execution.lock,
            within=self._run_agent,
            idempotency_key=key_of(execution.key, self._place),
            spending=execution.spending,
        )

    def call(self, function: Callable[..., Any], input: Any) -> Any:
        """Call a function in a thread that a cancel leaves behind; returns what it does."""
        execution = self._execution
        if execution.checkpoints is not None:
            execution.checkpoints.settle()  # what is done is known before anything else is
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

    def decide(self, name: str, function: Callable[..., Any], input: Any) -> bool:
        """Call a predicate; an earlier process's answer holds."""
        kept = self._execution.checkpoints
        if kept is None:
            return bool(self.call(function, input))
        key = f"{self._place}|{name}"
        known = kept.get(key)
        if known is None:
            known = bool(self.call(function, input))
            kept.put({key: known})
        return bool(known)

    def wait(self, step: Wait) -> Any:
        """Take the value that a step waits for.

        Raises:
            Suspended: it has not come yet.
            DeadlineExceeded: it has not come in time, and nothing stands for it.
            ConfigError: nothing is kept of the run.
        """
        kept, label = self._execution.checkpoints, self._state.label
        if kept is None:
            raise ConfigError(
                f"step {self.step.name!r} waits for a value from outside, which only a run with"
                " checkpoints can: Runtime(checkpoints=True)"
            )
        name, seconds = step.name, step.wait_s
        key = f"{self._place}|since"
        since = kept.get(key)
        due = None if seconds is None else (since or time.time()) + seconds
        found = kept.signal(name, self._place)
        if found is not None and (due is None or found["at"] <= due):
            self._state.used = f"signal:{name}"
            return found["value"]
        if since is None:
            since = time.time()
            kept.put({key: since})
            due = None if seconds is None else since + seconds
        if due is None or time.time() < due:
            pending = PendingSignal(name, label, due)
            raise Suspended(f"the run waits for {name!r}", pending=(pending,))
        if step.otherwise is not MISSING:
            return step.otherwise
        raise DeadlineExceeded(f"step {self.step.name!r}: no {name!r} came within {seconds:g} s")

    def run(self, part: str, step: Step, input: Any) -> Any:
        """Run a step within this one; returns its output."""
        return self.one_after_the_other(((part, step),), input)

    def one_after_the_other(self, steps: Iterable[Tuple[str, Step]], input: Any) -> Any:
        """Run steps within this one; returns the last one's output."""
        label, state = self._state.label, self._state
        return self._execution.one_after_the_other(
            ((f"{label}.{part}", step) for part, step in steps),
            input,
            self.cancel,
            state.within,
        )

    def side_by_side(
        self,
        branches: Mapping[str, Tuple[Step, Any]],
        *,
        fail_fast: bool,
        at_most: Optional[int] = None,
    ) -> Dict[str, Outcome]:
        """Run steps within this one at once, each on its input; returns the outcomes by name.

        Raises:
            The error that ends this step: with `fail_fast` the first, else one
            if all of them failed.
            Suspended: some of them wait for somebody's answer, and the others have ended.
        """
        execution, state = self._execution, self._state
        state.places = {f"{state.label}.{name}": name for name in branches}

        def run(name: str, step: Step, input: Any) -> Callable[[CancelToken], Any]:
            label = f"{state.label}.{name}"
            return lambda token: execution.step(step, label, input, token, state.within)

        work = {name: run(name, *branch) for name, branch in branches.items()}
        outcomes = side_by_side(
            work, self.cancel, execution.host.lend, fail_fast=fail_fast, at_most=at_most
        )
        name = first_failure(outcomes, self.cancel, fail_fast=fail_fast)
        error = None if name is None else outcomes[name].error
        if error is None:
            pending = suspended(outcomes)
            if pending:
                raise Suspended("branches wait for answers", pending=pending)
            return outcomes
        state.failed_label = f"{state.label}.{name}"
        try:
            raise error
        finally:
            del outcomes, error  # no cycle through its traceback

    def open_inner(self) -> str:
        """Begin the log of a run within this one, or go on with it; returns its id."""
        self._inner_log = self._child_log(self._place)
        return self._inner_log.workflow_id

    def _child_log(self, place: str) -> RunLog:
        """The log of a run within this one: an earlier process's, if that has not ended."""
        log, kept = self._execution.log, self._execution.checkpoints
        known = None if kept is None else kept.inner(place)
        if known is not None:
            return log.reopen_child(*known)
        child = log.open_child(new_id())
        if kept is not None:
            kept.begin_inner(child.workflow_id, place)
        return child

    def run_inner(self, workflow: Workflow, input: Any) -> Any:
        """Run the workflow whose log `open_inner` began; returns its output."""
        log = self._inner_log
        assert log is not None
        return self._run_within(
            workflow,
            log,
            input,
            self.cancel,
            place=self._place,
            spending=self._execution.spending,
            state=self._state,
        )

    def _run_agent(self, agent: Agent, input: Any, context: RunContext) -> Any:
        """Run an agent, which a tool or function asks for, as a workflow within this run."""
        caller, kept = context.idempotency_key, self._execution.checkpoints
        place = f"{self._place}.{caller}"
        with self._execution.lock:  # a function may run several at once
            taken = self._agents.setdefault(caller, set())
            number = len(taken) + 1
            if kept is not None:
                number = kept.number_of(place, agent.name, input, taken)
            taken.add(number)
        place += f"-{number}"
        log = self._child_log(place)
        return self._run_within(
            Workflow(agent.name, [agent]),
            log,
            input,
            context.cancel,
            place=place,
            spending=context.spending,
        )

    def _run_within(
        self,
        workflow: Workflow,
        log: RunLog,
        input: Any,
        cancel: CancelToken,
        *,
        place: str,
        spending: Optional[Spending],
        state: Optional[StepState] = None,
    ) -> Any:
        """Run a workflow within this run; `state` is told its steps."""
        if not log.offset:
            log.note_input(input_as_text(input))
        with linked(cancel) as token:
            inner = self._execution.inner(workflow, log, token, f"{place}/", spending)
            if state is not None:
                state.within = inner.steps
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
