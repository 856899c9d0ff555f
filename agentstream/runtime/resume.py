"""Beginning to keep a run's checkpoints, and taking a run that another process has left."""

from __future__ import annotations

from typing import Any, Dict, Mapping, NamedTuple

from agentstream.errors import ConfigError, LogError
from agentstream.events import payloads
from agentstream.events.model import EventType
from agentstream.events.resting import SUSPENDED
from agentstream.events.stream import EventStream, RunLog
from agentstream.runtime.options import RunOptions
from agentstream.workflow import Workflow
from agentstream.workflow.checkpoints import Checkpoints
from agentstream.workflow.codec import encode
from agentstream.workflow.progress import input_as_text
from agentstream.workflow.resting import pending_of, suspension
from agentstream.workflow.run_checkpoints import RunCheckpoints, pack, unpack
from agentstream.workflow.shape import differences, shape_of

__all__ = ["Taken", "begin", "records_of_queued", "take"]


class Taken(NamedTuple):
    """A run to go on with.

    Attributes:
        log: its log, which goes on.
        checkpoints: what is kept of it.
        input: what it was given.
        context: what its steps share.
        key: what the idempotency keys of its calls are made of.
    """

    log: RunLog
    checkpoints: RunCheckpoints
    input: Any
    context: Dict[str, Any]
    key: str


def begin(
    stream: EventStream,
    log: RunLog,
    settings: Checkpoints,
    workflow: Workflow,
    input: Any,
    *,
    key: str,
    options: RunOptions,
    grace: float,
) -> RunCheckpoints:
    """Begin to keep a run whose log has been opened; returns what keeps it.

    Raises:
        LogError: it cannot be.
    """
    kept = RunCheckpoints(stream.store.need_checkpoints(), log.workflow_id, settings, grace)
    kept.values = options.context if options.context is not None else {}
    kept.begin(
        input,
        workflow.name,
        shape_of(workflow),
        conversation=options.conversation is not None,
        key=key,
    )
    return kept


def records_of_queued(
    workflow_id: str, workflow: str, input: Any, settings: Checkpoints, *, traceparent: str = ""
) -> Dict[str, bytes]:
    """The checkpoint of a run that is queued: what `take` finds when it is begun.

    Args:
        traceparent: of the span that it is queued in; "" for none.

    Raises:
        NotKept: the input cannot be kept.
    """
    # Without a shape: it has the one that the workflow has when it begins.
    said = {"workflow": workflow, "shape": None, "conversation": False, "key": workflow_id}
    if traceparent:
        said["traceparent"] = traceparent
    encode(input, "input")  # what cannot be kept of it is told by its place in the input itself
    return {"run": pack(said, settings.codec), "input": pack([input], settings.codec)}


def take(
    stream: EventStream,
    settings: Checkpoints,
    workflow: Workflow,
    workflow_id: str,
    options: RunOptions,
    *,
    grace: float,
    force: bool,
) -> Taken:
    """Take a run that is interrupted or suspended, or queued for whoever begins it.

    Raises:
        Busy: a living process has it.
        LogError: there is no such run, it has ended, or cannot be resumed.
        ConfigError: it is a run of another workflow, or was given a conversation; it stays
            as it was.
    """
    kept_by = stream.store.need_checkpoints()
    _look(kept_by.read(workflow_id), workflow, settings, options, force=force)
    log, entry = stream.reopen_log(workflow_id)
    try:
        kept = RunCheckpoints(kept_by, workflow_id, settings, grace, entry=entry)
        if entry.reason == SUSPENDED:
            kept.asked = pending_of({"pending": kept.get("pending") or ()})
        said, given = kept.get("run"), kept.get("input")
        if said is not None and (force or said["shape"] is None):
            # From here on it is a run of this workflow, as it is now.
            kept.put({"run": {**said, "workflow": workflow.name, "shape": shape_of(workflow)}})
    except BaseException:
        _give_back(log, workflow)
        raise
    if said is None or given is None:
        raise _end_unbegun(log, workflow)
    if not log.offset:  # it was queued, and nobody has begun it
        log.note_input(input_as_text(given[0]))
    context = options.context if options.context is not None else {}
    context.update(kept.get("context") or {})
    kept.values = context
    return Taken(log, kept, given[0], context, said["key"])


def _look(
    records: Mapping[str, bytes],
    workflow: Workflow,
    settings: Checkpoints,
    options: RunOptions,
    *,
    force: bool,
) -> None:
    """Refuse what cannot go on, while nothing has changed yet; an ended run has no records."""
    known = {key: unpack(data, settings.codec) for key, data in records.items()}
    said = known.get("run")
    if said is None:
        return
    _check(said, workflow, options, force=force)
    if force or said["shape"] is None:
        pack(said, settings.codec)  # `take` will have to: a codec that cannot raises now


def _give_back(log: RunLog, workflow: Workflow) -> None:
    """Let go of a run that was taken and cannot go on."""
    end = payloads.run_end(workflow.name, None, None, 0.0)
    log.append(
        EventType.WORKFLOW_SUSPENDED,
        suspension(end, "interrupted", "it could not be resumed", ()),
    )


def _end_unbegun(log: RunLog, workflow: Workflow) -> LogError:
    """End a run whose process died before it had kept the input: nothing was done for it."""
    error = LogError(f"run {log.workflow_id!r} cannot be resumed: it had hardly begun")
    end = payloads.run_end(workflow.name, None, None, 0.0)
    failed = payloads.workflow_failed(
        end, payloads.failure(error), failed_step=None, failed_at=None
    )
    log.append(EventType.WORKFLOW_FAILED, failed)
    return error


def _check(said: Any, workflow: Workflow, options: RunOptions, *, force: bool) -> None:
    if said["conversation"] and options.conversation is None:
        raise ConfigError("the run was given a conversation: give it again, conversation=...")
    if force:
        return
    changes = []
    if said["shape"] is not None:  # else it was queued, and nobody has begun it
        changes = differences(said["shape"], shape_of(workflow))
    if said["workflow"] != workflow.name:
        changes.insert(0, f"it is a run of {said['workflow']!r}, not of {workflow.name!r}")
    if changes:
        raise ConfigError(
            "the workflow was changed since the run began (force=True, or --force, goes on all the"
            " same): " + "; ".join(changes)
        )
