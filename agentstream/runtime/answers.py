"""What people answer to a run that is suspended: to a pending call, once, and to a wait."""

from __future__ import annotations

import json
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple, Union

from agentstream import checks
from agentstream.agent.approval import as_approval
from agentstream.errors import ConfigError, LogError
from agentstream.events.entry import check_id
from agentstream.events.model import Event, EventType
from agentstream.events.store import EventStore, RunState
from agentstream.results import PendingCall, PendingSignal
from agentstream.workflow.checkpoints import Codec
from agentstream.workflow.codec import NotKept
from agentstream.workflow.resting import pending_of
from agentstream.workflow.run_checkpoints import pack, unpack

__all__ = [
    "answered",
    "approve",
    "asked_for",
    "is_ready",
    "key_of",
    "pending",
    "signal",
    "unanswered",
]

Pending = Union[PendingCall, PendingSignal]


def _last_event(store: EventStore, workflow_id: str, offset: int) -> Optional[Event]:
    """A run's event at an offset; None if it is gone."""
    found = store.read(workflow_id=workflow_id, after=max(0, offset - 1), limit=1)
    return found[0] if found else None


def key_of(kind: object, id: object) -> str:
    """The key under which an answer is kept: of a "signal", or of a call."""
    return f"{'signal' if kind == 'signal' else 'answer'}:{id}"


def asked_for(store: EventStore, state: RunState) -> List[Mapping[str, Any]]:
    """What a suspended run waits for, as its workflow_suspended has it; [] for another run."""
    if state.status != "suspended" or not state.last_offset:
        return []
    event = _last_event(store, state.workflow_id, state.last_offset)
    if event is not None and event.type is EventType.WORKFLOW_SUSPENDED:
        found = event.data.get("pending")
        return [each for each in found if _is_entry(each)] if isinstance(found, tuple) else []
    kept = None if store.checkpoints is None else store.checkpoints.read(state.workflow_id)
    data = (kept or {}).get("pending")  # the log has let go of the event meanwhile
    return [] if data is None else list(unpack(data, None))


def _is_entry(each: Any) -> bool:
    """True if an event's entry is one of ours: programs append events of their own."""
    if not isinstance(each, Mapping):
        return False
    due = each.get("expires_at")
    texts = (each.get(name) for name in ("id", "kind", "name", "arguments", "agent", "step"))
    return all(isinstance(text, str) for text in texts) and (due is None or checks.is_number(due))


def answered(store: EventStore, workflow_id: str) -> Set[str]:
    """The keys under which a run has answers that it has not used yet."""
    return store.need_checkpoints().keys(workflow_id, ("answer:", "signal:"))


def pending(store: EventStore, workflow_id: str) -> Tuple[Pending, ...]:
    """What a suspended run waits for; () for a run that is not suspended, or unknown."""
    state = store.run(check_id("workflow_id", workflow_id))
    return () if state is None else tuple(pending_of({"pending": asked_for(store, state)}))


def is_ready(store: EventStore, workflow_id: str, asked: Sequence[Pending]) -> bool:
    """True if somebody has answered one of the things that a run waits for, or one is overdue."""
    known = answered(store, workflow_id)
    return any(
        key_of("signal" if isinstance(each, PendingSignal) else each.why, each.id) in known
        or (each.expires_at is not None and each.expires_at <= time.time())
        for each in asked
    )


def unanswered(store: EventStore, workflow_id: str) -> List[Pending]:
    """What a suspended run waits for and nobody has answered yet."""
    asked = pending(store, workflow_id)
    known = answered(store, workflow_id) if asked else set()
    return [
        each
        for each in asked
        if key_of("signal" if isinstance(each, PendingSignal) else each.why, each.id) not in known
    ]


def approve(
    store: EventStore,
    workflow_id: str,
    call_id: str,
    answer: object,
    *,
    by: str = "",
    codec: Optional[Codec] = None,
) -> None:
    """Answer a pending call, as it was asked, once.

    Raises:
        ConfigError: the answer is none, the store keeps no checkpoints, or an id is no id.
        LogError: the run does not wait for that call, it has been answered, or too late.
    """
    kept = store.need_checkpoints()
    given = _as_answer(answer)
    checks.text("by", by, empty=True)
    calls = {each.id: each for each in pending(store, workflow_id) if isinstance(each, PendingCall)}
    call = calls.get(call_id)
    if call is None:
        raise LogError(_not_asked(store, workflow_id, f"call {call_id!r}", list(calls)))
    if call.expires_at is not None and call.expires_at <= time.time():
        raise LogError(f"call {call_id!r} of run {workflow_id!r} was to be answered earlier")
    record = {**given, "by": by, "at": time.time()}
    if not kept.answer(workflow_id, key_of("approval", call_id), _packed(record, codec)):
        raise LogError(f"call {call_id!r} of run {workflow_id!r} has been answered already")


def _as_answer(answer: object) -> Dict[str, Any]:
    try:
        given = as_approval(answer)
    except TypeError as error:
        raise ConfigError(str(error)) from None
    if given.is_later:
        raise ConfigError("Approval.later() is an answer of approve=, not to a pending call")
    if not given.allowed:
        return {"answer": "no", "reason": given.reason}
    if given.arguments is None:
        return {"answer": "yes"}
    return {"answer": "change", "arguments": _json("arguments", given.arguments)}


def _json(name: str, value: Any) -> Any:
    """The value as JSON has it.

    Raises:
        ConfigError: it cannot be.
    """
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError.about(name, f"cannot be written as JSON: {error}") from None


def _packed(record: Mapping[str, Any], codec: Optional[Codec]) -> bytes:
    """An answer as it is kept.

    Raises:
        ConfigError: it cannot be: it is nested too deep.
    """
    try:
        return pack(record, codec)
    except NotKept as error:
        raise ConfigError(f"the answer cannot be kept: {error}") from None


def _not_asked(store: EventStore, workflow_id: str, what: str, known: Any) -> str:
    state = store.run(workflow_id)
    if state is None:
        return f"there is no run {workflow_id!r}"
    if state.status != "suspended":
        return f"run {workflow_id!r} is {state.status}: it waits for no answer"
    waits = f"for {', '.join(map(repr, known))}" if known else "for no call"
    return f"run {workflow_id!r} does not wait for {what}: it waits {waits}"


def signal(
    store: EventStore,
    workflow_id: str,
    name: str,
    value: Any,
    *,
    by: str = "",
    codec: Optional[Codec] = None,
) -> None:
    """Send a run the value that a `Wait` of that name waits for, or will.

    Raises:
        ConfigError: the value is no JSON value, or the store keeps no checkpoints.
        LogError: there is no such run, it has ended, keeps no checkpoints, or has a value
            of that name that it has not used yet; or its wait for it is over.
    """
    kept = store.need_checkpoints()
    check_id("workflow_id", workflow_id)
    checks.text("name", name)
    checks.text("by", by, empty=True)
    for each in pending(store, workflow_id):
        late = each.expires_at is not None and each.expires_at <= time.time()
        if late and isinstance(each, PendingSignal) and each.name == name:
            raise LogError(f"run {workflow_id!r} waits no longer for {name!r}: its time is over")
    record: Mapping[str, Any] = {"value": _json("value", value), "by": by, "at": time.time()}
    if not kept.answer(workflow_id, key_of("signal", name), _packed(record, codec)):
        raise LogError(f"run {workflow_id!r} has a value {name!r} already, which is not used yet")
