"""Runtime: runs workflows in a pool of threads, and stops them.

Who runs where, who may stop what, and in which order things end.  What a run
does is workflow.py's.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
import uuid
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Dict, Generator, Optional, Union

from agentstream import threads
from agentstream.agent import Agent
from agentstream.cancel import CancelToken
from agentstream.errors import AgentStreamError, Cancelled, ConfigError, LogError
from agentstream.events.model import Event, EventType
from agentstream.events.stream import EventStream, RunLog
from agentstream.workflow import Workflow, WorkflowRun

__all__ = ["RunHandle", "Runtime", "exit_on_sigterm"]

logger = logging.getLogger("agentstream.runtime")

#: How long those who stop wait for those who are stopped.
_GRACE_S = 5.0


class RunHandle:
    """A submitted run."""

    def __init__(self, workflow: Workflow, input: Any, log: RunLog) -> None:
        self.workflow_id = log.workflow_id
        self._workflow = workflow
        self._input = input
        self._log = log
        self._token = CancelToken()
        self._future: Any = None
        # A queued run is closed by the clock's thread: whoever cancels, a signal
        # handler perhaps, must wait for no lock.
        self._alarm = threads.Alarm(self._close_queued, grain=3600.0)

    def __repr__(self) -> str:
        state = "done" if self.done() else "active"
        return f"<RunHandle {self.workflow_id} {state}>"

    def done(self) -> bool:
        """True once the run has ended, in whichever way."""
        return bool(self._future.done())

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
            error = self._future.exception(timeout)
        except FutureCancelled:
            raise Cancelled(
                f"run {self.workflow_id} was stopped before it began: {self._token.reason}",
                run=WorkflowRun(self.workflow_id, "cancelled"),
            ) from None
        except FutureTimeout:
            raise TimeoutError(f"run {self.workflow_id} is not done after {timeout} s") from None
        if error is not None:
            raise error
        run: WorkflowRun = self._future.result()
        return run

    def _work(self) -> WorkflowRun:
        try:
            return self._workflow.execute(self._input, self._log, self._token)
        finally:
            self._alarm.stop()
            self._input = None

    def _begin(self, future: Any) -> None:
        self._future = future
        self._token.add_callback(lambda: threads.arm(self._alarm, time.monotonic()))

    def _close_queued(self, _: float) -> None:
        if self._future.cancel():
            data = {"workflow": self._workflow.name, "output": "", "reason": self._token.reason}
            try:
                self._log.append(EventType.WORKFLOW_CANCELLED, data)
            except LogError:
                logger.exception("the end of run %s is not in the log", self.workflow_id)


class Runtime:
    """Runs workflows, `max_workers` at a time, and publishes what they do.

    As a context manager: leaving waits for the runs; leaving by an exception,
    Ctrl-C among them, stops them.

    Args:
        max_workers: runs under way at once; more wait their turn.
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
        if not isinstance(max_workers, int) or max_workers < 1:
            raise ConfigError(f"max_workers must be 1 or more, not {max_workers!r}")
        if event_stream is not None and not isinstance(event_stream, EventStream):
            raise ConfigError("event_stream must be an EventStream")
        self.event_stream = event_stream or EventStream()
        self.grace = grace
        self._pool = threads.WorkerPool(max_workers, "run")
        self._lock = threading.RLock()  # a signal handler may come by
        self._runs: Dict[str, RunHandle] = {}
        self._shut = False
        threads.after_fork(self)
        threads.at_exit(self)

    def __repr__(self) -> str:
        return f"<Runtime {'shut down' if self._shut else f'{len(self._runs)} runs'}>"

    def submit(
        self, workflow: Union[Workflow, Agent], input: Any, *, workflow_id: Optional[str] = None
    ) -> RunHandle:
        """Queue a run; returns its `RunHandle` at once.

        Raises:
            RuntimeError: the runtime has been shut down, or the interpreter exits.
            ConfigError: `workflow` is none.
            LogError: `workflow_id` has been used, or the log is closed.
        """
        if isinstance(workflow, Agent):
            workflow = Workflow(workflow.name, [workflow])
        if not isinstance(workflow, Workflow):
            raise ConfigError(f"expected a Workflow or an Agent, not {type(workflow).__name__}")
        with self._lock:
            if self._shut or threads.exiting():
                raise RuntimeError("the runtime has been shut down: it takes no new runs")
            log = self.event_stream.open_log(workflow_id or uuid.uuid4().hex[:16])
            handle = RunHandle(workflow, input, log)
            self._runs[handle.workflow_id] = handle
            if threads.WorkerPool.current() is self._pool:
                # A run that starts another: were it queued, a full pool would wait for itself.
                future = threads.run_here(handle._work)
            else:
                try:
                    future = self._pool.submit(handle._work)
                except RuntimeError:
                    del self._runs[handle.workflow_id]
                    raise
            handle._begin(future)
        future.add_done_callback(lambda _: self._forget(handle))
        return handle

    def _forget(self, handle: RunHandle) -> None:
        with self._lock:
            self._runs.pop(handle.workflow_id, None)

    def run(
        self, workflow: Union[Workflow, Agent], input: Any, *, workflow_id: Optional[str] = None
    ) -> WorkflowRun:
        """Run to the end; returns the `WorkflowRun`.

        Ctrl-C stops the run, which has `grace` seconds to end, and goes on up.

        Raises:
            WorkflowFailed, Cancelled: with `run`.
            RuntimeError, ConfigError, LogError: as `submit`.
        """
        handle = self.submit(workflow, input, workflow_id=workflow_id)
        try:
            return handle.result()
        except AgentStreamError:
            raise
        except BaseException as interruption:
            handle.cancel(f"interrupted by {type(interruption).__name__}")
            self._await_end(handle, self.grace)
            raise

    @staticmethod
    def _await_end(handle: RunHandle, seconds: float) -> None:
        try:
            handle.result(seconds)
        except (AgentStreamError, TimeoutError):
            pass

    def stream(
        self, workflow: Union[Workflow, Agent], input: Any, *, workflow_id: Optional[str] = None
    ) -> Generator[Event, None, None]:
        """Run, and yield the run's events; the terminal one is the last.

        A run that fails raises nothing here: its terminal event says so.
        Leaving the loop early stops the run.
        """
        workflow_id = workflow_id or uuid.uuid4().hex[:16]
        with self.event_stream.subscribe(workflow_id=workflow_id) as events:
            handle = self.submit(workflow, input, workflow_id=workflow_id)
            try:
                yield from events
            finally:
                handle.cancel("its events are no longer read")

    def stop_generation(self, workflow_id: str, reason: str = "stop_generation()") -> bool:
        """Stop a run, from any thread; returns at once.  True if it was running or queued."""
        handle = self._runs.get(workflow_id)
        return handle is not None and handle.cancel(reason)

    def shutdown(self, *, cancel: bool = False, timeout: Optional[float] = None) -> bool:
        """Take no new runs, wait for those there are or stop them, close the event stream.

        Idempotent.  In this order: new work is refused first, so that the wait
        has an end; the event stream closes last, so that every run's terminal
        event is delivered.

        Args:
            cancel: stop the runs.
            timeout: seconds to wait for them; default `grace` with `cancel`,
                else no bound.

        Returns:
            True if all of them have ended.
        """
        with self._lock:
            self._shut = True
            handles = list(self._runs.values())
        if cancel:
            for handle in handles:
                handle.cancel("the runtime is shutting down")
            timeout = self.grace if timeout is None else timeout
        ended = self._pool.shutdown(join=timeout)
        if not ended:
            logger.warning("runs that did not stop in time are left behind")
        self.event_stream.close()
        return ended

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is None:
            try:
                self.shutdown()
            except BaseException:  # Ctrl-C while waiting: now they are stopped
                self.shutdown(cancel=True)
                raise
        else:
            self.shutdown(cancel=True)

    def _at_exit(self) -> None:
        if not self._shut:
            self.shutdown(cancel=True)

    def _after_fork(self) -> None:
        # The runs and their threads are the parent's.
        self._lock = threading.RLock()
        self._runs = {}


def exit_on_sigterm() -> None:
    """Make SIGTERM end the program as `sys.exit(143)` would, so that `with` blocks close runs.

    By default SIGTERM runs neither `finally` nor atexit.  Call it once, from
    the main thread.

    Raises:
        ValueError: this is not the main thread.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
