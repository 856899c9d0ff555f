"""The tool calls of one answer, run side by side, each in a thread that may have to be left behind.

Whatever a tool does, what comes back is a text that the model can act on: the
result, or what went wrong.  Nothing but a cancel ends them early.  Which
calls go round in circles is loops.py's.
"""

from __future__ import annotations

import contextvars
import functools
import json
import logging
import queue
import threading
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from agentstream import threads
from agentstream.agent.approval import Approval, as_approval
from agentstream.agent.journal import AgentLog
from agentstream.agent.settings import AgentSettings
from agentstream.cancel import CancelToken
from agentstream.errors import ToolError, ToolTimeout
from agentstream.events import payloads
from agentstream.events.model import EventType
from agentstream.results import ToolCall
from agentstream.schema.parse import as_object, shown
from agentstream.text import safe_str
from agentstream.tools import Tool
from agentstream.tools.context import RunContext
from agentstream.tools.results import refuse_async, to_text

__all__ = ["Outcome", "ToolCalls", "lost_threads"]

logger = logging.getLogger("agentstream.tools")

#: What a model is told of an exception's text, in characters.
_SAID = 1000
#: Calls of one answer that run at the same time.
SIDE_BY_SIDE = 8
#: Threads that did not come back; with so many of them no tool is started any more.
MOST_LOST = 200

Approve = Callable[[ToolCall], object]


class Outcome(NamedTuple):
    """What a call came to: the text for the model, and whether it is the tool's own result."""

    text: str
    ok: bool


#: The askings whose threads nobody waits for any longer, by their identity.
_lost: Dict[int, str] = {}


def lost_threads() -> int:
    """How many threads of this process were left behind, by tools that hang, and still run."""
    return len(_lost)


class _Background:
    """Work in a thread of its own, which may be given up while it goes on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._finished = False

    def give_up(self) -> None:
        """Wait for it no longer; until its thread ends, it counts as lost."""
        _lost[id(self)] = self.name
        if self._finished:  # looked at after the entry is in, as `finish` does it the other way
            _lost.pop(id(self), None)

    def finish(self) -> bool:
        """The thread is done; False if it had been given up."""
        self._finished = True
        late = _lost.pop(id(self), None) is not None
        if late:
            logger.info("%s came back after all; what it brought is dropped", self.name)
        return not late


class _Task(_Background):
    """One call under way."""

    def __init__(self, call: ToolCall) -> None:
        super().__init__(f"tool {call.name}")
        self.call = call
        self.tool: Optional[Tool] = None
        self.arguments: Dict[str, Any] = {}
        self.token = CancelToken()
        self.started = 0.0
        self.due = threads.NEVER
        self.problem = ""
        self.text: Optional[str] = None
        self.outcome: Optional[Outcome] = None

    def work(self, context: RunContext, limit: int) -> None:
        """Call the tool and put its result, or its error, into words: all of that is user code."""
        assert self.tool is not None
        try:
            result = self.tool.call(self.arguments, self.token, context)
            refuse_async(result)
            self.text = to_text(result, limit)
        except ToolError as error:  # in the tool's own words, meant for the model
            self.problem = safe_str(error, _SAID) or "the tool failed"
        except BaseException as error:
            logger.debug("tool %.80r failed", self.call.name, exc_info=True)
            self.problem = f"the tool raised {type(error).__name__}"
            said = safe_str(error, _SAID)
            if said:
                self.problem += f": {said}"


class ToolCalls:
    """How the calls of an agent's run are made.

    Args:
        agent: its tools, limits and `approve`.
        log: where the calls' events go.
        context: the run, as its tools see it; its token ends the calls.
    """

    def __init__(self, agent: AgentSettings, log: AgentLog, context: RunContext) -> None:
        self.agent = agent
        self.log = log
        self.context = context

    def run(self, calls: Sequence[ToolCall]) -> List[Outcome]:
        """Run the calls of one answer side by side; returns what each came to, in their order.

        Returns early, with outcomes nobody needs, once the run is stopped.
        """
        return _Batch(self, calls).run()

    def note_started(self, call: ToolCall) -> None:
        """Append that a call begins."""
        self.log.note(EventType.TOOL_CALL_STARTED, payloads.tool_call_started(_head(call)))

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

    def __init__(self, calls: ToolCalls, made: Sequence[ToolCall]) -> None:
        self._calls = calls
        self._agent = calls.agent
        self._cancel = calls.context.cancel
        self._tasks = [_Task(call) for call in made]
        self._ready: List[_Task] = []  # to be started, in order
        self._running: List[_Task] = []
        # A cancel may come from a signal handler, and this queue's put takes no lock.
        self._news: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._asking: Optional[_Background] = None
        self._context = contextvars.copy_context()

    def run(self) -> List[Outcome]:
        key = self._cancel.add_callback(lambda: self._news.put(lambda: None))
        try:
            self._prepare()
            while any(task.outcome is None for task in self._tasks):
                self._start_some()
                self._wait()
                if self._cancel.cancelled:
                    break
                self._end_overdue()
        finally:
            self._cancel.remove_callback(key)
            self._leave()
        return [task.outcome or Outcome("", False) for task in self._tasks]

    def _leave(self) -> None:
        """Give up what still runs, or waits: the run was stopped, or interrupted."""
        why = self._cancel.reason or "the answer is done with"
        for task in self._running:
            task.token.cancel(why)
            task.give_up()
        unanswered = [task for task in self._tasks if task.outcome is None]
        if self._asking is not None and unanswered:
            self._asking.give_up()
        for task in unanswered:
            self._fail(task, ToolError("the run was stopped", tool=task.call.name))

    # --- before a call ----------------------------------------------------------------------

    def _prepare(self) -> None:
        sound = []
        for task in self._tasks:
            self._calls.note_started(task.call)
            try:
                task.tool, task.arguments = self._bound(task.call)
            except ToolError as error:
                self._fail(task, error)
                continue
            sound.append(task)
        if self._agent.approve is None:
            self._ready = sound
        elif sound:
            self._ask(sound, self._agent.approve)

    def _bound(self, call: ToolCall) -> Tuple[Tool, Dict[str, Any]]:
        """The tool of a call, and its arguments as the tool takes them.

        Raises:
            ToolError: the call cannot be made; the text tells the model why.
        """
        try:
            if call.cut:
                raise _cut(call.name)
            tool = self._agent.tools.get(call.name)
            if tool is None:
                raise _unknown(call.name, self._agent.tools)
            return tool, tool.bind(call.arguments)
        except ToolError as error:
            if not call.arguments.strip() or as_object(call.arguments) is not None:
                raise
            # What goes back to the model in their place is an object: here it sees what it wrote.
            text = f"{error} Its arguments began with {shown(call.arguments, 120)}"
            raise ToolError(text, tool=call.name) from error.__cause__

    def _ask(self, tasks: List[_Task], approve: Approve) -> None:
        """Have `approve` asked about each call, one after the other.

        In a thread beside the agent's, which a cancel must find free; in one
        only, because there may be a person at a terminal behind it.
        """
        self._asking = asking = _Background("approve")

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
                self._fail(task, _no_thread(task.call.name))

    def _asked(self) -> None:
        self._asking = None

    def _answered(self, task: _Task, answer: Union[Approval, ToolError]) -> None:
        try:
            if isinstance(answer, ToolError):
                raise answer
            if not answer.allowed:
                why = f": {answer.reason}" if answer.reason else ""
                raise ToolError(f"the call was not allowed{why}", tool=task.call.name)
            if answer.arguments is not None:
                self._change(task, answer)
        except ToolError as error:
            self._fail(task, error)
        else:
            self._ready.append(task)

    def _change(self, task: _Task, answer: Approval) -> None:
        assert task.tool is not None
        try:
            text = json.dumps(answer.arguments, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ToolError(
                f"the call was changed to arguments that are not JSON: {error}", tool=task.call.name
            ) from None
        task.arguments = task.tool.bind(text)
        task.call = task.call._replace(arguments=text)

    # --- a call -----------------------------------------------------------------------------

    def _start_some(self) -> None:
        while self._ready and self._may_start(self._ready[0]):
            task = self._ready.pop(0)
            try:
                self._start(task)
            except (ToolError, RuntimeError) as error:
                known = isinstance(error, ToolError)
                self._fail(task, error if known else _no_thread(task.call.name))  # type: ignore[arg-type]

    def _may_start(self, task: _Task) -> bool:
        """True if the next call in order may run beside those that run now."""
        if not self._running:
            return True
        if self._agent.one_at_a_time:
            return False
        if any(_is_alone(other) for other in (task, *self._running)):
            return False
        return len(self._running) < SIDE_BY_SIDE

    def _start(self, task: _Task) -> None:
        if lost_threads() >= MOST_LOST:
            raise ToolError(
                f"no tool is started: {lost_threads()} of them hang", tool=task.call.name
            )
        assert task.tool is not None
        limits, news = self._agent.limits, self._news
        context = self._calls.context.replace(tool_call_id=task.call.id, cancel=task.token)

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
        threads.start_thread(f"tool-{task.call.name}", self._context.copy().run, work)
        self._running.append(task)

    def _wait(self) -> None:
        """Take the next news, or return when a call is out of time."""
        if all(task.outcome is not None for task in self._tasks):
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

    def _ended(self, task: _Task) -> None:
        if task.outcome is not None:
            return  # it came in the moment in which it was given up
        self._running.remove(task)
        if task.text is None:
            self._fail(task, ToolError(task.problem, tool=task.call.name))
            return
        task.outcome = Outcome(task.text, True)
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

    def _fail(self, task: _Task, error: ToolError, lost_threads: Optional[int] = None) -> None:
        task.outcome = Outcome(f"Error: {error}", False)
        took = time.monotonic() - task.started if task.started else 0.0
        self._calls.note_failed(task.call, error, took, lost_threads)


def _head(call: ToolCall) -> Dict[str, Any]:
    return payloads.tool_call(call.id, call.name, call.arguments)


def _unknown(name: str, tools: Mapping[str, Tool]) -> ToolError:
    known = ", ".join(tools) or "none"
    return ToolError(f"there is no tool {name[:64]!r}; known: {known}", tool=name)


def _cut(name: str) -> ToolError:
    return ToolError(
        "your answer was cut at its limit of length, or by a filter, before this call was whole:"
        " it was not made.",
        tool=name,
    )


def _is_alone(task: _Task) -> bool:
    return task.tool is not None and task.tool.alone


def _no_thread(name: str) -> ToolError:
    return ToolError("no thread could be started for the tool", tool=name)


def _answer(approve: Approve, call: ToolCall) -> Union[Approval, ToolError]:
    """What `approve` says of a call; whatever it does otherwise is no yes."""
    try:
        return as_approval(approve(call))
    except BaseException as error:  # a SystemExit in it ends no run
        logger.exception("approve could not answer for tool %s", call.name)
        problem = f"the call was not approved: asking raised {type(error).__name__}"
        return ToolError(problem, tool=call.name)
