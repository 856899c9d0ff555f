"""Submissions: how runs get into a runtime: begun, found done, or taken from where they rest."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from agentstream import threads
from agentstream.cancel import CancelToken
from agentstream.errors import Busy, ConfigError, ConnectError, LogError
from agentstream.events.model import new_id
from agentstream.events.resting import RESTING
from agentstream.events.stream import EventStream, RunLog
from agentstream.runtime.handle import RunHandle, SubmittedRun
from agentstream.runtime.host import Place, RuntimeHost
from agentstream.runtime.options import RunOptions
from agentstream.workflow import Workflow
from agentstream.workflow.checkpoints import Checkpoints
from agentstream.workflow.progress import input_as_text

if TYPE_CHECKING:
    from agentstream.agent.budget import Spending
    from agentstream.runtime.lock import NamedLock
    from agentstream.runtime.once import Earlier

__all__ = ["Submissions"]

#: Seconds between two looks at a run that its worker is about to leave.
_LEAVING_S = 0.002


class Submissions:
    """The runs of a runtime, from their submission to their end.

    Args:
        runtime: theirs, which a run that is under way keeps alive.
        stream: where their events go.
        pool: their threads.
        checkpoints: how they are kept; None: they are not.
        grace: seconds that runs which were stopped may take to end.

    Attributes:
        runs: those under way, by their ids.
        host: what the runtime does for them.
    """

    def __init__(
        self,
        runtime: object,
        stream: EventStream,
        pool: threads.WorkerPool,
        *,
        checkpoints: Optional[Checkpoints],
        grace: float,
    ) -> None:
        self._runtime = runtime
        self.runs: Dict[str, SubmittedRun] = {}
        self.host = RuntimeHost(pool)
        self._stream = stream
        self._pool = pool
        self._checkpoints = checkpoints
        self._grace = grace

    def handles(self) -> List[RunHandle]:
        """The handles of the runs under way."""
        return [run.handle for run in list(self.runs.values()) if not run.handle.done()]

    def submit(
        self, workflow: Workflow, input: Any, options: RunOptions, parent: Optional[Place]
    ) -> RunHandle:
        """Queue a run, or find the one that `once` and `resume` mean.

        Raises:
            Busy, ConfigError, LogError, RuntimeError: as `Runtime.submit`.
        """
        name = options.workflow_id
        if not (options.once or options.resume) or name is None:
            return self._begin(workflow, input, options, parent)
        if options.resume and self._checkpoints is None:
            raise ConfigError("resume=True is of a runtime with checkpoints: checkpoints=True")
        from agentstream.runtime.once import is_of  # noqa: PLC0415 - only who asks for it

        for handle in self.handles():
            if is_of(handle.workflow_id, name):
                if options.resume and self._comes_to_rest(handle.workflow_id):
                    break
                return handle
        earlier = self._look(name, options)
        while earlier.run is None:
            named = options._replace(workflow_id=earlier.workflow_id)
            try:
                if earlier.rests:
                    return self._rested(workflow, named, parent)
                return self._begin(workflow, input, named, parent, key=name)
            except LogError:
                before, earlier = earlier, self._look(name, options)
                if earlier == before:
                    raise
                # Another process was first, and may have come to the run's end since.
        return RunHandle.ended(earlier.run)

    def _look(self, name: str, options: RunOptions) -> Earlier:
        from agentstream.runtime.once import look  # noqa: PLC0415 - as above

        return look(self._stream.store, name, resume=options.resume)

    def _rested(
        self, workflow: Workflow, options: RunOptions, parent: Optional[Place]
    ) -> RunHandle:
        """Go on with a run that rests."""
        if self._checkpoints is None:
            raise Busy(
                f"run {options.workflow_id!r} rests, and can be resumed: Runtime(checkpoints=True)"
            )
        return self.resume(workflow, options, parent)

    def resume(
        self,
        workflow: Workflow,
        options: RunOptions,
        parent: Optional[Place] = None,
        *,
        force: bool = False,
        settings: Optional[Checkpoints] = None,
    ) -> RunHandle:
        """Go on with a run that is interrupted or suspended, or begin one that is queued.

        Args:
            settings: how its checkpoints are kept, if not as the runtime's are.

        Raises:
            Busy, ConfigError, LogError, RuntimeError: as `Runtime.resume`.
        """
        from agentstream.runtime.resume import take  # noqa: PLC0415 - only who keeps runs pays

        settings = settings or self._checkpoints
        assert settings is not None
        assert options.workflow_id is not None
        if options.workflow_id in self.runs and not self._comes_to_rest(options.workflow_id):
            raise Busy(f"run {options.workflow_id!r} is under way", retryable=True)
        lock = _lock_of(options)
        try:
            taken = take(
                self._stream,
                settings,
                workflow,
                options.workflow_id,
                options,
                grace=self._grace,
                force=force,
            )
            run = SubmittedRun(
                workflow,
                taken.input,
                taken.log,
                options._replace(context=taken.context),
                host=self.host,
                lock=lock,
                checkpoints=taken.checkpoints,
                key=taken.key,
                outer=self._spending_of(parent),
            )
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        return self._start(run, parent)

    def _comes_to_rest(self, name: str) -> bool:
        """True once a run is not under way any more that says in its log that it rests.

        Who reads so there may be faster than its worker, which is about to leave it.
        """
        state = self._stream.store.run(name)
        if state is None or state.status not in RESTING:
            return False
        until, pause = time.monotonic() + self._grace, CancelToken()
        while name in self.runs and time.monotonic() < until:
            pause.wait(_LEAVING_S)
        return name not in self.runs

    def _begin(
        self,
        workflow: Workflow,
        input: Any,
        options: RunOptions,
        parent: Optional[Place],
        *,
        key: Optional[str] = None,
    ) -> RunHandle:
        """Queue a new run; `key` is what the idempotency keys of its calls are made of."""
        lock = _lock_of(options)
        try:
            log = self._open_log(options.workflow_id, parent)
            log.note_input(input_as_text(input))
            kept = None
            # One that a run has started, without an id that it could find it by again, would
            # rest with nobody: whoever resumes that run starts another one.
            can_be_found = parent is None or options.workflow_id is not None
            if self._checkpoints is not None and can_be_found:
                from agentstream.runtime.resume import begin  # noqa: PLC0415 - as above

                kept = begin(
                    self._stream,
                    log,
                    self._checkpoints,
                    workflow,
                    input,
                    key=log.workflow_id if key is None else key,
                    options=options,
                    grace=self._grace,
                )
                options = options._replace(context=kept.values)
            run = SubmittedRun(
                workflow,
                input,
                log,
                options,
                host=self.host,
                lock=lock,
                checkpoints=kept,
                key=key,
                outer=self._spending_of(parent),
            )
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        return self._start(run, parent)

    def _spending_of(self, parent: Optional[Place]) -> Optional[Spending]:
        """What the requests of the run at that place count on; None for none."""
        run = None if parent is None else self.runs.get(parent.runtime_id)
        return None if run is None else run.spending

    def _open_log(self, workflow_id: Optional[str], parent: Optional[Place]) -> RunLog:
        log = self._stream.open_log(
            new_id() if workflow_id is None else workflow_id,
            None if parent is None else parent.workflow_id,
        )
        if log.workflow_id in self.runs:
            raise LogError(f"run {log.workflow_id!r} is under way: choose another id")
        return log

    def _start(self, run: SubmittedRun, parent: Optional[Place]) -> RunHandle:
        """Queue a run."""
        name = run.workflow_id  # not the run, which would hold itself; but the runtime, to its end
        self.runs[name] = run
        run.handle.add_done_callback(lambda _: self.runs.pop(name, None))
        if parent is not None:
            for token in {parent.token, parent.stop}:
                _stop_with(token, run.handle)
        try:
            run.set_deadline(self._grace)
            # A run that another one starts, and may wait for, must not wait for its place.
            self._pool.submit(run.work, run.handle, at_once=parent is not None)
        except threads.NoThread:
            run.refuse(
                ConnectError(
                    "no thread could be started for the run", phase="connect", retryable=True
                )
            )
        except RuntimeError:
            del self.runs[name]
            run.let_go()
            raise
        return run.handle


def _stop_with(token: CancelToken, child: RunHandle) -> None:
    """While it lasts, `child` is stopped when `token` says so."""
    key = token.add_callback(
        lambda: child.cancel(f"the run that started it was stopped: {token.reason}")
    )
    child.add_done_callback(lambda _: token.remove_callback(key))


def _lock_of(options: RunOptions) -> Optional[NamedLock]:
    """The lock that the run is to hold; raises Busy if another one has it."""
    if options.lock is None:
        return None
    from agentstream.runtime.lock import NamedLock  # noqa: PLC0415 - only who locks pays

    return NamedLock(options.lock)
