"""agentstream resume: a run that its process has left, gone on with; or each that is ready."""

from __future__ import annotations

import argparse
import contextlib
import functools
from typing import Dict, List

from agentstream.cli.durable import Kept, checkpoints_of, find_origin, origin_of, take_origin
from agentstream.cli.execute import open_stream
from agentstream.cli.exits import DONE, FAILED
from agentstream.cli.lock import hold
from agentstream.cli.log_place import LogPlace
from agentstream.cli.output import note, say
from agentstream.cli.resting import answers_told, lines_of_suspended
from agentstream.cli.run import build, check_flags, perform, with_retries, write_earlier
from agentstream.cli.runs import named
from agentstream.cli.settings import log_of
from agentstream.cli.signals import next_stop, stops
from agentstream.errors import ConfigError
from agentstream.events import accessors
from agentstream.events.model import RELEASING, Event, EventType
from agentstream.events.store import EventStore
from agentstream.runtime.once import look
from agentstream.runtime.runtime import Runtime
from agentstream.workflow import Workflow
from agentstream.workflow_files import WorkflowFile, load_workflow

__all__ = ["resume"]

#: Seconds that runs may take to end when the watch is stopped.
_GRACE_S = 3.0


def resume(given: argparse.Namespace) -> int:
    """Go on with a run, or with those that become ready; returns the exit code."""
    log = log_of(given, new=bool(given.watch))
    if given.watch:
        return _watch(given, log)
    with log.open(create=False) as store:
        workflow_id = named(store, given.id, log, outermost=True)
        state = store.run(workflow_id)
        earlier = look(store, workflow_id).run if state and state.status == "completed" else None
        if earlier is not None:
            return write_earlier(given, earlier)
        if state is not None and state.status in ("failed", "cancelled", "closed"):
            say(f"run {workflow_id} cannot be resumed: it is {state.status}")
            return FAILED
        if given.file is None:
            _take_file(given, store, workflow_id)
    file = load_workflow(given.file, set=given.set)
    check_flags(given, [file])
    checkpoints = checkpoints_of(given, [file], needed=True)
    assert checkpoints is not None
    kept = Kept(checkpoints, begins=False, force=given.force, origin=origin_of(given))
    with hold(given.lock):
        return perform(given, file, None, workflow_id=workflow_id, kept=kept)


def _take_file(given: argparse.Namespace, store: EventStore, workflow_id: str) -> None:
    """Take the file and the flags that the run was begun with.

    Raises:
        ConfigError: they are not known.
    """
    origin = find_origin(store, workflow_id)
    if origin is None:
        raise ConfigError(
            f"which workflow file? `agentstream resume {workflow_id} FILE`; the log does not tell, "
            "as no `agentstream run` began it, or with a URL that is a secret"
        )
    take_origin(given, origin)


# --- each that is ready -----------------------------------------------------------------------


def _watch(given: argparse.Namespace, log: LogPlace) -> int:
    """Resume runs until a signal ends it."""
    files = [load_workflow(path, set=given.set) for path in given.watch]
    check_flags(given, files)
    checkpoints = checkpoints_of(given, files, needed=True)
    with hold(given.lock), contextlib.ExitStack() as stack:
        workflows = _built(given, files, stack)
        runtime = stack.enter_context(
            Runtime(event_stream=open_stream(given, log), grace=_GRACE_S, checkpoints=checkpoints)
        )
        stack.callback(runtime.shutdown, cancel=True)
        if not given.quiet:
            tell = functools.partial(_tell, runtime.event_stream.store, log)
            runtime.event_stream.subscribe(tell, types=_TOLD)
        with stops() as signals, runtime.watch(list(workflows.values())):
            if not given.quiet:
                note(f"runs of {', '.join(workflows)} in {log} are resumed; Ctrl-C ends it")
            next_stop(signals)
    return DONE


def _built(
    given: argparse.Namespace, files: List[WorkflowFile], stack: contextlib.ExitStack
) -> Dict[str, Workflow]:
    found: Dict[str, Workflow] = {}
    for file in files:
        if file.name in found:
            raise ConfigError(f"two of the workflows are named {file.name!r}: give one a name")
        found[file.name] = with_retries(given, build(given, file, stack))
    return found


_TOLD = (*RELEASING, EventType.WORKFLOW_RESUMED)


def _tell(store: EventStore, log: LogPlace, event: Event) -> None:
    """Say how far the runs are."""
    run, data = event.workflow_id, event.data
    if event.parent_workflow_id is not None:
        return
    if event.type is EventType.WORKFLOW_RESUMED:
        note(f"run {run} goes on{answers_told(data)}")
    elif event.type is not EventType.WORKFLOW_SUSPENDED:
        why = accessors.why(event.type, data)
        note(f"run {run} {accessors.status_of(event.type)}{f': {why}' if why else ''}")
    elif data.get("status") == "suspended":
        note("\n".join(lines_of_suspended(store, run, log)))
    else:
        note(f"run {run} {accessors.resting(data)}")
