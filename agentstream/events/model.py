"""What can happen: EventType and Event.  Pure values, immutable, ready for JSON."""

from __future__ import annotations

import base64
import datetime
import enum
import functools
import json
import math
import os
from typing import (
    Any,
    Callable,
    Dict,
    FrozenSet,
    Mapping,
    NamedTuple,
    NoReturn,
    Optional,
    Tuple,
)

from agentstream.errors import LogError
from agentstream.text import replace_surrogates, safe_repr

__all__ = ["RELEASING", "TERMINAL", "Event", "EventType", "freeze", "new_id"]


def new_id() -> str:
    """A new id, of a run or of a writer: 64 random bits as 16 hexadecimal digits."""
    return os.urandom(8).hex()


class EventType(str, enum.Enum):
    """The type of an event; its value is the snake_case string that goes over the wire."""

    WORKFLOW_STARTED = "workflow_started"
    WORKFLOW_STEP_STARTED = "workflow_step_started"
    WORKFLOW_STEP_COMPLETED = "workflow_step_completed"
    WORKFLOW_STEP_FAILED = "workflow_step_failed"
    WORKFLOW_COMPLETED = "workflow_completed"
    WORKFLOW_FAILED = "workflow_failed"
    WORKFLOW_CANCELLED = "workflow_cancelled"
    WORKFLOW_SUSPENDED = "workflow_suspended"
    WORKFLOW_RESUMED = "workflow_resumed"
    AGENT_PROCESSING = "agent_processing"
    AGENT_COMPLETED = "agent_completed"
    AGENT_FAILED = "agent_failed"
    AGENT_OUTPUT = "agent_output"
    AGENT_OUTPUT_INVALID = "agent_output_invalid"
    AGENT_LLM_REQUEST_STARTED = "agent_llm_request_started"
    AGENT_LLM_STREAM_CHUNK = "agent_llm_stream_chunk"
    AGENT_LLM_REASONING_CHUNK = "agent_llm_reasoning_chunk"
    AGENT_LLM_REQUEST_RETRIED = "agent_llm_request_retried"
    AGENT_FALLBACK = "agent_fallback"
    AGENT_LLM_REQUEST_COMPLETED = "agent_llm_request_completed"
    AGENT_LLM_REQUEST_FAILED = "agent_llm_request_failed"
    TOOL_CALL_STARTED = "tool_call_started"
    TOOL_CALL_COMPLETED = "tool_call_completed"
    TOOL_CALL_FAILED = "tool_call_failed"
    SYSTEM_WARNING = "system_warning"
    SYSTEM_ERROR = "system_error"
    EVENTS_MISSED = "events_missed"

    def __str__(self) -> str:
        return str(self.value)

    # A member equals its text, so it must hash as that does; Enum's own is slow besides.
    __hash__ = str.__hash__


#: One of these ends a run, and is its last event.
TERMINAL: FrozenSet[EventType] = frozenset(
    {EventType.WORKFLOW_COMPLETED, EventType.WORKFLOW_FAILED, EventType.WORKFLOW_CANCELLED}
)

#: One of these is the last event that a process writes of a run.
RELEASING: FrozenSet[EventType] = TERMINAL | {EventType.WORKFLOW_SUSPENDED}


class Event(NamedTuple):
    """Something that happened.

    Attributes:
        id: unique; None for `events_missed`, which is no part of the log.
        offset: counts within the workflow, from 1 without a gap; 0 for `events_missed`.
        position: counts in the whole log; None until the store has given it.
        type: the `EventType`.
        workflow_id: the run it belongs to; "" for none.
        parent_workflow_id: the run that started that one, or None.
        timestamp: Unix time in seconds.
        data: what happened, as JSON values; cannot be changed, `dict(event.data)` can.
    """

    id: Optional[str]
    offset: int
    position: Optional[int]
    type: EventType
    workflow_id: str
    parent_workflow_id: Optional[str]
    timestamp: float
    data: Mapping[str, Any]

    def to_dict(self) -> Dict[str, Any]:
        """The event as a dict that `json.dumps` takes."""
        return {**self._asdict(), "type": self.type.value}

    def to_json(self) -> str:
        """The event as one line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Event:
        """The event that `to_dict` gave.

        Raises:
            ValueError, KeyError: it is none.
        """
        values = {name: fields[name] for name in cls._fields}
        values["type"] = EventType(values["type"])
        if not isinstance(values["data"], Mapping):
            raise ValueError("an event's data must be an object")
        values["data"] = freeze(values["data"])
        return cls(**values)


#: An Event from a tuple of all its fields, at a third of the cost of calling the class.
make_event: Callable[[Tuple[Any, ...]], Event] = functools.partial(tuple.__new__, Event)


class FrozenDict(Dict[str, Any]):
    """A dict that cannot be changed: all readers of an event share it."""

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("an event cannot be changed: take a copy, dict(event.data)")

    __setitem__ = __delitem__ = clear = pop = popitem = _refuse
    setdefault = update = __ior__ = _refuse

    def __reduce__(self) -> Any:
        return FrozenDict, (dict(self),)

    def copy(self) -> Dict[str, Any]:
        """A dict that can be changed."""
        return dict(self)


#: One for all: of `{}`, three bytes of JSON, a list may hold millions.
EMPTY = FrozenDict()

#: From an instance of a class derived from one of these to what it holds.
_PLAIN: Mapping[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
}
_MOST_DEPTH = 64
_MOST_BITS = 2048  # more than that, and Python may refuse to print it


def freeze(value: Any, depth: int = 0) -> Any:
    """`value` as immutable JSON values: dicts that cannot change, tuples, str, numbers, None.

    What JSON lacks is written by rule: bytes as base64, dates in ISO format,
    NaN and infinities as None, integers beyond 2,048 bits as hexadecimal text,
    lone surrogates as U+FFFD, enums by value, dataclasses as dicts, sets as
    lists, all else by its repr.

    Raises:
        LogError: the value contains itself, or is nested more than 64 deep.
    """
    kind = type(value)
    if kind is str:
        return value if value.isascii() else replace_surrogates(value)
    if kind is int:
        return value if value.bit_length() <= _MOST_BITS else hex(value)
    if kind is bool or value is None:
        return value
    if depth > _MOST_DEPTH:
        raise LogError("an event's data is nested too deeply, or contains itself")
    if kind is float:
        return value if math.isfinite(value) else None
    if kind is dict or isinstance(value, Mapping):
        return freeze_mapping(value, depth) or EMPTY
    if isinstance(value, (list, tuple, set, frozenset)):
        return tuple(freeze(item, depth + 1) for item in value)
    return freeze(_by_rule(value), depth + 1)


def thaw(value: Any) -> Any:
    """What `freeze` gave as values that can be changed: dicts and lists."""
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    return [thaw(item) for item in value] if isinstance(value, tuple) else value


def freeze_mapping(value: Mapping[Any, Any], depth: int = 0) -> FrozenDict:
    """`freeze` for a mapping; one of plain ASCII text, as a chunk's data is, is just copied."""
    if value.__class__ is FrozenDict:
        return value  # an event's, or made by one who knows that it is clean
    frozen = FrozenDict(value)
    for k, v in frozen.items():
        if type(v) is not str or type(k) is not str or not v.isascii() or not k.isascii():
            break
    else:
        return frozen
    return FrozenDict({replace_surrogates(str(k)): freeze(v, depth + 1) for k, v in frozen.items()})


def _by_rule(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(bytes(value)).decode("ascii")
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if hasattr(type(value), "__dataclass_fields__"):
        import dataclasses  # noqa: PLC0415 - whoever has one has paid for it

        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    for base, plain in _PLAIN.items():
        if isinstance(value, base):
            return plain(value)
    return safe_repr(value)[:1000]
