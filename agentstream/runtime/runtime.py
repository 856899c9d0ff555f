"""Runtime: runs workflows in a pool of threads, and stops them.

Who runs where, who may stop what, and in which order things end.  What a run
does is workflow.py's.
"""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
import time
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Callable, Dict, Generator, NamedTuple, Optional, Sequence, Union

from agentstream import checks, threads
from agentstream.agent.agent import Agent
from agentstream.cancel import CancelToken
from agentstream.errors import (
    AgentStreamError,
    Cancelled,
    ConfigError,
    ConnectError,
    LogError,
)
from agentstream.events.model import Event, new_id
from agentstream.events.stream import EventStream, RunLog
from agentstream.results import WorkflowRun
from agentstream.workflow import Execution, Workflow
from agentstream.workflow.execution import Crew

__all__ = ["RunHandle", "Runtime", "exit_on_sigterm"]

logger = logging.getLogger("agentstream.runtime.runtime")

#: How long those who stop wait for those who are stopped.
_GRACE_S = 5.0
#: ... and those who were told to stop waiting.
_HURRY_S = 0.05

_INTERRUPTIONS = (KeyboardInterrupt, SystemExit)


class _Place(NamedTuple):
    """Where in a run some code belongs: the run, or one within it, and what stops that part."""

    run: RunHandle
    workflow_id: str
    token: CancelToken


#: The run that this code is part of; a tool's thread takes it along.
_current: contextvars.ContextVar[Optional[_Place]] = contextvars.ContextVar(
    "agentstream_run", default=None
)


class RunHandle:
    """A submitted run."""

    def __init__(
        self,
        workflow: Workflow,
        input: Any,
        log: RunLog,
        context: Optional[Dict[str, Any]],
        crew: Crew,
    ) -> None:
        self.workflow_id = log.workflow_id
        self._log = log
        self._token = CancelToken()
        self._execution = Execution(workflow, log, self._token, context=context, crew=crew)
        self._input = input
        self._future: Future[WorkflowRun] = Future()
        self._begins = threading.Lock()  # held by a worker and the clock, by no canceller
        self._begun = False
        # A queued run is closed by the clock's thread: whoever cancels, a signal
        # handler perhaps, must wait for no lock.
        self._alarm = threads.Alarm(self._close_queued, grain=3600.0)
        self._key = self._token.add_callback(self._ring)
        self._stopped: Optional[Cancelled] = None  # before it began

    def __repr__(self) -> str:
        state = "done" if self.done() else "active"
        return f"<RunHandle {self.workflow_id} {state}>"

    def done(self) -> bool:
        """True once the run has ended, in whichever way."""
        return self._future.done()

    def cancel(self, reason: str = "RunHandle.cancel()") -> bool:
        """Stop the run, from any thread; returns at once.  False if it had ended already."""
        if self.done():
            return False
        self._token.cancel(reason)
        return True

    def result(self, timeout: Optional[float] = None) -> WorkflowRun:
        """Wait for the run; returns its `WorkflowRun`.

        Raises:
            WorkflowFailed: it failed; `__cause__` says why, `run` how far it got.
            Cancelled: it was stopped; `run` says how far it got.
            TimeoutError: `timeout` seconds passed and it has not ended.
        """
        try:
            error = self._wait(timeout)
        except FutureCancelled:
            assert self._stopped is not None
            raise self._stopped from None
        except FutureTimeout:
            raise TimeoutError(f"run {self.workflow_id} is not done after {timeout} s") from None
        if error is None:
            return self._future.result()
        try:
            raise error
        finally:
            del error, self  # no cycle through its traceback

    def _wait(self, timeout: Optional[float]) -> Optional[BaseException]:
        for seconds in threads.slices(timeout):
            try:
                return self._future.exception(seconds)
            except FutureTimeout:
                pass
        raise FutureTimeout

    def _work(self) -> WorkflowRun:
        with self._begins:
            if self._stopped is not None:
                raise self._stopped
            self._begun = True
        outer = _current.set(_Place(self, self.workflow_id, self._token))
        try:
            return self._execution.run(self._input)
        finally:
            _current.reset(outer)
            self._let_go()
            del self  # no cycle through an error's traceback

    def _ring(self) -> None:
        try:
            threads.arm(self._alarm, time.monotonic())
        except RuntimeError:
            pass  # no thread for the clock: a worker, or the shutdown, will find it stopped

    def _close_queued(self, _: float = 0.0) -> None:
        """End the run if it was stopped before it began."""
        with self._begins:
            if self._begun or self._stopped is not None:
                return
            self._stopped = self._execution.give_up()
        # Last: whoever waits for the run finds its terminal event in the log.
        self._future.cancel()
        self._let_go()

    def _refuse(self, error: AgentStreamError) -> None:
        """End the run, which cannot begin."""
        self._begun = True
        self._future.set_exception(self._execution.refuse(error))
        self._let_go()

    def _leave_behind(self) -> None:
        """End the run on behalf of its thread, which does not stop."""
        if self._log.ended:
            return
        try:
            self._future.set_exception(self._execution.give_up())
        except InvalidStateError:
            pass  # it has ended this moment

    def _let_go(self) -> None:
        self._token.remove_callback(self._key)
        self._alarm.stop()
        self._input = None

    def _after_fork(self) -> None:
        # Not the old future: a thread that the child lacks may hold its lock.
        self._future = Future()
        self._future.set_exception(
            RuntimeError(f"run {self.workflow_id} goes on in the parent process, not here")
        )


class _Pool(Crew):
    """What a runtime's runs may ask of it: its threads, and to be found by `stop_generation`."""

    def __init__(self, pool: threads.WorkerPool) -> None:
        self._pool = pool
        self._inner: Dict[str, CancelToken] = {}  # runs within runs, in their threads
        threads.after_fork(self)

    def _after_fork(self) -> None:
        self._inner = {}  # they are the parent's

    def lend(self, work: Callable[[], object]) -> bool:
        try:
            self._pool.submit(work, at_once=True, late=True)
        except RuntimeError:
            logger.warning("no thread for a branch: it waits for the one before it")
            return False
        return True

    def place(self, context: contextvars.Context, workflow_id: str, token: CancelToken) -> None:
        run = context.get(_current)
        if run is not None:
            context.run(_current.set, run._replace(workflow_id=workflow_id, token=token))

    def enter(self, workflow_id: str, token: CancelToken) -> None:
        self._inner[workflow_id] = token

    def leave(self, workflow_id: str) -> None:
        self._inner.pop(workflow_id, None)

    def stop(self, workflow_id: str, reason: str) -> bool:
        """Stop a run within a run; False if there is none of that id."""
        token = self._inner.get(workflow_id)
        if token is None:
            return False
        token.cancel(reason)
        return True


class Runtime:
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

    Attributes:
        event_stream: the `EventStream`.
    """

    _exit_order = 0

    def __init__(
        self,
        *,
        max_workers: int = 32,
        event_stream: Optional[EventStream] = None,
        grace: float = _GRACE_S,
    ) -> None:
        checks.whole("max_workers", max_workers, 1)
        checks.instance("event_stream", event_stream, EventStream, optional=True)
        self.event_stream = event_stream or EventStream()
        self.grace: float = checks.seconds("grace", grace, zero=True)
        self._pool = threads.WorkerPool(max_workers, "run")
        self._crew = _Pool(self._pool)
        self._lock = threading.RLock()  # a signal handler may come by
        self._runs: Dict[str, RunHandle] = {}
        self._shut = False  # takes no new runs
        self._closed = False  # ... and has nothing left to close
        self._hurried = False  # Ctrl-C came again, or grace was given: no more waiting
        self.event_stream.store.watch_stops(self._stop)
        threads.after_fork(self)
        threads.at_exit(self)

    def __repr__(self) -> str:
        return f"<Runtime {'shut down' if self._shut else f'{len(self._runs)} runs'}>"

    def submit(
        self,
        workflow: Union[Workflow, Agent],
        input: Any,
        *,
        workflow_id: Optional[str] = None,
        context: Optional[Dict[str, Any]] = None,
    ) -> RunHandle:
        """Queue a run; returns its `RunHandle` at once.

        Args:
            workflow: what to run; an agent is a workflow of one step.
            input: the first step's.
            workflow_id: the run's id; default a new one.
            context: what the steps share (`Context`); they write to this very dict.

        Called by a run, by one of its tools say, it starts a run within a run:
        that one has a thread of its own, beyond `max_workers`, so that the two
        cannot wait for each other; it is stopped when the outer one is, and its
        events name that one (`parent_workflow_id`).

        Raises:
            RuntimeError: the runtime has been shut down, the interpreter exits,
                or hundreds of runs within runs are under way.
            ConfigError: `workflow` is none, or `context` is no dict.
            LogError: `workflow_id` has been used, or the log is closed.
        """
        if isinstance(workflow, Agent):
            workflow = Workflow(workflow.name, [workflow])
        if not isinstance(workflow, Workflow):
            raise ConfigError(f"expected a Workflow or an Agent, not {type(workflow).__name__}")
        if context is not None and not isinstance(context, dict):
            raise ConfigError(f"context must be a dict, not {type(context).__name__}")
        parent = _current.get()
        with self._lock:
            if self._shut or threads.exiting():
                raise RuntimeError("the runtime has been shut down: it takes no new runs")
            log = self.event_stream.open_log(
                workflow_id or new_id(),
                None if parent is None else parent.workflow_id,
            )
            if log.workflow_id in self._runs:
                raise LogError(f"run {log.workflow_id!r} is under way: choose another id")
            handle = RunHandle(workflow, input, log, context, self._crew)
            self._runs[handle.workflow_id] = handle
            name = handle.workflow_id  # not the handle, which would hold itself
            handle._future.add_done_callback(lambda _: self._forget(name))
            self._start(handle, parent)
        return handle

    def _start(self, handle: RunHandle, parent: Optional[_Place]) -> None:
        if parent is not None:
            for token in {parent.token, parent.run._token}:
                _stop_with(token, handle)
        try:
            # A run that another one starts, and may wait for, must not wait for its place.
            self._pool.submit(handle._work, handle._future, at_once=parent is not None)
        except threads.NoThread:
            handle._refuse(
                ConnectError(
                    "no thread could be started for the run", phase="connect", retryable=True
                )
            )
        except RuntimeError:
            del self._runs[handle.workflow_id]
            raise

    def _forget(self, workflow_id: str) -> None:
        with self._lock:
            self._runs.pop(workflow_id, None)

    def run(
        self,
        workflow: Union[Workflow, Agent],
        input: Any,
        *,
        workflow_id: Optional[str] = None,
        context: Optional[Dict[str, Any]] = None,
    ) -> WorkflowRun:
        """Run to the end; returns the `WorkflowRun`.  Arguments as in `submit`.

        Ctrl-C stops the run, which has `grace` seconds to end, and goes on up.

        Raises:
            WorkflowFailed, Cancelled: with `run`.
            RuntimeError, ConfigError, LogError: as `submit`.
        """
        handle = self.submit(workflow, input, workflow_id=workflow_id, context=context)
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
        """Stop a run and give it time to end, unless that is interrupted as well."""
        try:
            handle.cancel(reason)
            handle.result(self.grace)
        except AgentStreamError:
            pass
        except TimeoutError:
            logger.warning("a run that did not stop in time is left behind")
            handle._leave_behind()
            self._hurried = True  # it has had its grace: the shutdown gives it no second one
        except _INTERRUPTIONS:
            self._leave()

    def stream(
        self,
        workflow: Union[Workflow, Agent],
        input: Any,
        *,
        workflow_id: Optional[str] = None,
        context: Optional[Dict[str, Any]] = None,
    ) -> Generator[Event, None, None]:
        """Run, and yield the run's events; the terminal one is the last.  As in `submit`.

        A run that fails raises nothing here: its terminal event says so.
        Leaving the loop early stops the run.
        """
        workflow_id = workflow_id or new_id()
        with self.event_stream.subscribe(workflow_id=workflow_id) as events:
            handle = self.submit(workflow, input, workflow_id=workflow_id, context=context)
            try:
                yield from events
            finally:
                handle.cancel("its events are no longer read")

    def stop_generation(self, workflow_id: str, reason: str = "stop_generation()") -> bool:
        """Stop a run, from any thread; returns at once.  True if it was running or queued.

        A workflow that is a step of another one is a run as well: stopped, it
        stops the outer one too, unless it is a branch of a `Parallel` with
        `fail_fast=False`, whose result it then is.

        A run that another process runs is stopped by that one, at the request
        of this: with a store that they share, such as `SqliteStore`.
        """
        return self._stop(workflow_id, reason) or self.event_stream.store.request_stop(
            workflow_id, reason
        )

    def _stop(self, workflow_id: str, reason: str) -> bool:
        handle = self._runs.get(workflow_id)
        if handle is None:
            return self._crew.stop(workflow_id, reason)
        return handle.cancel(reason)

    def shutdown(self, *, cancel: bool = False, timeout: Optional[float] = None) -> bool:
        """Take no new runs, wait for those there are or stop them, close the event stream.

        Idempotent.  In this order: new work is refused first, so that the wait
        has an end; the event stream closes last, so that every run's terminal
        event is delivered.

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
        within = _current.get()
        if within is not None and self._runs.get(within.run.workflow_id) is within.run:
            raise RuntimeError("a run cannot shut down its own runtime: it would wait for itself")
        with self._lock:
            self._shut = True
            handles = list(self._runs.values())
        if cancel:
            _stop(handles)
            if timeout is None:
                timeout = 0.0 if self._closed else _HURRY_S if self._hurried else self.grace
        ended = self._pool.shutdown(join=timeout)
        if not ended:
            if not self._hurried:
                logger.warning("runs that did not stop in time are left behind")
            _stop(handles)
            for handle in handles:
                handle._leave_behind()
        if self._hurried:
            self.event_stream.close(timeout=_HURRY_S)
        else:
            self.event_stream.close()
        self._closed = True
        return ended

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
        self._hurried = True
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
        self._lock = threading.RLock()
        handles, self._runs = self._runs, {}
        for handle in handles.values():
            handle._after_fork()


def _stop(handles: Sequence[RunHandle]) -> None:
    # The newest first: those that wait must not get the places of those that go.
    for handle in reversed(handles):
        handle.cancel("the runtime is shutting down")
        handle._close_queued()


def _stop_with(token: CancelToken, child: RunHandle) -> None:
    """While it lasts, `child` is stopped when `token` says so."""
    key = token.add_callback(
        lambda: child.cancel(f"the run that started it was stopped: {token.reason}")
    )
    child._future.add_done_callback(lambda _: token.remove_callback(key))


def exit_on_sigterm() -> None:
    """Make SIGTERM end the program as `sys.exit(143)` would, so that `with` blocks close runs.

    By default SIGTERM runs neither `finally` nor atexit.  Call it once, from
    the main thread.

    Raises:
        ValueError: this is not the main thread.
    """
    import signal  # noqa: PLC0415 - a millisecond that only who wants this pays

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
