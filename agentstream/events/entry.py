"""What may enter a log: ids, reasons and types that it can hold, events that are not too large.

Checked at the call, so that whoever gives something else is told, and nobody else is.
"""

from __future__ import annotations

import json
import math
from typing import Any, Mapping, cast

from agentstream import checks
from agentstream.errors import ConfigError, LogError
from agentstream.events.model import EventType, freeze_mapping
from agentstream.text import is_encodable, safe_repr

__all__ = ["check_entry_type", "check_id", "check_reason", "check_size", "check_type", "encode"]

_MOST_ID = 256  # characters
_MOST_REASON = 100_000
_MOST_BYTES = 999_000_000  # SQLite takes no row above 10^9
#: Characters of which JSON makes at most that many bytes: of a control character, six.
_SURELY_SMALL = _MOST_BYTES // 6
_BESIDE = 8  # a sixth, at least, of what a key or a value has beside text: quotes, digits
_FEW, _SHALLOW = 1000, 4  # values in one place, depth: of more, the JSON itself is measured

_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False
).encode


def check_id(name: str, value: Any) -> str:
    """A run's id as a plain str: 1 to 256 characters that UTF-8 can hold.

    Raises:
        ConfigError: it is none.
    """
    return _check_text(name, checks.text(name, value), _MOST_ID)


def check_reason(value: Any) -> str:
    """A reason as a plain str of up to 100,000 characters that UTF-8 can hold; it may be empty.

    Raises:
        ConfigError: it is none.
    """
    return _check_text("reason", checks.text("reason", value, empty=True), _MOST_REASON)


def _check_text(name: str, value: str, most: int) -> str:
    if len(value) > most:
        raise ConfigError.about(name, f"must be of at most {most:,} characters")
    if not is_encodable(value):
        raise ConfigError.about(name, "must be text that UTF-8 can hold: it has a lone surrogate")
    return value


def check_type(value: Any) -> EventType:
    """The `EventType` that a text names.

    Raises:
        ConfigError: there is none of that name.
    """
    try:
        return EventType(value)
    except (ValueError, TypeError):
        known = ", ".join(kind.value for kind in EventType)
        shown = safe_repr(value, 60)
        raise ConfigError(f"unknown event type {shown}: use one of {known}") from None


def check_entry_type(value: Any) -> EventType:
    """As `check_type`, of what may stand in a log.

    Raises:
        ConfigError: it may not.
    """
    kind = check_type(value)
    if kind is EventType.EVENTS_MISSED:
        raise ConfigError("events_missed is told to a subscriber, it is no part of a log")
    return kind


def check_size(data: Mapping[str, Any]) -> None:
    """Raise LogError if an event's data is no mapping, or more than 999,000,000 bytes of JSON."""
    try:
        size = len("".join(data.values())) + len("".join(data))
        if size < _SURELY_SMALL:
            return  # as nearly all are: texts alone
    except TypeError:
        if _plain_size(data) < _SURELY_SMALL:
            return
        size = 0
    except AttributeError:
        raise LogError(f"an event's data must be a mapping, not {type(data).__name__}") from None
    if size <= _MOST_BYTES:
        text = encode(data)
        size = len(text) if text.isascii() or len(text) > _MOST_BYTES else len(text.encode())
    if size > _MOST_BYTES:
        raise LogError(f"an event of more than {_MOST_BYTES:,} bytes cannot be kept")


def encode(data: Any) -> str:
    """An event's data as JSON text that can be encoded as UTF-8."""
    try:
        text = _encode(data)
        if text.isascii():
            return text
        text.encode()
    except (TypeError, ValueError, RecursionError):  # it did not come through an EventStream
        try:
            return _encode(freeze_mapping(data))
        except (LogError, AttributeError) as error:
            return _encode({"error": "LogError", "message": f"could not be kept: {error}"})
    return text


def _plain_size(value: Any, depth: int = 0) -> float:
    """A sixth, at least, of the bytes of JSON that a value makes; infinity if it is not simple."""
    kind = value.__class__
    if kind is str:
        return len(value) + _BESIDE
    if kind is int:
        return cast(int, value).bit_length() + _BESIDE
    if kind is float or kind is bool or value is None:
        return _BESIDE
    if not isinstance(value, (dict, list, tuple)) or len(value) > _FEW or depth > _SHALLOW:
        return math.inf
    size: float = _BESIDE
    if isinstance(value, dict):
        size += sum(_plain_size(key, _SHALLOW + 1) for key in value)
        value = value.values()
    return size + sum(_plain_size(inner, depth + 1) for inner in value)
