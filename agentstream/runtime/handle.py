"""RunHandle, what a caller holds of a run; and SubmittedRun, what its runtime does.

A run is queued, begun by a worker, and ended once: by that worker, or, if it
was stopped before it began or does not stop, by another thread on its behalf.
"""

from __future__ import annotations

import contextvars
import functools
import logging
import threading
import time
from collections import deque
from concurrent.futures import Future, InvalidStateError, TimeoutError as FutureTimeout
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Deque, List, Optional, Type

from agentstream import threads
from agentstream.agent.budget import Budget
from agentstream.cancel import CancelToken
from agentstream.errors import AgentStreamError, Cancelled, DeadlineExceeded
from agentstream.events.entry import check_reason
from agentstream.events.stream import RunLog
from agentstream.results import WorkflowRun
from agentstream.runtime.host import Place, set_place
from agentstream.runtime.options import RunOptions
from agentstream.workflow import Execution, Workflow
from agentstream.workflow.host import RunHost

if TYPE_CHECKING:
    from agentstream.agent.budget import Spending
    from agentstream.runtime.lock import NamedLock
    from agentstream.workflow.run_checkpoints import RunCheckpoints

__all__ = ["RunHandle", "SubmittedRun"]

logger = logging.getLogger("agentstream.runtime")

#: Caught as TimeoutError and as concurrent.futures' own, two classes up to Python 3.10.
_NotDone: Type[BaseException] = (
    TimeoutError
    if FutureTimeout is TimeoutError
    else type("TimeoutError", (TimeoutError, FutureTimeout), {})
)


class RunHandle(Future[WorkflowRun]):
    """A submitted run: a `concurrent.futures.Future`, but that `cancel` stops a running one too.

    `concurrent.futures.wait` and `as_completed` take it.  `done`, `running`,
    `cancelled` and `cancel` wait for nothing and take no lock: a signal handler
    may call them.

    Attributes:
        workflow_id: the run's id.
    """

    # Of Future only what its module's functions look at is used: `_state`, `_waiters` and
    # `_condition`, which is held while the two change.  All else here goes without a lock.

    def __init__(self, workflow_id: str, token: CancelToken) -> None:
        super().__init__()
        self.workflow_id = workflow_id
        self._token = token
        self._began = False
        self._since = 0  # the offset behind which its own events stand
        self._leave: Callable[[], object] = lambda: None
        self._reset()

    def _reset(self) -> None:
        self._condition = threading.Condition()
        self._waiters: List[Any] = []
        self._unresolved = [None]  # whoever takes it out resolves the handle
        self._ended = CancelToken()
        self._value: Optional[WorkflowRun] = None
        self._error: Optional[BaseException] = None
        self._traceback: Optional[TracebackType] = None
        self._callbacks: Deque[Callable[[Any], object]] = deque()

    @classmethod
    def ended(cls, run: WorkflowRun) -> RunHandle:
        """The handle of a run that has been completed."""
        handle = cls(run.workflow_id, CancelToken())
        handle.set_result(run)
        return handle

    def __repr__(self) -> str:
        return f"<RunHandle {self.workflow_id} {'done' if self.done() else 'active'}>"

    def done(self) -> bool:
        """True once the run has ended, in whichever way."""
        return self._ended.cancelled

    def running(self) -> bool:
        """True while a worker runs it: it is queued no more, and has not ended."""
        return self._began and not self.done()

    def cancelled(self) -> bool:
        """True if it was stopped, and has ended."""
        return self.done() and isinstance(self._error, Cancelled)

    def cancel(self, reason: str = "RunHandle.cancel()") -> bool:
        """Stop the run, from any thread; returns at once.  False if it had ended already.

        Raises:
            ConfigError: the reason is no text of up to 100,000 characters.
        """
        check_reason(reason)
        if self.done():
            return False
        self._token.cancel(reason)
        return True

    def interrupt(self, reason: str = "RunHandle.interrupt()") -> bool:
        """Leave the run, for another process to resume; one without checkpoints is stopped.

        From any thread; returns at once.  False if it had ended already.

        Raises:
            ConfigError: as `cancel`.
        """
        check_reason(reason)
        if not self._token.cancelled:
            self._leave()
        return self.cancel(reason)

    def result(self, timeout: Optional[float] = None) -> WorkflowRun:
        """Wait for the run; returns its `WorkflowRun`.

        Of one that waits for somebody's answer it says for what: its status is "suspended".

        Raises:
            WorkflowFailed: it failed; `__cause__` says why, `run` how far it got.
            Cancelled: it was stopped; `run` says how far it got.
            TimeoutError: `timeout` seconds passed and it has not ended.
        """
        self._wait(timeout)
        error = self._error
        if error is None:
            assert self._value is not None
            return self._value
        try:
            # With the traceback it came with: each raise adds to what the error has.
            raise error.with_traceback(self._traceback)
        finally:
            del error, self  # no cycle through its traceback

    def exception(self, timeout: Optional[float] = None) -> Optional[BaseException]:
        """Wait for the run; returns what it failed with, None if it was completed.

        Raises:
            Cancelled: it was stopped.
            TimeoutError: `timeout` seconds passed and it has not ended.
        """
        self._wait(timeout)
        if isinstance(self._error, Cancelled):
            self.result()
        return self._error

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call `fn` with this handle once the run has ended; at once if it has.

        It is called in the thread that ended the run, before or after others are
        told, and should be quick.  What it raises is logged.
        """
        self._callbacks.append(fn)
        if self.done():  # looked at after the entry is in; whoever takes it out calls it
            self._call_back()

    def set_running_or_notify_cancel(self) -> bool:
        """For the pool: False if the run was ended while it waited for a worker."""
        return not self.done()

    def set_result(self, result: WorkflowRun) -> None:
        """For the pool: resolve the handle.

        Raises:
            concurrent.futures.InvalidStateError: it has been.
        """
        self._resolve(result, None)

    def set_exception(self, exception: Optional[BaseException]) -> None:
        """For the pool: as `set_result`, for a run that was stopped or failed."""
        self._resolve(None, exception)

    def _resolve(self, run: Optional[WorkflowRun], error: Optional[BaseException]) -> None:
        try:
            self._unresolved.pop()
        except IndexError:
            raise InvalidStateError(f"run {self.workflow_id} has ended already") from None
        self._value, self._error = run, error
        self._traceback = None if error is None else error.__traceback__
        with self._condition:
            self._ended.cancel()
            self._state = "FINISHED"
            if isinstance(error, Cancelled):
                self._state = "CANCELLED_AND_NOTIFIED"
            for waiter in self._waiters:
                _tell(waiter, self, error)
        self._call_back()

    def _call_back(self) -> None:
        while True:
            try:
                fn = self._callbacks.popleft()
            except IndexError:
                return
            try:
                fn(self)
            except Exception:
                logger.exception("a callback of run %s raised", self.workflow_id)

    def _wait(self, timeout: Optional[float]) -> None:
        for seconds in threads.slices(timeout):
            if self._ended.wait(seconds):
                return
        raise _NotDone(f"run {self.workflow_id} is not done after {timeout} s")


def _tell(waiter: Any, handle: RunHandle, error: Optional[BaseException]) -> None:
    """Tell one who waits by `concurrent.futures.wait` or `as_completed`."""
    if error is None:
        waiter.add_result(handle)
    elif isinstance(error, Cancelled):
        waiter.add_cancelled(handle)
    else:
        waiter.add_exception(handle)


class SubmittedRun:
    """A run from its submission to its end.

    Args:
        checkpoints: keeps it; None: nothing is kept.
        key: what its calls' idempotency keys are made of; None for its id.
        outer: what the run that started it counts on; None for nobody.

    Attributes:
        token: stops it.
        handle: what the submitter got.
    """

    def __init__(
        self,
        workflow: Workflow,
        input: Any,
        log: RunLog,
        options: RunOptions,
        *,
        host: RunHost,
        lock: Optional[NamedLock] = None,
        checkpoints: Optional[RunCheckpoints] = None,
        key: Optional[str] = None,
        outer: Optional[Spending] = None,
    ) -> None:
        self.workflow_id = log.workflow_id
        self.token = CancelToken()
        self.handle = RunHandle(self.workflow_id, self.token)
        self.handle._since = log.offset
        self._log = log
        self._execution = Execution(
            workflow,
            log,
            self.token,
            context=options.context,
            conversation=options.conversation,
            host=host,
            checkpoints=checkpoints,
        )
        self._execution.spending = outer
        self._execution.bear(_budget_of(options, checkpoints), f"run {self.workflow_id!r}", "spent")
        if key is not None:
            self._execution.key = key
        if checkpoints is not None:
            self.handle._leave = functools.partial(setattr, checkpoints, "leaving", True)
        self._lock = lock
        self._timeout = options.timeout
        self._deadline: Optional[threads.Alarm] = None
        self._input = input
        self._variables: Optional[contextvars.Context] = contextvars.copy_context()
        self._begins = threading.Lock()  # held by a worker and the clock, by no canceller
        self._begun = False
        self._stopped: Optional[AgentStreamError] = None  # before it began
        # A queued run is closed by the clock's thread: whoever cancels, a signal
        # handler perhaps, must wait for no lock.
        self._alarm = threads.Alarm(lambda _: self.close_queued(), grain=3600.0)
        self._key = self.token.add_callback(self._ring)

    @property
    def spending(self) -> Optional[Spending]:
        """What the requests of its agents count on; None: there is no budget."""
        return self._execution.spending

    def set_deadline(self, grace: float) -> None:
        """Have the run end in time, if it has a timeout, or `grace` seconds later without it.

        Raises:
            RuntimeError: there is no thread to be had for the clock.
        """
        timeout = self._timeout
        if timeout is None:
            return

        def ring(_: float) -> None:
            if self._execution.late is None and not self.token.cancelled:
                self._execution.late = DeadlineExceeded(
                    f"the run did not end within {timeout:g} s (timeout)", outcome="unknown"
                )
                self.token.cancel("its time is over")
                threads.arm(alarm, time.monotonic() + grace)
            elif self._execution.late is not None:
                self.leave_behind()

        alarm = self._deadline = threads.Alarm(ring, grain=timeout)
        threads.arm(alarm, time.monotonic() + timeout)

    def work(self) -> WorkflowRun:
        """Run it in this thread, with the submitter's contextvars; for a worker.

        Raises:
            WorkflowFailed, Cancelled: with `run`.
        """
        self.close_queued()
        with self._begins:
            if self._stopped is not None:
                raise self._stopped
            self._begun = self.handle._began = True
        variables, self._variables = self._variables, None
        assert variables is not None
        try:
            return variables.run(self._run)
        finally:
            self.let_go()
            del self, variables  # no cycle through an error's traceback

    def _run(self) -> WorkflowRun:
        set_place(Place(self.workflow_id, self.token, self.workflow_id, self.token))
        try:
            return self._execution.run(self._input)
        finally:
            del self

    def _ring(self) -> None:
        try:
            threads.arm(self._alarm, time.monotonic())
        except RuntimeError:
            pass  # no thread for the clock: a worker, or the shutdown, will find it stopped

    def close_queued(self) -> None:
        """End the run if it was stopped before it began; else do nothing."""
        with self._begins:
            if self._begun or self._stopped is not None or not self.token.cancelled:
                return
            self._stopped = self._execution.give_up()
        self.let_go()
        # Last: whoever waits for the run finds its terminal event in the log.
        self._resolve(self._stopped)

    def refuse(self, error: AgentStreamError) -> None:
        """End the run, which cannot begin, as failed."""
        self._begun = True
        failure = self._execution.refuse(error)
        self.let_go()
        self._resolve(failure)

    def leave_behind(self) -> None:
        """End the run on behalf of its thread, which does not stop."""
        if not self._log.ended:
            self._resolve(self._execution.give_up())

    def _resolve(self, error: BaseException) -> None:
        try:
            self.handle.set_exception(error)
        except InvalidStateError:
            pass  # it has ended this moment

    def let_go(self) -> None:
        """Let go of all that it holds: it has ended, or never begins."""
        self.token.remove_callback(self._key)
        self._alarm.stop()
        if self._deadline is not None:
            self._deadline.stop()
        if self._lock is not None:
            self._lock.release()
        self._input = self._variables = None

    def after_fork(self) -> None:
        """End it in a forked child: its thread is the parent's."""
        # Not with what the handle had: a thread that the child lacks may hold its lock.
        self.handle._reset()
        self._resolve(
            RuntimeError(f"run {self.workflow_id} goes on in the parent process, not here")
        )


def _budget_of(options: RunOptions, kept: Optional[RunCheckpoints]) -> Optional[Budget]:
    """The budget that a run is given, which is kept; else the one that it was begun with."""
    given = options.budget
    if kept is None:
        return given
    if given is not None:
        kept.put({"budget": given.to_dict()})
        return given
    known = kept.get("budget")
    return None if known is None else Budget(**known)
