"""Events as entries of a stream, and entries as events."""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from agentstream.errors import LogError
from agentstream.events import accessors
from agentstream.events.entry import encode
from agentstream.events.model import (
    EMPTY,
    RELEASING,
    TERMINAL,
    Event,
    EventType,
    FrozenDict,
    freeze_mapping,
    make_event,
    thaw,
)
from agentstream.events.resting import status_of_rest

__all__ = ["Stretch", "event_from", "fit", "note_of", "stretches", "type_name"]

_TYPES: Dict[bytes, EventType] = {kind.value.encode(): kind for kind in EventType}
_NAMES: Dict[EventType, bytes] = {kind: kind.value.encode() for kind in EventType}
_CUT = "… [cut: {} characters more]"

# The scanner itself: `decode` would look for white space around what we wrote ourselves.
_scan: Any = json.JSONDecoder(object_hook=FrozenDict).scan_once  # type: ignore[attr-defined,unused-ignore]
# A list may hold millions of empty objects.
_decode_list: Any = json.JSONDecoder(object_hook=lambda found: found or EMPTY).decode


class Stretch(NamedTuple):
    """Events of one run that are next to each other in the log.

    Attributes:
        position: of the first.
        offset: of the first.
        size: how many they are.
        author: the process whose subscribers have had them already; "" for none.
        workflow_id: the run's.
    """

    position: int
    offset: int
    size: int
    author: str
    workflow_id: str


def type_name(kind: EventType) -> bytes:
    """The type's name as the log has it."""
    return _NAMES[kind]


def event_from(workflow_id: str, parent: Optional[str], entry: Sequence[Any]) -> Event:
    """An event of a run from an entry of its stream.

    Raises:
        LogError: the entry is damaged.
    """
    name, fields = entry
    offset, _, position = name.partition(b"-")
    try:
        text = fields[5].decode()
        # Lists within become tuples; without any, the scanner makes it all immutable.
        data = freeze_mapping(_decode_list(text)) if "[" in text else _scan(text, 0)[0]
        number = int(offset)
        return make_event(
            (
                f"{workflow_id}:{number}",
                number,
                int(position),
                _TYPES[fields[1]],
                workflow_id,
                parent,
                float(fields[3]),
                data,
            )
        )
    except (StopIteration, IndexError, KeyError, TypeError, ValueError, RecursionError):
        raise LogError(f"the event {name!r} of {workflow_id!r} is damaged") from None


def stretches(entry: Sequence[Any]) -> Iterator[Stretch]:
    """What an entry of the log's own stream tells of: a commit's events, in their order."""
    name, fields = entry
    found: List[Tuple[int, int, str, str]] = []
    for text in fields[5::2]:
        offset, count, author, workflow_id = text.decode().split(":", 3)
        found.append((int(offset), int(count), author, workflow_id))
    position = int(name.partition(b"-")[0]) - sum(one[1] for one in found) + 1
    for offset, count, author, workflow_id in found:
        yield Stretch(position, offset, count, author, workflow_id)
        position += count


def note_of(event: Event, given: Optional[str], alive: Sequence[str]) -> Dict[str, Any]:
    """What an event says of its run as a whole; {} for nothing.

    Args:
        event: the event.
        given: what the run was given, to be kept with its first event.
        alive: runs within it that will end by themselves.
    """
    note: Dict[str, Any] = {}
    kind = event[3]
    if event[1] == 1:
        note["name"] = accessors.text(event[7], "workflow")
        if kind not in TERMINAL:  # else it never began
            note["started"] = repr(event[6])
        if given is not None:
            note["input"] = given
    if kind in RELEASING:
        usage = accessors.usage_of(event[7])
        if usage is not None:
            note["usage"] = encode(usage)
        if kind in TERMINAL:
            note.update(status=accessors.status_of(kind), ended=repr(event[6]), alive=list(alive))
        else:
            note["rest"] = status_of_rest(event[7])
    return note


def fit(data: Mapping[str, Any], most: int) -> bytes:
    """An event's data as JSON of at most `most` bytes: of what is longer, texts are cut."""
    text = encode(data).encode()
    if len(text) <= most:
        return text
    plain = thaw(data)
    longest = most // 2
    while longest > 16:
        text = encode(_cut(plain, longest)).encode()
        if len(text) <= most:
            return text
        longest //= 2
    return encode({"error": "LogError", "message": f"an event of more than {most} bytes"}).encode()


def _cut(value: Any, longest: int) -> Any:
    if isinstance(value, str) and len(value) > longest:
        return value[:longest] + _CUT.format(len(value) - longest)
    if isinstance(value, dict):
        return {key: _cut(inner, longest) for key, inner in value.items()}
    if isinstance(value, list):
        return [_cut(inner, longest) for inner in value]
    return value
