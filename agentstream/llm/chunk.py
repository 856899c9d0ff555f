"""A chunk: the JSON of one event of any server's stream.  Pure."""

from __future__ import annotations

import json
from typing import Any, Callable, Tuple

from agentstream.errors import ProtocolError
from agentstream.text import replace_surrogates, strip_controls

__all__ = ["parse_chunk", "shown_id", "text_of"]

#: json.loads without what it does around the parsing, which costs as much again.
_scan: Callable[[str, int], Tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def parse_chunk(data: str) -> Any:
    """The JSON of one event; None for blank data, which some gateways send as a heartbeat.

    Raises:
        ProtocolError: it is not JSON, or nested too deeply to read; without the text.
    """
    try:
        value, end = _scan(data, 0)
        if end == len(data):
            return value
    except (StopIteration, ValueError, RecursionError):
        pass  # white space around it perhaps; json.loads sees to that, and says what is wrong
    if not data.strip():
        return None
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else "not valid JSON"
        raise ProtocolError(f"an event's data is {reason}", phase="stream") from None


def text_of(value: Any) -> str:
    """`value` if it is a text, mended where UTF-8 could not hold it; else ""."""
    return replace_surrogates(value) if isinstance(value, str) else ""


def shown_id(value: Any) -> str:
    """An id as it can be shown; "" for none."""
    return strip_controls(text_of(value))[:1024]
