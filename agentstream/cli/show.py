"""Runs something, and shows it: as text on a terminal, as its result in a pipe, as events.

What the commands that have a run to show share.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Set

from agentstream.cli.endings import DONE, note
from agentstream.cli.settings import setting
from agentstream.cli.text import Output
from agentstream.console.terminal import is_terminal
from agentstream.errors import AgentStreamError, Cancelled, WorkflowFailed
from agentstream.events.model import Event, EventType, new_id
from agentstream.events.stream import EventStream
from agentstream.results import ChatResponse, StepResult, WorkflowRun
from agentstream.runtime.runtime import RunHandle, Runtime
from agentstream.workflow.context import as_content
from agentstream.workflow.progress import as_told

if TYPE_CHECKING:
    import argparse

__all__ = ["View", "execute", "write_output"]

#: Seconds that a run may take to end when it is stopped.
_GRACE_S = 3.0


def execute(
    given: argparse.Namespace,
    what: Any,
    input: Any,
    *,
    log: Optional[str],
    plain: bool = False,
    context: Optional[Dict[str, Any]] = None,
    workflow_id: Optional[str] = None,
) -> int:
    """Run a workflow or an agent and show it; returns the exit code.

    Args:
        given: the arguments: json, jsonl, quiet, verbose.
        what: the workflow or agent.
        input: the first step's input.
        log: the file that keeps the events; None for none.
        plain: one agent's text and nothing around it.
        context: what the steps share.
        workflow_id: the run's id; None for a new one.

    Raises:
        WorkflowFailed, Cancelled, Interrupted: with `run`.
    """
    workflow_id = workflow_id or new_id()
    with Runtime(event_stream=_stream(log, setting(given, "log_days")), grace=_GRACE_S) as runtime:
        view = View(given, plain)
        # Before its first event comes: that may find nobody reading.
        view.watch(workflow_id, lambda reason: runtime.stop_generation(workflow_id, reason))
        runtime.event_stream.subscribe(view)
        handle = runtime.submit(what, input, context=context, workflow_id=workflow_id)
        if log is not None and (view.on_terminal or given.verbose) and not given.quiet:
            note(f"run {workflow_id}; `agentstream stop {workflow_id} --log {log}` stops it")
        try:
            run = _result(handle)
        except (WorkflowFailed, Cancelled) as error:
            if view.closed:
                return DONE  # nobody reads it any more: `| head`
            if given.json and not plain and error.run is not None:
                show_result(given, error.run, error)
            raise
        finally:
            runtime.shutdown(cancel=True)  # the view has seen the run's last event then
            view.end()
    if not view.closed and not view.has_shown(run.output):
        show_result(given, run, answer=view.answer)
    return DONE


def _stream(log: Optional[str], days: Optional[float]) -> EventStream:
    if log is None:
        return EventStream()
    from agentstream.events.sqlite import SqliteStore  # noqa: PLC0415

    return EventStream(SqliteStore(log, max_age=None if days is None else days * 86_400))


def _result(handle: RunHandle) -> WorkflowRun:
    try:
        return handle.result()
    except KeyboardInterrupt as interruption:
        handle.cancel(str(interruption) or "stopped by Ctrl-C")
        try:
            handle.result(_GRACE_S)
        except (WorkflowFailed, Cancelled) as ended:
            interruption.run = ended.run  # type: ignore[attr-defined]  # for the line that says why
        except TimeoutError:
            pass
        raise


class View:
    """A callback for the bus that shows one run, and the runs within it.

    Attributes:
        on_terminal: True if a person watches.
        answer: with `plain` and `--json`, what a `ChatResponse` has, once there is one.
    """

    def __init__(self, given: argparse.Namespace, plain: bool = False) -> None:
        self._runs: Set[str] = set()
        self._said: Optional[str] = None  # what an agent said last
        self._stop: Callable[[str], object] = lambda _: None
        self._output = Output(sys.stdout)
        self._trouble: Optional[OSError] = None  # with writing there
        self._given = given
        self._callbacks: List[Callable[[Event], object]] = []
        self.answer: Dict[str, Any] = {}
        self._console: Any = None
        self._status: Any = None
        self._cut: Set[str] = set()  # agents whose answers were
        self.on_terminal = is_terminal(sys.stderr)
        streams = is_terminal(sys.stdout) and not given.json and not given.jsonl and not given.quiet
        if self.on_terminal and not given.quiet and not given.verbose:  # a log and it do not mix
            self._add_status()
        if given.jsonl:
            self._callbacks.append(self._write_json)
        elif streams:
            self._add_console(plain)
        elif plain:
            self._callbacks.append(self._keep if given.json else self._write_text)
        if given.verbose:
            from agentstream.cli.narration import narrate  # noqa: PLC0415

            self._callbacks.append(narrate)

    def watch(self, workflow_id: str, stop: Callable[[str], object] = lambda reason: None) -> None:
        """Show this run; `stop` is called with a reason if nobody reads it any more."""
        self._stop = stop
        self._runs.add(workflow_id)

    def __call__(self, event: Event) -> None:
        if event.workflow_id not in self._runs:
            if event.parent_workflow_id not in self._runs:
                return  # another process writes to this log, too
            self._runs.add(event.workflow_id)
        if event.type is EventType.AGENT_COMPLETED:
            self._said = event.data["response"]
        elif event.type is EventType.AGENT_LLM_REQUEST_COMPLETED:
            if event.data["finish_reason"] == "length":
                self._cut.add(event.data["agent"])
        for callback in self._callbacks:
            callback(event)

    @property
    def closed(self) -> bool:
        """True if nobody reads it any more.

        Raises:
            OSError: it cannot be written: a full disk, say.
        """
        if self._trouble is not None:
            raise self._trouble
        return self._output.closed or (self._console is not None and self._console.closed)

    def has_shown(self, output: Any) -> bool:
        """True if the run's output need not be written any more."""
        if self._given.jsonl or self._write_text in self._callbacks:
            return True
        return self._console is not None and bool(output == self._said)

    def end(self) -> None:
        """Clean up the terminal."""
        if self._console is not None:
            self._console.end_line()
        if self._status is not None:
            self._status.close()
        self._output.end_line()
        if self._given.verbose or (self.on_terminal and not self._given.quiet):
            for agent in sorted(self._cut):
                note(f"agentstream: the answer of {agent!r} was cut by a limit of tokens")
        self._cut.clear()

    def _add_status(self) -> None:
        from agentstream.console.status import StatusLine  # noqa: PLC0415

        self._status = StatusLine(sys.stderr)
        self._callbacks.append(self._status)

    def _add_console(self, plain: bool) -> None:
        from agentstream.console.console import Console  # noqa: PLC0415

        self._console = Console(
            sys.stdout,
            status=self._status,
            on_closed=self._closed,
            headings=not plain,
            indent="" if plain else "   ",
        )
        self._callbacks.append(self._console)

    def _write_json(self, event: Event) -> None:
        self._write(event.to_json() + "\n")

    def _write_text(self, event: Event) -> None:
        if event.type is EventType.AGENT_LLM_STREAM_CHUNK:
            self._write(event.data["chunk"])

    def _keep(self, event: Event) -> None:
        data = event.data
        if event.type is EventType.AGENT_PROCESSING:
            self.answer = {"content": "", "reasoning": "", "tool_calls": []}
        elif event.type is EventType.AGENT_LLM_REASONING_CHUNK:
            self.answer["reasoning"] += data["chunk"]
        elif event.type is EventType.AGENT_LLM_REQUEST_COMPLETED:
            known = (name for name in ChatResponse._fields if name in data)
            self.answer.update((name, data[name]) for name in known)
        elif event.type is EventType.AGENT_COMPLETED:
            self.answer["content"] = data["response"]

    def _write(self, text: str) -> None:
        try:
            if self._output.write(text):
                return
        except OSError as error:
            self._trouble = error
        self._closed()

    def _closed(self) -> None:
        self._stop("nobody reads its output any more")


# --- the result ------------------------------------------------------------------------------


def show_result(
    given: argparse.Namespace,
    run: WorkflowRun,
    error: Optional[AgentStreamError] = None,
    answer: Optional[Dict[str, Any]] = None,
) -> None:
    """Write a run's output, or with `--json` all that is known of it, or `answer`."""
    output = Output(sys.stdout)
    if given.json:
        data = answer or _as_dict(run, error)
        output.write(json.dumps(data, ensure_ascii=False) + "\n")
    else:
        write_output(output, run.output)


def _as_dict(run: WorkflowRun, error: Optional[AgentStreamError]) -> Dict[str, Any]:
    data = {
        **run._asdict(),
        "output": as_told(run.output),
        "usage": run.usage.to_dict(),
        "steps": [_step_as_dict(step) for step in run.steps],
    }
    if error is not None:
        data["error"] = type(error.__cause__ or error).__name__
        data["message"] = str(error)
    return data


def _step_as_dict(step: StepResult) -> Dict[str, Any]:
    return {
        **step._asdict(),
        "output": as_told(step.output),
        "usage": step.usage.to_dict(),
        "steps": [_step_as_dict(inner) for inner in step.steps],
    }


def write_output(output: Output, value: Any) -> None:
    """Write what a run came to: a text as it is, the results of a `Parallel` under headings."""
    if value is None:
        return
    content = as_content(as_told(value), "")
    output.write(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))
    output.end_line()
