"""The tool calls of one turn, run side by side, each in a thread that may have to be left behind.

Whatever a tool does, what comes back is a text that the model can act on: the
result, or what went wrong.  Nothing but a cancel ends the turn early.  Which
calls are worth running is agent_run.py's.
"""

from __future__ import annotations

import contextvars
import functools
import json
import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Union

from agentstream import threads
from agentstream.agent.approval import Approval, as_approval
from agentstream.cancel import CancelToken
from agentstream.errors import ToolError, ToolTimeout
from agentstream.events import payloads
from agentstream.events.model import EventType
from agentstream.tools.context import RunContext
from agentstream.tools.results import DEFAULT_LIMIT, to_text
from agentstream.tools.tool import Tool

if TYPE_CHECKING:
    from agentstream.agent.journal import Scribe
    from agentstream.results import ToolCall

__all__ = ["Outcome", "Toolbox", "lost_threads"]

logger = logging.getLogger("agentstream.tools")

#: Calls of one turn that run at the same time.
SIDE_BY_SIDE = 8
#: Threads that did not come back; with so many of them no tool is started any more.
MOST_LOST = 200

Approve = Callable[["ToolCall"], object]


class Outcome(NamedTuple):
    """What a call came to: the text for the model, and whether it is the tool's own result."""

    text: str
    ok: bool


#: The errands whose threads nobody waits for any longer, by their identity.
_lost: Dict[int, str] = {}


def lost_threads() -> int:
    """How many threads of this process were left behind, by tools that hang, and still run."""
    return len(_lost)


class _Errand:
    """Something done in a thread of its own, which whoever sent it may give up."""

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


class _Job(_Errand):
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

    def work(self, context: RunContext, limit: int, scribe: Scribe) -> None:
        """Call the tool and put its result, or its error, into words: all of that is user code."""
        assert self.tool is not None
        try:
            within = getattr(self.tool, "call_within", None)
            if within is None:
                result = self.tool.call(self.arguments, self.token, context)
            else:  # an agent
                result = within(self.arguments, self.token, scribe.log)
            self.text = to_text(result, limit)
        except BaseException as error:  # noqa: BLE001 - SystemExit ends a tool, not a worker
            self.problem = f"the tool raised {_said(error)}"


class Toolbox:
    """An agent's tools, and how they are run.

    Args:
        tools: by name.
        timeout: seconds for a tool that sets no time of its own; None for no bound.
        approve: asked before each call; None for nobody.
        limit: characters of a result that the model is sent.
    """

    def __init__(
        self,
        tools: Dict[str, Tool],
        timeout: Optional[float] = None,
        approve: Optional[Approve] = None,
        limit: int = DEFAULT_LIMIT,
    ) -> None:
        self.tools = tools
        self.timeout = timeout
        self.approve = approve
        self.limit = limit

    def run(self, calls: Sequence[ToolCall], scribe: Scribe, cancel: CancelToken) -> List[Outcome]:
        """Run `calls` side by side; returns what each came to, in their order.

        Returns early, with outcomes nobody needs, once `cancel` is cancelled.
        """
        return _Turn(self, calls, scribe, cancel).run()


class _Turn:
    """The calls of one answer.  Its state belongs to the agent's thread; others send it news."""

    def __init__(
        self, box: Toolbox, calls: Sequence[ToolCall], scribe: Scribe, cancel: CancelToken
    ) -> None:
        self._box = box
        self._scribe = scribe
        self._cancel = cancel
        self._jobs = [_Job(call) for call in calls]
        self._ready: List[_Job] = []  # to be started, in order
        self._running: List[_Job] = []
        # A cancel may come from a signal handler, and this queue's put takes no lock.
        self._news: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._asking: Optional[_Errand] = None
        self._context = contextvars.copy_context()

    def run(self) -> List[Outcome]:
        key = self._cancel.add_callback(lambda: self._news.put(lambda: None))
        try:
            self._prepare()
            while any(job.outcome is None for job in self._jobs):
                self._start_some()
                self._wait()
                if self._cancel.cancelled:
                    break
                self._end_overdue()
        finally:
            self._cancel.remove_callback(key)
            self._leave()
        return [job.outcome or Outcome("", False) for job in self._jobs]

    def _leave(self) -> None:
        """Give up what still runs, or waits: the run was stopped, or interrupted."""
        why = self._cancel.reason or "the turn is over"
        for job in self._running:
            job.token.cancel(why)
            job.give_up()
        unanswered = [job for job in self._jobs if job.outcome is None]
        if self._asking is not None and unanswered:
            self._asking.give_up()
        for job in unanswered:
            self._fail(job, ToolError("the run was stopped", tool=job.call.name))

    # --- before a call ----------------------------------------------------------------------

    def _prepare(self) -> None:
        sound = []
        for job in self._jobs:
            note_started(self._scribe, job.call)
            tool = self._box.tools.get(job.call.name)
            try:
                if job.call.cut:
                    raise _cut(job.call.name)
                if tool is None:
                    raise _unknown(job.call.name, self._box.tools)
                job.arguments = tool.bind(job.call.arguments)
            except ToolError as error:
                self._fail(job, error)
                continue
            job.tool = tool
            sound.append(job)
        if self._box.approve is None:
            self._ready = sound
        elif sound:
            self._ask(sound, self._box.approve)

    def _ask(self, jobs: List[_Job], approve: Approve) -> None:
        """Have `approve` asked about each call, one after the other.

        In a thread beside the agent's, which a cancel must find free; in one
        only, because there may be a person at a terminal behind it.
        """
        self._asking = errand = _Errand("approve")

        def ask() -> None:
            for job in jobs:
                if self._cancel.cancelled:
                    break
                answer = _answer(approve, job.call)
                self._news.put(functools.partial(self._answered, job, answer))
            self._news.put(self._asked)
            errand.finish()

        try:
            threads.start_thread("approve", self._context.copy().run, ask)
        except RuntimeError:
            self._asking = None
            for job in jobs:
                self._fail(job, _no_thread(job.call.name))

    def _asked(self) -> None:
        self._asking = None

    def _answered(self, job: _Job, answer: Union[Approval, ToolError]) -> None:
        try:
            if isinstance(answer, ToolError):
                raise answer
            if not answer.allowed:
                why = f": {answer.reason}" if answer.reason else ""
                raise ToolError(f"the call was not allowed{why}", tool=job.call.name)
            if answer.arguments is not None:
                self._change(job, answer)
        except ToolError as error:
            self._fail(job, error)
        else:
            self._ready.append(job)

    def _change(self, job: _Job, answer: Approval) -> None:
        assert job.tool is not None
        try:
            text = json.dumps(answer.arguments, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ToolError(
                f"the call was changed to arguments that are not JSON: {error}", tool=job.call.name
            ) from None
        job.arguments = job.tool.bind(text)
        job.call = job.call._replace(arguments=text)

    # --- a call -----------------------------------------------------------------------------

    def _start_some(self) -> None:
        while self._ready and len(self._running) < SIDE_BY_SIDE:
            job = self._ready.pop(0)
            try:
                self._start(job)
            except (ToolError, RuntimeError) as error:
                known = isinstance(error, ToolError)
                self._fail(job, error if known else _no_thread(job.call.name))  # type: ignore[arg-type]

    def _start(self, job: _Job) -> None:
        if lost_threads() >= MOST_LOST:
            raise ToolError(
                f"no tool is started: {lost_threads()} of them hang", tool=job.call.name
            )
        assert job.tool is not None
        scribe, limit, news = self._scribe, self._box.limit, self._news
        context = RunContext(scribe.workflow_id, scribe.agent, scribe.step, job.call.id, job.token)

        def work() -> None:
            job.work(context, limit, scribe)
            if job.finish():
                news.put(lambda: self._ended(job))

        most = job.tool.timeout if job.tool.timeout is not None else self._box.timeout
        job.started = time.monotonic()
        job.due = threads.NEVER if most is None else job.started + most
        # In the run's own context: a tool that starts a run starts one within this.
        threads.start_thread(f"tool-{job.call.name}", self._context.copy().run, work)
        self._running.append(job)

    def _wait(self) -> None:
        """Take the next news, or return when a call is out of time."""
        if all(job.outcome is not None for job in self._jobs):
            return
        due = min((job.due for job in self._running), default=threads.NEVER)
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

    def _ended(self, job: _Job) -> None:
        if job.outcome is not None:
            return  # it came in the moment in which it was given up
        self._running.remove(job)
        if job.text is None:
            self._fail(job, ToolError(job.problem, tool=job.call.name))
            return
        job.outcome = Outcome(job.text, True)
        note_completed(self._scribe, job.call, job.text, job.started)

    def _end_overdue(self) -> None:
        now = time.monotonic()
        for job in [job for job in self._running if job.due <= now]:
            self._running.remove(job)
            job.token.cancel("the tool is out of time")
            job.give_up()
            most = job.due - job.started
            text = f"the tool did not answer within {most:.4g} s"
            self._fail(job, ToolTimeout(text, tool=job.call.name), lost_threads=lost_threads())
            remark = (
                f"tool {job.call.name!r} did not answer within {most:.4g} s: its thread is left "
                f"behind, one of {lost_threads()}"
            )
            logger.warning(remark)
            self._scribe.note(EventType.SYSTEM_WARNING, payloads.system_warning(remark))

    def _fail(self, job: _Job, error: ToolError, lost_threads: Optional[int] = None) -> None:
        job.outcome = Outcome(f"Error: {error}", False)
        took = (time.monotonic() - job.started) * 1000 if job.started else 0.0
        data = payloads.tool_call_failed(
            _head(job.call), error, duration_ms=took, lost_threads=lost_threads
        )
        self._scribe.note(EventType.TOOL_CALL_FAILED, data)


def note_started(scribe: Scribe, call: ToolCall) -> None:
    """A call begins."""
    scribe.note(EventType.TOOL_CALL_STARTED, payloads.tool_call_started(_head(call)))


def note_completed(
    scribe: Scribe,
    call: ToolCall,
    text: str,
    started: Optional[float],
    *,
    repeated: bool = False,
) -> None:
    """A call has its result; `started` is None where nothing was run."""
    took = 0.0 if started is None else (time.monotonic() - started) * 1000
    data = payloads.tool_call_completed(
        _head(call), duration_ms=took, result=text, repeated=repeated
    )
    scribe.note(EventType.TOOL_CALL_COMPLETED, data)


def _head(call: ToolCall) -> Dict[str, Any]:
    return payloads.tool_call(call.id, call.name, call.arguments)


def _unknown(name: str, tools: Dict[str, Tool]) -> ToolError:
    known = ", ".join(tools) or "none"
    return ToolError(f"there is no tool {name[:64]!r}; known: {known}", tool=name)


def _cut(name: str) -> ToolError:
    return ToolError(
        "your answer was cut at its limit of length, or by a filter, before this call was whole:"
        " it was not made",
        tool=name,
    )


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


def _said(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - somebody's __str__
        text = ""
    return f"{type(error).__name__}: {text[:1000]}" if text else type(error).__name__
