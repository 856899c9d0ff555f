"""Runs a workflow or an agent, shows it through a `View`, and writes what it came to."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Callable, Dict, NamedTuple, Optional

from agentstream.cli.budget import budget_of
from agentstream.cli.durable import Kept, keep_origin
from agentstream.cli.exits import DONE, SUSPENDED as WAITS, Interrupted
from agentstream.cli.log_place import LogPlace
from agentstream.cli.output import Output, note, say
from agentstream.cli.resting import command, goes_on, lines_of_suspended
from agentstream.cli.result import as_dict, with_error
from agentstream.cli.settings import setting
from agentstream.cli.view import View
from agentstream.errors import AgentStreamError, Cancelled, WorkflowFailed
from agentstream.events.model import new_id
from agentstream.events.resting import RESTING, SUSPENDED
from agentstream.events.store import EventStore
from agentstream.events.stream import EventStream
from agentstream.results import WorkflowRun
from agentstream.runtime.runtime import RunHandle, Runtime
from agentstream.workflow.context import has_names
from agentstream.workflow.progress import to_json

if TYPE_CHECKING:
    import argparse

    from agentstream.agent.conversation import Conversation

__all__ = ["Turn", "execute", "open_stream", "write_result"]

#: Seconds that a run may take to end when it is stopped.
_GRACE_S = 3.0


class Turn(NamedTuple):
    """What a run that is a turn of a conversation has beyond others.

    Attributes:
        conversation: what was said before, and takes the turn; None for no conversation.
        timeout: seconds until the run is over; None for no bound.
        on_begun: called with the run's handle; None: it is told how to stop the run.
    """

    conversation: Optional[Conversation] = None
    timeout: Optional[float] = None
    on_begun: Optional[Callable[[RunHandle], object]] = None

    @property
    def options(self) -> Dict[str, Any]:
        """As `Runtime.submit` takes them."""
        return {"conversation": self.conversation, "timeout": self.timeout}


_NO_TURN = Turn()


def execute(
    given: argparse.Namespace,
    what: Any,
    input: Any,
    *,
    log: Optional[LogPlace],
    plain: bool = False,
    context: Optional[Dict[str, Any]] = None,
    workflow_id: Optional[str] = None,
    once: Optional[str] = None,
    kept: Optional[Kept] = None,
    turn: Turn = _NO_TURN,
) -> int:
    """Run a workflow or an agent and show it; returns the exit code.

    Args:
        given: the arguments: json, jsonl, quiet, verbose.
        what: the workflow or agent.
        input: the first step's input.
        log: what keeps the events; None for none.
        plain: one agent's text and nothing around it.
        context: what the steps share.
        workflow_id: the run's id; None for a new one.
        once: of a run that is made once, its id; `workflow_id` is that of this try.
        kept: how it is kept, for who resumes it; None: it is not.
        turn: of an agent, the conversation that the run is a turn of.

    Raises:
        WorkflowFailed, Cancelled, Interrupted: with `run`.
    """
    workflow_id = workflow_id or new_id()
    checkpoints = None if kept is None else kept.checkpoints
    stream = open_stream(given, log)
    with Runtime(event_stream=stream, grace=_GRACE_S, checkpoints=checkpoints) as runtime:
        view = View(given, plain)
        # Before its first event comes: that may find nobody reading.
        view.watch(workflow_id, lambda reason: runtime.stop_generation(workflow_id, reason))
        runtime.event_stream.subscribe(view)
        # Whichever try at it this is, the calls of a run that is made once have the same keys.
        options: Dict[str, Any] = {**turn.options, "context": context, "budget": budget_of(given)}
        options.update(workflow_id=once or workflow_id, once=once is not None)
        handle = _begin(runtime, what, input, options, kept)
        (turn.on_begun or _teller(given, log, view))(handle)
        try:
            run = _result(handle, stream.store, None if kept is None else log)
            rest = _rest(run, stream.store, log)
        except (WorkflowFailed, Cancelled) as error:
            if view.closed:
                return DONE  # nobody reads it any more: `| head`
            if given.json and not plain and error.run is not None:
                write_result(given, error.run, error)
            raise
        finally:
            runtime.shutdown(cancel=True)  # the view has seen the run's last event then
            view.end()
    if not view.closed and (given.json if rest else not view.has_shown(run.output)):
        write_result(given, run, answer=view.answer)
    if rest:
        say(rest)
    return WAITS if rest else DONE


def _teller(
    given: argparse.Namespace, log: Optional[LogPlace], view: View
) -> Callable[[RunHandle], None]:
    """Says of a run that is kept in a log how to stop it, where that is wanted."""

    def tell(handle: RunHandle) -> None:
        if log is not None and (view.on_terminal or given.verbose) and not given.quiet:
            stop = command("stop", handle.workflow_id, log=log)
            note(f"run {handle.workflow_id}; `{stop}` stops it")

    return tell


def _rest(run: WorkflowRun, store: EventStore, log: Optional[LogPlace]) -> str:
    """What there is to say of a run that is suspended; "" for one that is not."""
    if run.status != SUSPENDED or log is None:
        return ""
    return "\n".join(lines_of_suspended(store, run.workflow_id, log))


def open_stream(given: argparse.Namespace, log: Optional[LogPlace]) -> EventStream:
    """A stream that keeps events in that log; None: in memory."""
    return EventStream(None if log is None else log.open(days=setting(given, "log_days")))


def _begin(
    runtime: Runtime, what: Any, input: Any, options: Dict[str, Any], kept: Optional[Kept]
) -> RunHandle:
    """Begin the run, or go on with it."""
    if kept is None or kept.begins:
        resume = kept is not None and kept.goes_on
        handle = runtime.submit(what, input, resume=resume, **options)
    else:
        options = {name: options[name] for name in ("workflow_id", "context", "budget")}
        handle = runtime.resume(what, force=kept.force, **options)
    if kept is not None:
        keep_origin(runtime.event_stream.store, handle.workflow_id, kept.origin)
    return handle


def _result(handle: RunHandle, store: EventStore, log: Optional[LogPlace]) -> WorkflowRun:
    """What the run comes to; one that is interrupted can be resumed, if it is kept in a log."""
    try:
        return handle.result()
    except KeyboardInterrupt as interruption:
        handle.interrupt(str(interruption) or "stopped by Ctrl-C")
        run: Optional[WorkflowRun] = None
        try:
            run = handle.result(_GRACE_S)
        except (WorkflowFailed, Cancelled) as ended:
            run = ended.run
        except TimeoutError:
            pass
        if isinstance(interruption, Interrupted):  # for the line that says why
            interruption.run = run
            if log is not None and (run is None or run.status in RESTING):
                interruption.advice = goes_on(store, handle.workflow_id, log)
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
