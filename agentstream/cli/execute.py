"""Runs a workflow or an agent, shows it through a `View`, and writes what it came to."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Dict, Optional

from agentstream.cli.exits import DONE
from agentstream.cli.output import Output, note
from agentstream.cli.result import as_dict, with_error
from agentstream.cli.settings import setting
from agentstream.cli.view import View
from agentstream.errors import AgentStreamError, Cancelled, WorkflowFailed
from agentstream.events.model import new_id
from agentstream.events.stream import EventStream
from agentstream.results import WorkflowRun
from agentstream.runtime.runtime import RunHandle, Runtime
from agentstream.workflow.context import has_names
from agentstream.workflow.progress import to_json

if TYPE_CHECKING:
    import argparse

__all__ = ["execute", "write_result"]

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
                write_result(given, error.run, error)
            raise
        finally:
            runtime.shutdown(cancel=True)  # the view has seen the run's last event then
            view.end()
    if not view.closed and not view.has_shown(run.output):
        write_result(given, run, answer=view.answer)
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


# --- the result ------------------------------------------------------------------------------


def write_result(
    given: argparse.Namespace,
    run: WorkflowRun,
    error: Optional[AgentStreamError] = None,
    answer: Optional[Dict[str, Any]] = None,
) -> None:
    """Write a run's output, or with `--json` all that is known of it, or `answer`."""
    output = Output(sys.stdout)
    if given.json:
        known = as_dict(run) if error is None else with_error(run, error)
        output.write_json(answer or known)
    elif isinstance(run.output, str) or has_names(run.output) or run.output is None:
        output.write_value(to_json(run.output))
    else:
        output.write_json(to_json(run.output))
