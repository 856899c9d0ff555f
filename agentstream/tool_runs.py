"""The tool calls of one turn, run side by side.

Whatever a tool does, what comes back is a text that the model can act on: the
result, or what went wrong.  Nothing but a cancel ends the turn early.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence

from agentstream import threads
from agentstream.cancel import CancelToken
from agentstream.errors import ToolError, ToolTimeout
from agentstream.events.model import EventType
from agentstream.tools.context import RunContext
from agentstream.tools.results import to_text
from agentstream.tools.tool import Tool

if TYPE_CHECKING:
    from agentstream.agent import Scribe
    from agentstream.llm.messages import ToolCall

__all__ = ["run_calls"]

logger = logging.getLogger("agentstream.tools")

#: What an event carries of arguments and results.
_SHOWN = 2000
#: Calls of one turn that run at the same time.
_SIDE_BY_SIDE = 8


class _Running:
    """One call under way: a thread that may have to be left behind."""

    def __init__(self, call: ToolCall, tool: Tool, arguments: Dict[str, Any]) -> None:
        self.call = call
        self.tool = tool
        self.arguments = arguments
        self.token = CancelToken()
        self.done = CancelToken()  # set by the tool's thread, or by what gives it up
        self.result: Any = None
        self.error: Optional[BaseException] = None

    def work(self, context: RunContext, places: threading.Semaphore) -> None:
        with places:
            if self.token.cancelled:
                return
            try:
                self.result = self.tool.call(self.arguments, self.token, context)
            except BaseException as error:  # noqa: BLE001 - SystemExit ends a tool, not a worker
                self.error = error
        self.done.cancel()


def run_calls(
    tools: Dict[str, Tool],
    calls: Sequence[ToolCall],
    scribe: Scribe,
    cancel: CancelToken,
    timeout: Optional[float],
) -> List[str]:
    """Run `calls`, each in a thread of its own; returns a text for each, in their order.

    Returns early, with texts nobody needs, once `cancel` is cancelled.
    """
    places = threading.Semaphore(_SIDE_BY_SIDE)
    started = time.monotonic()
    begun = [_begin(tools, call, scribe, places) for call in calls]
    texts = []
    for call, running in zip(calls, begun):
        if isinstance(running, _Running):
            text = _finish(running, scribe, cancel, timeout, started)
        else:
            text = _failed(scribe, call, running, 0.0)
        texts.append(text)
        if cancel.cancelled:
            break
    for running in begun:
        if isinstance(running, _Running):
            running.token.cancel(cancel.reason or "the turn is over")
    return texts


def _begin(
    tools: Dict[str, Tool], call: ToolCall, scribe: Scribe, places: threading.Semaphore
) -> Any:
    """Start a call; returns it, or the ToolError that kept it from starting."""
    scribe.note(
        EventType.TOOL_CALL_STARTED,
        id=call.id, name=call.name, arguments=call.arguments[:_SHOWN],
    )  # fmt: skip
    tool = tools.get(call.name)
    if tool is None:
        known = ", ".join(tools) or "none"
        return ToolError(f"there is no tool {call.name[:64]!r}; known: {known}", tool=call.name)
    try:
        arguments = tool.bind(call.arguments)
    except ToolError as error:
        return error
    running = _Running(call, tool, arguments)
    context = RunContext(scribe.workflow_id, scribe.agent, scribe.step, call.id, running.token)
    try:
        threads.start_thread(f"tool-{call.name}", running.work, context, places)
    except RuntimeError:
        return ToolError("no thread could be started for the tool", tool=call.name)
    return running


def _finish(
    running: _Running, scribe: Scribe, cancel: CancelToken, timeout: Optional[float], started: float
) -> str:
    """Wait for a call within its time, or until the run is cancelled."""
    most = running.tool.timeout if running.tool.timeout is not None else timeout
    left = None if most is None else started + most - time.monotonic()
    key = cancel.add_callback(running.done.cancel)
    running.done.wait(left)
    cancel.remove_callback(key)
    took = (time.monotonic() - started) * 1000
    name = running.call.name
    if cancel.cancelled:
        running.token.cancel(cancel.reason)
        return _failed(scribe, running.call, ToolError("the run was stopped", tool=name), took)
    if not running.done.cancelled:
        running.token.cancel("the tool is out of time")
        logger.warning("tool %s did not come back within %g s; its thread is left behind",
                       name, most)  # fmt: skip
        late = ToolTimeout(f"the tool did not answer within {most:g} s", tool=name)
        return _failed(scribe, running.call, late, took)
    if running.error is not None:
        problem = ToolError(f"the tool raised {_said(running.error)}", tool=name)
        return _failed(scribe, running.call, problem, took)
    text = to_text(running.result)
    scribe.note(
        EventType.TOOL_CALL_COMPLETED,
        id=running.call.id, name=name, duration_ms=took, result=text[:_SHOWN],
    )  # fmt: skip
    return text


def _failed(scribe: Scribe, call: ToolCall, error: ToolError, took: float) -> str:
    scribe.note(
        EventType.TOOL_CALL_FAILED,
        id=call.id, name=call.name, duration_ms=took,
        error=type(error).__name__, message=str(error)[:_SHOWN],
    )  # fmt: skip
    return f"Error: {error}"


def _said(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - somebody's __str__
        text = ""
    return f"{type(error).__name__}: {text[:1000]}" if text else type(error).__name__
