"""Events as rows, and rows as events."""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Dict, List, Optional, Tuple

from agentstream.errors import LogError
from agentstream.events.entry import encode
from agentstream.events.model import EMPTY, Event, EventType, FrozenDict, freeze_mapping, make_event

__all__ = ["COLUMNS", "encode", "events_from", "runs_of", "value_of"]

_MOST_KNOWN = 1000

COLUMNS = "run, offset, position, type, timestamp, data"

_TYPES: Dict[str, EventType] = {kind.value: kind for kind in EventType}
_NAMES: Dict[EventType, str] = {kind: kind.value for kind in EventType}

# The scanner itself: `decode` would look for white space around what we wrote ourselves.
_scan: Any = json.JSONDecoder(object_hook=FrozenDict).scan_once  # type: ignore[attr-defined,unused-ignore]
# A list may hold millions of empty objects.
_decode_list: Any = json.JSONDecoder(object_hook=lambda found: found or EMPTY).decode


def value_of(kind: EventType) -> str:
    """The type's name as the log has it."""
    return _NAMES[kind]


def events_from(
    rows: List[Tuple[Any, ...]], runs: Dict[int, Tuple[str, Optional[str]]]
) -> List[Event]:
    """The events of rows of COLUMNS; `runs` has each run's workflow id and parent.

    Raises:
        LogError: a row is damaged.
    """
    events: List[Event] = []
    add = events.append
    for run, offset, position, kind, timestamp, text in rows:
        workflow_id, parent = runs[run]
        try:
            # Lists within become tuples; without any, the scanner makes it all immutable.
            data = freeze_mapping(_decode_list(text)) if "[" in text else _scan(text, 0)[0]
            add(
                make_event(
                    (
                        f"{workflow_id}:{offset}",
                        offset,
                        position,
                        _TYPES[kind],
                        workflow_id,
                        parent,
                        timestamp,
                        data,
                    )
                )
            )
        except (StopIteration, KeyError, TypeError, ValueError, RecursionError):
            raise LogError(f"the event at position {position} of the log is damaged") from None
    return events


def runs_of(
    connection: sqlite3.Connection,
    rows: List[Tuple[Any, ...]],
    known: Dict[int, Tuple[str, Optional[str]]],
) -> Dict[int, Tuple[str, Optional[str]]]:
    """The workflow id and parent of each run that `rows` are of.

    `known` saves looking them up; it is emptied when it has grown large.
    """
    if len(known) > _MOST_KNOWN:
        known.clear()
    found = {}
    for run in {row[0] for row in rows}:
        names = known.get(run)
        if names is None:
            names = connection.execute(
                "SELECT workflow_id, parent FROM runs WHERE id = ?", (run,)
            ).fetchone() or (f"unknown-{run}", None)
            if len(known) <= _MOST_KNOWN:
                known[run] = names
        found[run] = names
    return found
