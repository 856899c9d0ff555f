"""DurableRuns: what a runtime does for runs that can be resumed.

A part of Runtime: taking them again, and what people answer to those that wait.
"""

from __future__ import annotations

from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from agentstream import checks, threads
from agentstream.agent.agent import Agent
from agentstream.errors import ConfigError
from agentstream.events.entry import check_id
from agentstream.events.stream import EventStream
from agentstream.results import PendingCall, PendingSignal
from agentstream.runtime.handle import RunHandle
from agentstream.runtime.host import current_place
from agentstream.runtime.options import RunOptions, as_workflow
from agentstream.runtime.submissions import Submissions
from agentstream.workflow import Workflow
from agentstream.workflow.checkpoints import Checkpoints, Codec

if TYPE_CHECKING:
    from agentstream.agent.budget import Budget
    from agentstream.agent.conversation import Conversation
    from agentstream.runtime.watch import Watch

__all__ = ["DurableRuns"]


class DurableRuns:
    """What `Runtime` adds for runs that outlive their process."""

    event_stream: EventStream
    _checkpoints: Optional[Checkpoints]
    _submissions: Submissions
    _watches: List[threads.Poller]
    _in_turn: Callable[[Callable[[], RunHandle]], RunHandle]

    @property
    def keeps_checkpoints(self) -> bool:
        """True if its runs can be resumed, and it resumes others' runs."""
        return self._checkpoints is not None

    def resume(
        self,
        workflow: Union[Workflow, Agent],
        workflow_id: str,
        approvals: Optional[Mapping[str, object]] = None,
        *,
        force: bool = False,
        context: Optional[Dict[str, Any]] = None,
        conversation: Optional[Conversation] = None,
        timeout: Optional[float] = None,
        lock: Optional[str] = None,
        budget: Optional[Budget] = None,
    ) -> RunHandle:
        """Go on with a run that is interrupted or suspended; returns its `RunHandle` at once.

        Steps that are done are not run again, nor tool calls that have their result; an
        agent goes on after its last answer.  A call that was begun, of which nobody knows
        whether it was made, goes by its tool's `on_unknown`.  What still waits for an
        answer suspends the run again.  Of one that has been completed the handle has the
        output, as with `once`.

        Args:
            workflow: the run's, unchanged: its steps' names, kinds and shape.
            workflow_id: the run's id.
            approvals: answers to pending calls, by their ids, as `approve` takes them.
            force: go on though the workflow was changed: what is done is not run again
                where its place has the same label.
            context: a dict that gets what the steps share.
            conversation: of an agent's run that was given one, again.
            timeout, lock, budget: as in `submit`.

        Raises:
            Busy: a living process has it, or the lock is held.
            ConfigError: the workflow was changed, the runtime keeps no checkpoints, or an
                argument cannot be used.
            LogError: there is no such run, it has failed or was stopped, or it cannot be
                resumed.
            RuntimeError: as `submit`.
        """
        check_id("workflow_id", workflow_id)
        checks.flag("force", force)
        options = RunOptions(
            workflow_id, context, conversation, timeout, lock, resume=True, budget=budget
        ).checked()
        known = as_workflow(workflow, conversation=conversation is not None)
        if self._checkpoints is None:
            raise ConfigError(
                "this runtime keeps no checkpoints, and resumes none: Runtime(checkpoints=True)"
            )
        for call_id, answer in dict(approvals or {}).items():
            self.approve(workflow_id, call_id, answer)
        parent = current_place()
        return self._in_turn(lambda: self._submissions.resume(known, options, parent, force=force))

    def _enter(self, workflow: Workflow, workflow_id: str, settings: Checkpoints) -> RunHandle:
        """Take a run that nobody has, for agentstream.jobs; its checkpoints are kept so.

        Raises:
            Busy, ConfigError, LogError, RuntimeError: as `resume`.
        """
        options = RunOptions(workflow_id, resume=True).checked()
        return self._in_turn(lambda: self._submissions.resume(workflow, options, settings=settings))

    def pending(self, workflow_id: str) -> Tuple[Union[PendingCall, PendingSignal], ...]:
        """What a suspended run waits for, and nobody has answered yet; () for any other run.

        Raises:
            ConfigError: the id is none.
        """
        from agentstream.runtime import answers  # noqa: PLC0415 - only who keeps runs pays

        return tuple(answers.unanswered(self.event_stream.store, workflow_id))

    def approve(
        self, workflow_id: str, call_id: str, approval: object = True, *, by: str = ""
    ) -> None:
        """Answer a pending call of a suspended run, from any process; then resume it.

        Each call is answered once, as it was asked.

        Args:
            call_id: `PendingCall.id`.
            approval: an `Approval`, or what `Agent(approve=...)` may answer.
            by: who answers, for the log.

        Raises:
            ConfigError: an argument cannot be used.
            LogError: the run does not wait for that call, it has been answered already, or
                its time is over.
        """
        from agentstream.runtime import answers  # noqa: PLC0415 - as above

        answers.approve(
            self.event_stream.store, workflow_id, call_id, approval, by=by, codec=self._codec()
        )

    def signal(self, workflow_id: str, name: str, value: Any = None, *, by: str = "") -> None:
        """Send a run the value that its `Wait` of that name waits for, from any process.

        It may come before the run has come to that step.

        Args:
            value: a JSON value.
            by: who sends it, for the log.

        Raises:
            ConfigError: an argument cannot be used.
            LogError: there is no such run, it has ended, or has such a value that it has
                not used yet.
        """
        from agentstream.runtime import answers  # noqa: PLC0415 - as above

        answers.signal(
            self.event_stream.store, workflow_id, name, value, by=by, codec=self._codec()
        )

    def _codec(self) -> Optional[Codec]:
        return None if self._checkpoints is None else self._checkpoints.codec

    def watch(
        self,
        workflows: Sequence[Union[Workflow, Agent]],
        *,
        at_most: int = 4,
        poll_s: float = 1.0,
    ) -> Watch:
        """Resume runs of these workflows as they become ready, until it is closed.

        Ready is what is interrupted, and what is suspended and has got an answer to what
        it waits for, or waits no longer.  Any number of processes may watch one log: each
        run is taken by one.

        Args:
            workflows: a run is one of theirs by its name.
            at_most: runs under way at once that were resumed so.
            poll_s: seconds between looks at the log.

        Raises:
            ConfigError: an argument cannot be used, or the runtime keeps no checkpoints.
            RuntimeError: no thread could be started.
        """
        from agentstream.runtime.watch import Watch  # noqa: PLC0415 - as above

        if self._checkpoints is None:
            raise ConfigError(
                "this runtime keeps no checkpoints, and watches none: Runtime(checkpoints=True)"
            )
        if isinstance(workflows, (Workflow, Agent)):
            workflows = [workflows]
        known: List[Workflow] = [as_workflow(each, conversation=False) for each in workflows]
        named = {each.name: each for each in known}
        if len(named) < len(known) or not known:
            raise ConfigError("watch takes workflows with names of their own, at least one")
        watch = Watch(
            self.event_stream.store,
            named,
            self.resume,
            at_most=checks.whole("at_most", at_most, 1),
            poll_s=checks.seconds("poll_s", poll_s),
        )
        self._watches.append(watch)
        watch.start()
        return watch
