"""Jobs: runs that are queued in the log, for a worker of whatever task queue.

The log is the truth, the queue only wakes: its message holds a run's id and nothing else.  A
worker takes the run in the log (`CheckpointStore.resume`), and of several one may; so a message
that comes twice, late or never does no harm.  Of those that nobody takes somebody is told again
(`CheckpointStore.take_due`).
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Union

from agentstream import checks, threads
from agentstream.agent.agent import Agent
from agentstream.errors import (
    Busy,
    Cancelled,
    Closed,
    ConfigError,
    LogError,
    NotDone,
    WorkflowFailed,
)
from agentstream.events.entry import check_id
from agentstream.events.model import TERMINAL, new_id
from agentstream.events.resting import SUSPENDED
from agentstream.events.run_state import RunState
from agentstream.events.store import end_of
from agentstream.jobs.outcome import ENDED, JobRun, output_of
from agentstream.jobs.work import WorkLoop
from agentstream.results import WorkflowRun
from agentstream.runtime import answers
from agentstream.runtime.handle import RunHandle
from agentstream.runtime.options import as_workflow
from agentstream.runtime.resume import records_of_queued
from agentstream.runtime.runtime import Runtime
from agentstream.text import replace_surrogates
from agentstream.workflow import Workflow
from agentstream.workflow.checkpoints import Checkpoints
from agentstream.workflow.codec import NotKept
from agentstream.workflow.progress import input_as_text

__all__ = ["Jobs"]

logger = logging.getLogger("agentstream.jobs")

#: Bytes that an input may have, as it is kept.
_MOST_INPUT = 1 << 20
_POLL_S = 1.0
#: Runs that are asked for at a time: if nobody can be told of them, they are due later.
_AT_A_TIME = 20
#: Seconds for which the end of a run is tried to be committed, and between two tries.
_FLUSH_S, _AGAIN_S = 30.0, 0.2


class Jobs:
    """Starts runs of workflows in one process, and has them executed in another.

    Every process of web and workers makes one, over the same log.  It starts no thread before
    the first `start`, `run`, `work` or `watch`.

    Args:
        runtime: runs them; its event stream's store must keep checkpoints.  As the runtime keeps
            checkpoints, so do jobs (`codec`, `keep`), also if it keeps none.
        workflows: what can be started, by their names; agents are workflows of one step.
        recover: how many deaths of its workers a run outlives; with the next it fails.
        resend: seconds after which a run that nobody has taken is sent again; then twice as many
            later, and so on.

    Attributes:
        runtime: the runtime.
        workflows: the workflows by their names.
        send: tells a worker of a run's id, which then calls `run`; `task.delay` of a task queue.
            None: no queue; workers call `work`.

    Raises:
        ConfigError: an argument cannot be used, or the store keeps no checkpoints.
    """

    def __init__(
        self,
        runtime: Runtime,
        workflows: Sequence[Union[Workflow, Agent]],
        recover: int = 3,
        *,
        resend: float = 60.0,
    ) -> None:
        checks.instance("runtime", runtime, Runtime)
        checks.whole("recover", recover)
        self.runtime = runtime
        self.workflows = _by_name(workflows)
        self.send: Optional[Callable[[str], object]] = None
        self._events = runtime.event_stream
        self._store = self._events.store
        self._queue = self._store.need_checkpoints()
        self._resend: float = checks.seconds("resend", resend)
        kept = runtime._checkpoints
        self._settings = Checkpoints(
            codec=None if kept is None else kept.codec,
            keep=None if kept is None else kept.keep,
            recover=recover,
        )
        self._poller = threads.Poller("jobs", self._look, min(_POLL_S, self._resend / 4))
        self._loops: List[WorkLoop] = []
        runtime._watches.append(self._poller)

    def __repr__(self) -> str:
        return f"<Jobs {', '.join(self.workflows)} in {self._store!r}>"

    # --- starting ---------------------------------------------------------------------------

    def start(self, name: str, input: Any, *, workflow_id: Optional[str] = None) -> str:
        """Queue a run in the log, and tell a worker of it (`send`); returns its id.

        What `send` raises is logged: the run is queued, and is sent again later.

        Args:
            name: the workflow's.
            input: the first step's; kept until the run's end, of up to 1 MiB.
            workflow_id: the run's id; default a new one.

        Raises:
            ConfigError: there is no such workflow, or the input is too large or of a type that
                cannot be kept.
            LogError: there is a run of that id, or the log cannot be written.
        """
        workflow = self._workflow(name)
        run = new_id() if workflow_id is None else check_id("workflow_id", workflow_id)
        settings = self._settings
        try:
            records = records_of_queued(
                run, workflow.name, input, settings, traceparent=self._events.traceparent()
            )
        except NotKept as error:
            raise ConfigError(f"the input cannot be kept: {error}", setting="input") from None
        size = len(records["input"])
        if size > _MOST_INPUT:
            what = f"has {size:,} bytes as it is kept, and may have {_MOST_INPUT:,}"
            raise ConfigError.about("input", f"{what}: give a key to where it is")
        send = self.send
        due = 0.0 if send is None else self._resend
        self._queue.queue(
            run,
            workflow.name,
            records,
            recover=settings.recover,
            keep=settings.keep,
            due=due,
            input=self._shown(input),
        )
        self._send(run)
        self.watch()
        return run

    def _shown(self, input: Any) -> Optional[str]:
        """The input as the log shows it, if its stream keeps inputs."""
        return replace_surrogates(input_as_text(input)) if self._events.keep_inputs else None

    def _workflow(self, name: str) -> Workflow:
        workflow = self.workflows.get(name)
        if workflow is None:
            known = ", ".join(map(repr, sorted(self.workflows)))
            raise ConfigError(f"there is no workflow {name!r} here, but {known}")
        return workflow

    def _send(self, workflow_id: str) -> bool:
        """Tell a worker of a run; False if it could not be told."""
        send = self.send
        if send is None:
            return True
        try:
            send(workflow_id)
        except Exception as error:  # noqa: BLE001 - its text may hold a broker's password
            kind = type(error).__name__
            logger.warning("run %s could not be sent (%s): it will be again", workflow_id, kind)
            return False
        return True

    # --- workers ----------------------------------------------------------------------------

    def run(self, workflow_id: str) -> JobRun:
        """Take a run, execute it or go on with it; or decline.  What a task queue's task calls.

        When it returns, what it says is in the log, whatever becomes of the process.  It raises
        nothing for a run that fails or is stopped: `JobRun.status` and the log tell.  An
        `Exception` from without, a queue's time limit say, stops the run; Ctrl-C and other exits
        leave it, interrupted, to another worker.

        Raises:
            ConfigError: the run's workflow is not known here; it stays queued.
            LogError: there is no such run, or the log fails.
            RuntimeError: the runtime has been shut down; the run stays as it was.
        """
        self.watch()
        declined = self._decline(self._state(workflow_id))
        if declined is not None:
            return declined
        try:
            handle = self._enter(workflow_id)
        except Busy:
            return JobRun(workflow_id, "busy", self._state(workflow_id).status)
        except LogError:
            declined = self._decline(self._state(workflow_id))  # somebody else has ended it
            if declined is None or declined.how != "ended":
                raise
            return declined
        how = "resumed" if handle._since else "new"
        with self._flushed():
            ended = self._finish(handle)
        failed = ended.status in ("failed", "cancelled")
        error = self._state(workflow_id).error if failed else None
        return JobRun(workflow_id, how, ended.status, ended.output, error)

    def _state(self, workflow_id: str) -> RunState:
        state = self._store.run(check_id("workflow_id", workflow_id))
        if state is None:
            raise LogError(f"there is no run {workflow_id!r}")
        return state

    def _decline(self, state: RunState) -> Optional[JobRun]:
        """What to say of a run that is not to be taken; None for one that may be."""
        name, status = state.workflow_id, state.status
        if status in ENDED:
            return JobRun(name, "ended", status, state.output, state.error)
        if status == SUSPENDED and not self._is_ready(state):
            return JobRun(name, "waiting", status)
        if not state.name:  # another process is just beginning it
            return JobRun(name, "busy", status)
        self._workflow(state.name)
        return None

    def _enter(self, workflow_id: str) -> RunHandle:
        """Take a run that nobody has.

        Raises:
            Busy, ConfigError, LogError, RuntimeError: as `Runtime.resume`.
        """
        workflow = self._workflow(self._state(workflow_id).name)
        return self.runtime._enter(workflow, workflow_id, self._settings)

    def _finish(self, handle: RunHandle) -> WorkflowRun:
        """Wait for a run, and stop or leave it if that is interrupted; returns it."""
        try:
            return handle.result()
        except (WorkflowFailed, Cancelled) as error:
            if error.run is None:
                raise
            return error.run
        except BaseException as interruption:
            reason = f"interrupted by {type(interruption).__name__}"
            if isinstance(interruption, Exception):
                handle.cancel(reason)
            self.runtime._end(handle, reason)
            raise

    @contextlib.contextmanager
    def _flushed(self) -> Iterator[None]:
        """At the end the log has all; what the block is left by comes before errors of the log."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(LogError):
                self._flush()
            raise
        self._flush()

    def _flush(self) -> None:
        """Wait until the log has all; longer than it usually takes, as what it lacks is redone."""
        until, pause = time.monotonic() + _FLUSH_S, threads.Wakeup()
        while True:
            try:
                self._store.flush()
            except LogError as error:
                if not error.retryable or time.monotonic() > until:
                    raise
                pause.wait(_AGAIN_S)
            else:
                return

    def work(self, max: int = 4) -> None:
        """Take runs as they become due, and execute them, until `stop`: a worker without a queue.

        In the main thread SIGTERM and SIGINT stop it, too, and so does the runtime's shutdown.
        Runs under way are then left, as interrupted, for another worker to go on with.

        Args:
            max: runs under way at once.

        Raises:
            ConfigError: an argument cannot be used.
        """
        checks.whole("max", max, 1)
        runtime = self.runtime
        loop = WorkLoop(
            self._due,
            self._enter,
            is_over=lambda: runtime._shut,
            at_most=max,
            grace=runtime.grace,
        )
        self._loops.append(loop)
        try:
            with self._flushed():
                loop.run()
        finally:
            self._loops.remove(loop)

    def stop(self) -> None:
        """End each `work` of this process, from any thread or a signal handler."""
        for loop in list(self._loops):
            loop.stop()

    # --- runs that nobody has ---------------------------------------------------------------

    def watch(self) -> None:
        """Send runs of these workflows again that nobody has, from now on, in a thread.

        Runs whose worker has died among them; any number of processes may.  `start` and `run`
        begin with it as well; a worker calls it as it begins, since it may be the only process.
        """
        try:
            self._poller.start()
        except RuntimeError:
            logger.warning("no thread to look for runs that nobody has")

    def wake(self, workflow_id: str) -> None:
        """Have a run that nobody has sent now: one that has got an answer, say.

        Raises:
            LogError: the log cannot be written.
        """
        if self._queue.bring_forward(workflow_id):
            self.watch()
            self._poller.wake()
        else:  # whoever takes it, if anybody may
            self._send(workflow_id)

    def _look(self) -> None:
        if self._events.closed:
            self._poller.close()
        try:
            while self.send is not None and not self._poller.closed:
                due = list(self._due(_AT_A_TIME))
                if not all(map(self._send, due)) or len(due) < _AT_A_TIME:
                    return
        except LogError:
            logger.debug("no look for runs that nobody has", exc_info=True)

    def _due(self, limit: int) -> Iterator[str]:
        """The ids of runs that a worker is to take now."""
        names = list(self.workflows)
        for name in self._queue.take_due(names, pause=self._resend, limit=limit):
            state = self._store.run(name)
            if state is not None and (state.status != SUSPENDED or self._is_ready(state)):
                yield name

    def _is_ready(self, state: RunState) -> bool:
        """True if a suspended run has got an answer; else it is due at the end of its patience."""
        asked = answers.pending(self._store, state.workflow_id)
        if answers.is_ready(self._store, state.workflow_id, asked):
            return True
        ends = [each.expires_at for each in asked if each.expires_at is not None]
        if ends:
            due = max(0.0, min(ends) - time.time())
            self._queue.bring_forward(state.workflow_id, due)
        return False

    # --- results ----------------------------------------------------------------------------

    def result(self, workflow_id: str, timeout: Optional[float] = None) -> Any:
        """Wait for a run, whichever process executes it; returns its output, as JSON values.

        Once it waits, a log that cannot be reached is waited for, too.

        Args:
            timeout: seconds; None for no bound.

        Raises:
            WorkflowFailed, Cancelled: how it ended, with `run`.
            NotDone: it has not ended in time; it is a TimeoutError.
            LogError: there is no such run, its output is gone from the log, or that is closed
                or cannot be reached at first.
        """
        until = threads.NEVER if timeout is None else time.monotonic() + threads.bounded(timeout)
        state, pause = self._state(workflow_id), threads.Wakeup()
        types = tuple(TERMINAL)
        with self._events.subscribe(workflow_id=workflow_id, types=types) as ends:
            while True:
                try:
                    state = self._state(workflow_id)
                    if state.status in ENDED:
                        return output_of(state, end_of(self._store, state))
                except LogError as error:
                    if not error.retryable:
                        raise
                left = until - time.monotonic()
                if left <= 0:
                    what = f"run {workflow_id!r} is {state.status} after {timeout:g} s"
                    raise NotDone(what, status=state.status)
                try:
                    ends.get(min(left, _POLL_S))
                except Closed:  # its end is not committed yet, or the stream has been closed
                    if self._events.closed:
                        raise LogError("the event stream is closed") from None
                    pause.wait(min(left, _AGAIN_S))


def _by_name(workflows: Sequence[Union[Workflow, Agent]]) -> Dict[str, Workflow]:
    """The workflows by their names.

    Raises:
        ConfigError: there is none, or two have the same name.
    """
    if isinstance(workflows, (Workflow, Agent)):
        workflows = [workflows]
    known = [as_workflow(each, conversation=False) for each in workflows]
    named = {each.name: each for each in known}
    if len(named) < len(known) or not known:
        raise ConfigError("Jobs takes workflows with names of their own, at least one")
    return named
