"""A Python value as the JSON values it is written as: the way back from describe.py (pure)."""

from __future__ import annotations

import base64
import collections.abc
import datetime
import enum
from typing import Any, Mapping

__all__ = ["plain"]

_LISTS = (list, tuple, set, frozenset, collections.abc.Set)


def plain(value: Any) -> Any:
    """`value` in dicts, lists, texts, numbers, True, False and None.

    Dataclasses, NamedTuples and pydantic's models are dicts of their fields, enums
    their values, sets lists, dates, durations, decimals, UUIDs and paths texts that
    `describe.shape_of` reads again.  What has no such form stays as it is.
    """
    if value is None or value.__class__ in (str, int, float, bool):
        return value
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): plain(one) for key, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(one) for name, one in value._asdict().items()}
    if isinstance(value, _LISTS):
        return [plain(one) for one in value]
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        from dataclasses import fields  # noqa: PLC0415 - it brings inspect

        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if callable(getattr(value, "model_dump", None)) and not isinstance(value, type):
        return value.model_dump(mode="json")
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    from agentstream.schema.scalars import WRITTEN  # noqa: PLC0415 - few values need decimal, uuid

    if isinstance(value, WRITTEN):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode("ascii")
    for base in (str, int, float):
        if isinstance(value, base):
            return base(value)
    return value
