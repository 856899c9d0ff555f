"""Runtime: runs workflows in a pool of threads, and stops them.

Who runs where, who may stop what, and in which order things end.  A run from
its submission on is handle.py's, what it does workflow/'s.

A signal handler may call `stop_generation`, `shutdown` and `RunHandle.cancel`:
these set flags and cancel tokens, and leave what takes a lock to another thread.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from typing import TYPE_CHECKING, Any, Callable, Dict, Generator, List, Optional, Union

from agentstream import checks, threads
from agentstream.agent.agent import Agent
from agentstream.cancel import CancelToken
from agentstream.errors import AgentStreamError
from agentstream.events.entry import check_id, check_reason
from agentstream.events.model import Event, new_id
from agentstream.events.stream import EventStream
from agentstream.results import WorkflowRun
from agentstream.runtime.durable import DurableRuns
from agentstream.runtime.exits import exit_on_sigterm
from agentstream.runtime.handle import RunHandle, SubmittedRun
from agentstream.runtime.host import current_place
from agentstream.runtime.options import (
    HINTS,
    OPTIONS,
    SETTINGS_HINTS,
    RunOptions,
    as_workflow,
)
from agentstream.runtime.submissions import Submissions
from agentstream.workflow import Workflow
from agentstream.workflow.checkpoints import Checkpoints, as_checkpoints

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from agentstream.agent.budget import Budget
    from agentstream.agent.conversation import Conversation
    from agentstream.runtime.options import RunKeywords

__all__ = ["RunHandle", "Runtime", "exit_on_sigterm"]

logger = logging.getLogger("agentstream.runtime")

#: Seconds a shutdown waits for cancelled runs.
_GRACE_S = 5.0
#: Seconds it waits once it has been interrupted, or the runs have had their grace.
_HURRY_S = 0.05
_SHUT_DOWN = "the runtime is shutting down"

_INTERRUPTIONS = (KeyboardInterrupt, SystemExit)


_takes_options = checks.keywords(HINTS, more=OPTIONS, otherwise=f"it takes {', '.join(OPTIONS)}")


class Runtime(DurableRuns):
    """Runs workflows, `max_workers` at a time, and publishes what they do.

    As a context manager: leaving waits for the runs; leaving by an exception,
    Ctrl-C among them, stops them.

    Args:
        max_workers: runs under way at once; more wait their turn.  The branches
            of a `Parallel` do not wait: where no worker is free, they have
            threads beyond these, up to some hundreds.
        event_stream: where events go, default a new `EventStream()`.  The
            runtime has it from then on, and closes it when it shuts down.
        grace: seconds that runs which were stopped may take to end.
        checkpoints: keep what runs need to go on, in the event stream's store: True, or
            `Checkpoints`, which says how.  A run whose process died, or was shut down, is
            then "interrupted", and `resume` goes on with it.

    Attributes:
        event_stream: the `EventStream`.
    """

    _exit_order = 0

    @checks.keywords(SETTINGS_HINTS)
    def __init__(
        self,
        *,
        max_workers: int = 32,
        event_stream: Optional[EventStream] = None,
        grace: float = _GRACE_S,
        checkpoints: Union[bool, Checkpoints, None] = None,
    ) -> None:
        checks.whole("max_workers", max_workers, 1)
        checks.instance("event_stream", event_stream, EventStream, optional=True)
        self.event_stream = event_stream or EventStream()
        self.grace: float = checks.seconds("grace", grace, zero=True)
        self._checkpoints = as_checkpoints(checkpoints)
        if self._checkpoints is not None:
            self.event_stream.store.need_checkpoints()
        self._pool = threads.WorkerPool(max_workers, "run")
        self._submissions = Submissions(
            self,
            self.event_stream,
            self._pool,
            checkpoints=self._checkpoints,
            grace=self.grace,
        )
        self._host = self._submissions.host
        self._runs = self._submissions.runs
        self._watches: List[threads.Poller] = []
        self._shut = False  # takes no new runs
        self._closed = False  # ... and has nothing left to close
        self._hurry = CancelToken()  # Ctrl-C came again, or grace was given: no more waiting
        self._reset_locks()
        self.event_stream.store.watch_stops(self._stop)
        threads.after_fork(self)
        threads.at_exit(self)

    def _reset_locks(self) -> None:
        self._lock = threading.RLock()  # held while a run is submitted
        self._submitting: Optional[int] = None  # the thread that does it
        self._closing = threading.Lock()  # held while the event stream is closed

    def __repr__(self) -> str:
        return f"<Runtime {'shut down' if self._shut else f'{len(self._runs)} runs'}>"

    @_takes_options
    def submit(
        self,
        workflow: Union[Workflow, Agent],
        input: Any,
        *,
        workflow_id: Optional[str] = None,
        context: Optional[Dict[str, Any]] = None,
        conversation: Optional[Conversation] = None,
        timeout: Optional[float] = None,
        lock: Optional[str] = None,
        once: bool = False,
        resume: bool = False,
        budget: Optional[Budget] = None,
    ) -> RunHandle:
        """Queue a run; returns its `RunHandle` at once.

        Args:
            workflow: what to run; an agent is a workflow of one step.
            input: the first step's.
            workflow_id: the run's id; default a new one.
            context: what the steps share (`Context`); they write to this very dict.
            conversation: what an agent is told before the input, and what its turn is
                added to (`Conversation`, `Conversations.get`); for an agent only.
            timeout: seconds until the run is over, its wait for a worker included; a
                run that is not, fails with DeadlineExceeded, `grace` later at most.
            lock: a name: while the run lasts no other one of this user's, in whatever
                process, can have that name.
            once: if the run of that `workflow_id` has been completed, the handle has
                its output, as JSON values, without its steps, and nothing runs; if it
                is under way in this runtime, the handle is that run's.  One that failed,
                was stopped or whose process died is made again, its id with "~2"
                behind it, "~3" and so on.
            resume: as `once`; and a run that is interrupted or suspended goes on, without
                a new input, where the runtime keeps checkpoints.
            budget: what the requests of its agents may spend; a run that is resumed has
                the one that it was begun with, and what it has spent, unless another is
                given here.

        Called by a run, by one of its tools say, it starts a run within a run:
        that one has a thread of its own, beyond `max_workers`, so that the two
        cannot wait for each other; it is stopped when the outer one is, and its
        events name that one (`parent_workflow_id`).

        The run, its steps and its tools see the contextvars of the caller.

        Raises:
            RuntimeError: the runtime has been shut down, the interpreter exits,
                hundreds of runs within runs are under way, or a signal handler
                that has interrupted this very method calls it.
            ConfigError: an argument cannot be used.
            Busy: the lock is held, or with `once` or `resume` another process runs it.
            LogError: `workflow_id` has been used, or the log is closed; with `resume`, the
                run was resumed as often as it may be (`Checkpoints.recover`), and has failed.
        """
        options = RunOptions(
            workflow_id, context, conversation, timeout, lock, once, resume, budget
        ).checked()
        workflow = as_workflow(workflow, conversation=conversation is not None)
        parent = current_place()
        return self._in_turn(lambda: self._submissions.submit(workflow, input, options, parent))

    def _in_turn(self, submit: Callable[[], RunHandle]) -> RunHandle:
        """Submit a run, one after the other.

        Raises:
            RuntimeError: the runtime has been shut down, or a signal handler calls it.
        """
        with self._lock:
            if self._submitting is not None:  # only this thread can come in
                raise RuntimeError("a signal handler has interrupted submit, and cannot call it")
            try:
                self._submitting = threading.get_ident()
                if self._shut or threads.exiting():
                    raise RuntimeError("the runtime has been shut down: it takes no new runs")
                return submit()
            finally:
                self._submitting = None

    @_takes_options
    def run(
        self,
        workflow: Union[Workflow, Agent],
        input: Any,
        **options: Unpack[RunKeywords],
    ) -> WorkflowRun:
        """Run to the end; returns the `WorkflowRun`.  Arguments as in `submit`.

        Ctrl-C stops the run, which has `grace` seconds to end, and goes on up.

        Raises:
            WorkflowFailed, Cancelled: with `run`.
            RuntimeError, ConfigError, LogError: as `submit`.
        """
        handle = self.submit(workflow, input, **options)
        try:
            return handle.result()
        except AgentStreamError:
            raise
        except BaseException as interruption:
            self._end(handle, f"interrupted by {type(interruption).__name__}")
            raise
        finally:
            del handle, input  # no cycle through an error's traceback

    def _end(self, handle: RunHandle, reason: str) -> None:
        """Leave or stop a run and give it time to end, unless that is interrupted as well."""
        try:
            handle.interrupt(reason)
            handle.result(self.grace)
        except AgentStreamError:
            pass
        except TimeoutError:
            logger.warning("a run that did not stop in time is left behind")
            run = self._runs.get(handle.workflow_id)
            if run is not None:
                threads.aside("leave", run.leave_behind, None)
            self._hurry.cancel()  # it has had its grace: the shutdown gives it no second one
        except _INTERRUPTIONS:
            self._leave()

    @_takes_options
    def stream(
        self,
        workflow: Union[Workflow, Agent],
        input: Any,
        *,
        raise_on_failure: bool = True,
        **options: Unpack[RunKeywords],
    ) -> Generator[Event, None, None]:
        """Run, and yield the run's events; the terminal one is the last.  As in `submit`.

        Leaving the loop early stops the run.  It is submitted when the first
        event is asked for, with the contextvars of the call.  Of a run that has been
        made (`once`) the events are those that the log has kept.

        Raises:
            WorkflowFailed, Cancelled: after the terminal event, with `run`; with
                `raise_on_failure=False` that event is all that tells of it.
            RuntimeError, ConfigError, LogError: as `submit`.
        """
        from agentstream.runtime.follow import follow, follow_once  # noqa: PLC0415

        variables = contextvars.copy_context()

        def submit() -> RunHandle:
            return variables.run(lambda: self.submit(workflow, input, **options))

        if options.get("once") or options.get("resume"):
            return follow_once(
                self.event_stream, submit, self._submissions.handles, raises=raise_on_failure
            )
        workflow_id = options.get("workflow_id")
        if workflow_id is None:
            workflow_id = options["workflow_id"] = new_id()
        return follow(self.event_stream, workflow_id, submit, raises=raise_on_failure)

    def stop_generation(self, workflow_id: str, reason: str = "stop_generation()") -> bool:
        """Stop a run, from any thread; returns at once.  True if it was running or queued.

        A workflow that is a step of another one is a run as well: stopped, it
        stops the outer one too, unless it is within a `Parallel` or `Map` with
        `fail_fast=False`, whose result it then is.

        A run that another process runs is stopped by that one, at the request
        of this: with a store that they share, such as `SqliteStore`.

        Raises:
            ConfigError: the id is none (`EventStream.append`), or the reason no text of up
                to 100,000 characters.
        """
        check_id("workflow_id", workflow_id)
        check_reason(reason)
        if self._stop(workflow_id, reason):
            return True
        store = self.event_stream.store
        if not store.shared:
            return bool(store.request_stop(workflow_id, reason))
        return threads.aside("stop", lambda: bool(store.request_stop(workflow_id, reason)), False)

    def _stop(self, workflow_id: str, reason: str) -> bool:
        run = self._runs.get(workflow_id)
        if run is None:
            return self._host.stop(workflow_id, reason)
        return run.handle.cancel(reason)

    def shutdown(self, *, cancel: bool = False, timeout: Optional[float] = None) -> bool:
        """Take no new runs, wait for those there are or stop them, close the event stream.

        Idempotent.  In this order: new work is refused first, so that the wait
        has an end; the event stream closes last, so that every run's terminal
        event is delivered.

        A signal handler may call it.  If that has interrupted the library, at a
        moment at which it may hold a lock, the runs are stopped, False is
        returned at once, and another thread does the rest.

        Args:
            cancel: stop the runs.
            timeout: seconds to wait for them; default `grace` with `cancel`,
                else no bound.  Runs that have not ended by then are stopped,
                and no longer waited for.

        Returns:
            True if all of them have ended.

        Raises:
            RuntimeError: it was called by one of the runs.
        """
        place = current_place()
        run = None if place is None else self._runs.get(place.runtime_id)
        if place is not None and run is not None and run.token is place.stop:
            raise RuntimeError("a run cannot shut down its own runtime: it would wait for itself")
        self._shut = True
        for watch in list(self._watches):
            watch.close()
        if cancel:
            # The newest first: those that wait must not get the places of those that go.
            for run in reversed(list(self._runs.values())):
                run.handle.interrupt(_SHUT_DOWN)
        return threads.aside("shutdown", lambda: self._shut_down(cancel, timeout), False)

    def _shut_down(self, cancel: bool, timeout: Optional[float]) -> bool:
        while self._watches:
            self._watches.pop().join(_HURRY_S if self._hurry.cancelled else self.grace)
        with self._lock:  # a submit under way comes to its end, and is the last
            runs = list(self._runs.values())
        hurried = self._hurry.cancelled
        if cancel:
            _stop(runs)
            if timeout is None:
                timeout = 0.0 if self._closed else _HURRY_S if hurried else self.grace
        ended = self._pool.shutdown(join=timeout, hurry=None if hurried else self._hurry)
        if not ended:
            if not self._hurry.cancelled:
                logger.warning("runs that did not stop in time are left behind")
            _stop(runs)
            for run in runs:
                run.leave_behind()
        self._close()
        return ended

    def _close(self) -> None:
        """Close the event stream, one thread after the other: the last one finds it closed."""
        hurried = self._hurry.cancelled
        mine = self._closing.acquire(timeout=_HURRY_S if hurried else -1)
        try:
            if hurried:
                self.event_stream.close(timeout=_HURRY_S)
            else:
                self.event_stream.close()
            self._closed = True
        finally:
            if mine:
                self._closing.release()

    def _stop_and_wait(self) -> Optional[BaseException]:
        """Stop the runs and shut down; returns what interrupted the wait, which then is over."""
        try:
            self.shutdown(cancel=True)
        except _INTERRUPTIONS as interruption:
            self._leave()
            return interruption
        return None

    def _leave(self) -> None:
        """Interrupted while waiting for runs that had been stopped: out, now."""
        logger.warning("interrupted again: not waiting for the runs under way to stop")
        self._hurry.cancel()
        self.shutdown(cancel=True)

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is None:
            try:
                self.shutdown()
            except BaseException:  # Ctrl-C while waiting: now they are stopped
                self._stop_and_wait()
                raise
            return
        interruption = self._stop_and_wait()
        if interruption is not None and not issubclass(kind, _INTERRUPTIONS):
            raise interruption

    def _at_exit(self) -> None:
        if not self._closed:
            self._stop_and_wait()

    def _after_fork(self) -> None:
        # The runs and their threads are the parent's.
        self._reset_locks()
        runs = list(self._runs.values())
        self._runs.clear()
        for run in runs:
            run.after_fork()


def _stop(runs: List[SubmittedRun]) -> None:
    for run in reversed(runs):
        run.handle.interrupt(_SHUT_DOWN)
        run.close_queued()
