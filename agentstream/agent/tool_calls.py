"""The tool calls of one answer, run side by side, each in a thread that may have to be left behind.

Whatever a tool does, what comes back is a text that the model can act on: the
result, or what went wrong.  Nothing but a cancel ends them early.  A call that an earlier
process began, and nobody knows whether it was made, is made again, asked about, or ends the
run, as its tool says.
"""

from __future__ import annotations

import contextvars
import functools
import json
import logging
import queue
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

from agentstream import threads
from agentstream.agent.approval import Approval, as_approval
from agentstream.agent.checkpoints import CallState, RoundCheckpoint
from agentstream.agent.journal import AgentLog
from agentstream.agent.settings import AgentSettings
from agentstream.agent.tool_task import (
    Background,
    Made,
    Outcome,
    Task,
    cut,
    lost_threads,
    no_thread,
    unknown,
)
from agentstream.errors import Suspended, ToolError, ToolTimeout
from agentstream.events import payloads
from agentstream.events.model import EventType, new_id
from agentstream.results import PendingCall, ToolCall
from agentstream.schema.parse import as_object, shown
from agentstream.tools import Tool
from agentstream.tools.context import RunContext

__all__ = ["Made", "Outcome", "ToolCalls", "lost_threads"]

logger = logging.getLogger("agentstream.tools")

#: Calls of one answer that run at the same time.
SIDE_BY_SIDE = 8
#: Threads that did not come back; with so many of them no tool is started any more.
MOST_LOST = 200

Approve = Callable[[ToolCall], object]


class ToolCalls:
    """How the calls of an agent's run are made.

    Args:
        agent: its tools, limits and `approve`.
        log: where the calls' events go.
        context: the run, as its tools see it; its token ends the calls.
        round: what is kept of the calls, and known of them.
    """

    def __init__(
        self, agent: AgentSettings, log: AgentLog, context: RunContext, round: RoundCheckpoint
    ) -> None:
        self.agent = agent
        self.log = log
        self.context = context
        self.round = round

    def run(self, calls: Sequence[Made]) -> List[Outcome]:
        """Run the calls of one answer side by side; returns what each came to, in their order.

        Returns early, with outcomes nobody needs, once the run is stopped.

        Raises:
            Suspended: somebody must decide about a call; the others have been made.
            ToolError: an earlier process began a call whose tool says that the run fails then.
        """
        return _Batch(self, calls).run()

    def note_started(self, call: ToolCall, *, again: bool = False) -> None:
        """Append that a call begins; `again`: an earlier process has done that."""
        data, tool = payloads.tool_call_started(_head(call)), self.agent.tools.get(call.name)
        note = self.log.trace if again else self.log.note
        note(EventType.TOOL_CALL_STARTED, data, about=tool)

    def note_completed(
        self, call: ToolCall, text: str, took_s: float, *, repeated: bool = False
    ) -> None:
        """Append that a call has its result; `repeated`: that of the equal one beside it."""
        data = payloads.tool_call_completed(
            _head(call), duration_s=took_s, result=text, repeated=repeated
        )
        self.log.note(EventType.TOOL_CALL_COMPLETED, data)

    def note_failed(
        self, call: ToolCall, error: ToolError, took_s: float, lost_threads: Optional[int] = None
    ) -> None:
        """Append that a call has failed."""
        data = payloads.tool_call_failed(
            _head(call), error, duration_s=took_s, lost_threads=lost_threads
        )
        self.log.note(EventType.TOOL_CALL_FAILED, data)


class _Batch:
    """The calls of one answer.  Its state belongs to the agent's thread; others send it news."""

    def __init__(self, calls: ToolCalls, made: Sequence[Made]) -> None:
        self._calls = calls
        self._agent = calls.agent
        self._round = calls.round
        self._cancel = calls.context.cancel
        self._tasks = [Task(each, calls.round.key(each.at, each.call)) for each in made]
        self._ready: List[Task] = []  # to be started, in order
        self._running: List[Task] = []
        # A cancel may come from a signal handler, and this queue's put takes no lock.
        self._news: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._asking: Optional[Background] = None
        self._until: Optional[float] = None  # the run's process leaves it: calls may end up to then
        self._context = contextvars.copy_context()

    def run(self) -> List[Outcome]:
        key = self._cancel.add_callback(lambda: self._news.put(lambda: None))
        try:
            self._prepare()
            while any(task.is_open for task in self._tasks):
                if not self._cancel.cancelled:
                    self._start_some()
                self._wait()
                if self._cancel.cancelled and not self._may_end():
                    break
                self._end_overdue()
        finally:
            self._cancel.remove_callback(key)
            self._leave()
        pending = tuple(each for task in self._tasks for each in task.pending)
        if pending and not self._cancel.cancelled:
            raise Suspended("somebody must decide about a tool call", pending=pending)
        return [task.outcome or Outcome("", False) for task in self._tasks]

    def _may_end(self) -> bool:
        """True while the calls under way may end, because another process goes on with the run."""
        keeper = self._round.keeper
        if keeper is None or not keeper.leaving or not self._running:
            return False
        now = time.monotonic()
        if self._until is None:
            self._until = now + keeper.grace
            for task in self._running:
                task.due = min(task.due, self._until)
        return now < self._until

    def _leave(self) -> None:
        """Give up what still runs, or waits: the run was stopped, or interrupted."""
        why = self._cancel.reason or "the answer is done with"
        for task in self._running:
            task.token.cancel(why)
            task.give_up()
        unanswered = [task for task in self._tasks if task.is_open]
        if self._asking is not None and unanswered:
            self._asking.give_up()
        keeper = self._round.keeper
        is_left = keeper is not None and keeper.leaving
        for task in unanswered:
            if is_left:  # whoever goes on with the run says what becomes of it
                task.outcome = Outcome("", False)
                continue
            self._fail(task, ToolError("the run was stopped", tool=task.call.name), keep=False)

    # --- before a call ----------------------------------------------------------------------

    def _prepare(self) -> None:
        sound = []
        for task in self._tasks:
            state = task.state = self._round.state(task.index)
            if state is not None and state.state == "done":
                task.outcome = Outcome(state.text, state.ok)
                continue
            self._calls.note_started(task.call, again=state is not None)
            task.context = contextvars.copy_context()
            try:
                task.tool, task.arguments = self._bound(task.call)
                if state is not None:
                    self._go_on(task, state)
                    continue
            except ToolError as error:
                if error.outcome == "unknown":
                    raise
                self._fail(task, error)
                continue
            sound.append(task)
        if self._agent.approve is None:
            self._ready += sound
        elif sound:
            self._ask(sound, self._agent.approve)

    def _go_on(self, task: Task, state: CallState) -> None:
        """Go on with a call that an earlier process had begun, or asked about.

        Raises:
            ToolError: nobody knows whether it was made, and its tool says that this ends the run.
        """
        assert task.tool is not None
        if state.arguments is not None:
            self._change_to(task, state.arguments)
        if state.state == "resting" or (state.state == "begun" and task.tool.on_unknown == "rerun"):
            self._ready.append(task)
            return
        if state.state == "begun":
            if task.tool.on_unknown == "fail":
                raise ToolError(
                    f"tool {task.call.name!r} was called when the run's process died, and nobody"
                    " knows whether it was done (on_unknown='fail')",
                    tool=task.call.name,
                    outcome="unknown",
                )
            state = self._asked_about(task, "unknown")
        answer = self._round.decision(state)
        if answer is None:
            task.pending = (self._pending(task, state),)
        else:
            self._answered(task, answer)

    def _asked_about(self, task: Task, why: str, expires_at: Optional[float] = None) -> CallState:
        """Keep that somebody is asked, once under each id: an answer is for no later question."""
        state = task.state = CallState(
            "asked", id=new_id(), why=why, expires_at=expires_at, arguments=task.changed
        )
        self._round.note({task.index: state})
        return state

    def _pending(self, task: Task, state: CallState) -> PendingCall:
        call, log = task.call, self._calls.log
        return PendingCall(
            state.id, call.name, call.arguments, log.step, log.agent, state.why, state.expires_at
        )

    def _bound(self, call: ToolCall) -> Tuple[Tool, Dict[str, Any]]:
        """The tool of a call, and its arguments as the tool takes them.

        Raises:
            ToolError: the call cannot be made; the text tells the model why.
        """
        try:
            if call.cut:
                raise cut(call.name)
            tool = self._agent.tools.get(call.name)
            if tool is None:
                raise unknown(call.name, self._agent.tools)
            return tool, tool.bind(call.arguments)
        except ToolError as error:
            if not call.arguments.strip() or as_object(call.arguments) is not None:
                raise
            # What goes back to the model in their place is an object: here it sees what it wrote.
            text = f"{error} Its arguments began with {shown(call.arguments, 120)}"
            raise ToolError(text, tool=call.name) from error.__cause__

    def _ask(self, tasks: List[Task], approve: Approve) -> None:
        """Have `approve` asked about each call, one after the other.

        In a thread beside the agent's, which a cancel must find free; in one
        only, because there may be a person at a terminal behind it.
        """
        self._asking = asking = Background("approve")

        def ask() -> None:
            for task in tasks:
                if self._cancel.cancelled:
                    break
                answer = _answer(approve, task.call)
                self._news.put(functools.partial(self._answered, task, answer))
            self._news.put(self._asked)
            asking.finish()

        try:
            threads.start_thread("approve", self._context.copy().run, ask)
        except RuntimeError:
            self._asking = None
            for task in tasks:
                self._fail(task, no_thread(task.call.name))

    def _asked(self) -> None:
        self._asking = None

    def _answered(self, task: Task, answer: Union[Approval, ToolError]) -> None:
        try:
            if isinstance(answer, ToolError):
                raise answer
            if answer.is_later:
                self._ask_later(task, answer)
                return
            if not answer.allowed:
                why = f": {answer.reason}" if answer.reason else ""
                raise ToolError(f"{_refused(task)}{why}", tool=task.call.name)
            if answer.arguments is not None:
                self._change(task, answer)
        except ToolError as error:
            self._fail(task, error)
        else:
            self._ready.append(task)

    def _ask_later(self, task: Task, answer: Approval) -> None:
        """Have the run wait, in no process, for somebody's answer.

        Raises:
            ToolError: nothing is kept of the run, so that it cannot.
        """
        if self._round.keeper is None:
            logger.error(
                "Approval.later() for tool %.80r is no answer in a run without checkpoints:"
                " Runtime(checkpoints=True)",
                task.call.name,
            )
            raise ToolError("the call was not allowed: nobody can answer", tool=task.call.name)
        expires_at = None if answer.expires is None else time.time() + answer.expires
        task.pending = (self._pending(task, self._asked_about(task, "approval", expires_at)),)

    def _change(self, task: Task, answer: Approval) -> None:
        try:
            text = json.dumps(answer.arguments, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ToolError(
                f"the call was changed to arguments that are not JSON: {error}", tool=task.call.name
            ) from None
        self._change_to(task, text)

    @staticmethod
    def _change_to(task: Task, text: str) -> None:
        assert task.tool is not None
        task.arguments = task.tool.bind(text)
        task.call = task.call._replace(arguments=text)
        task.changed = text

    # --- a call -----------------------------------------------------------------------------

    def _start_some(self) -> None:
        starting: List[Task] = []
        while self._ready and self._may_start(self._ready[0], [*self._running, *starting]):
            starting.append(self._ready.pop(0))
        self._keep_begun(starting)
        for task in starting:
            try:
                self._start(task)
            except (ToolError, RuntimeError) as error:
                known = isinstance(error, ToolError)
                self._fail(task, error if known else no_thread(task.call.name))  # type: ignore[arg-type]

    def _keep_begun(self, tasks: Sequence[Task]) -> None:
        """Keep that calls begin, before they do; raises LogError if it cannot be kept."""
        if self._round.keeper is None:
            return
        begun: Dict[int, CallState] = {}
        for task in tasks:
            task.state = begun[task.index] = CallState("begun", arguments=task.changed)
        # Also of one that may be made again: the answer that wants it must be kept before it
        # has an effect.  A model that is asked anew may want another call, of another key.
        self._round.note(begun, wait=True)

    def _may_start(self, task: Task, running: Sequence[Task]) -> bool:
        """True if the next call in order may run beside those that run now."""
        if not running:
            return True
        if self._agent.one_at_a_time:
            return False
        if any(other.is_alone for other in (task, *running)):
            return False
        return len(running) < SIDE_BY_SIDE

    def _start(self, task: Task) -> None:
        if lost_threads() >= MOST_LOST:
            raise ToolError(
                f"no tool is started: {lost_threads()} of them hang", tool=task.call.name
            )
        assert task.tool is not None
        limits, news = self._agent.limits, self._news
        context = self._calls.context.replace(
            tool_call_id=task.call.id, cancel=task.token, idempotency_key=task.key
        )

        def work() -> None:
            try:
                task.work(context, limits.result_chars)
            finally:
                if task.finish():
                    news.put(lambda: self._ended(task))

        most = task.tool.timeout if task.tool.timeout is not None else limits.timeout
        task.started = time.monotonic()
        task.due = threads.NEVER if most is None else task.started + most
        # In the run's own context: a tool that starts a run starts one within this.
        threads.start_thread(f"tool-{task.call.name}", task.context.run, work)
        self._running.append(task)

    def _wait(self) -> None:
        """Take the next news, or return when a call is out of time."""
        if not any(task.is_open for task in self._tasks):
            return
        due = min((task.due for task in self._running), default=threads.NEVER)
        left = min(due - time.monotonic(), threading.TIMEOUT_MAX)
        try:
            if due == threads.NEVER:
                self._news.get()()
            elif left > 0:
                threads.get_within(self._news, left)()
            while True:
                self._news.get_nowait()()
        except queue.Empty:
            pass

    def _ended(self, task: Task) -> None:
        if task.outcome is not None:
            return  # it came in the moment in which it was given up
        self._running.remove(task)
        if task.pending:
            task.state = CallState("resting", arguments=task.changed)
            self._round.note({task.index: task.state})
            return
        if task.text is None:
            self._fail(task, ToolError(task.problem, tool=task.call.name))
            return
        task.outcome = Outcome(task.text, True)
        self._round.note({task.index: CallState("done", task.text, True)})
        took = time.monotonic() - task.started
        self._calls.note_completed(task.call, task.text, took)

    def _end_overdue(self) -> None:
        now = time.monotonic()
        for task in [task for task in self._running if task.due <= now]:
            self._running.remove(task)
            task.token.cancel("the tool is out of time")
            task.give_up()
            most = task.due - task.started
            text = f"the tool did not answer within {most:.4g} s"
            self._fail(task, ToolTimeout(text, tool=task.call.name), lost_threads=lost_threads())
            remark = (
                f"tool {task.call.name!r} did not answer within {most:.4g} s: its thread is left "
                f"behind, one of {lost_threads()}"
            )
            logger.warning(remark)
            self._calls.log.note(EventType.SYSTEM_WARNING, payloads.system_warning(remark))

    def _fail(
        self,
        task: Task,
        error: ToolError,
        lost_threads: Optional[int] = None,
        *,
        keep: bool = True,
    ) -> None:
        task.outcome = Outcome(f"Error: {error}", False)
        if keep:
            self._round.note({task.index: CallState("done", task.outcome.text)})
        took = time.monotonic() - task.started if task.started else 0.0
        self._calls.note_failed(task.call, error, took, lost_threads)


def _head(call: ToolCall) -> Dict[str, Any]:
    return payloads.tool_call(call.id, call.name, call.arguments)


def _refused(task: Task) -> str:
    """What the model is told of a call to which somebody has said no."""
    if task.state is None or task.state.why != "unknown":
        return "the call was not allowed"
    return "the call may have been made before it broke off, and is not made again"


def _answer(approve: Approve, call: ToolCall) -> Union[Approval, ToolError]:
    """What `approve` says of a call; whatever it does otherwise is no yes."""
    try:
        return as_approval(approve(call))
    except BaseException as error:  # a SystemExit in it ends no run
        logger.exception("approve could not answer for tool %s", call.name)
        problem = f"the call was not approved: asking raised {type(error).__name__}"
        return ToolError(problem, tool=call.name)
