"""The words in which a server says what went wrong, in a body of any shape.  Pure."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, Iterator, Optional

__all__ = ["SNIPPET", "codes_of", "holders_of", "message_of", "page_text", "parse", "snippet"]

#: The most characters of a server's words that an error carries.
SNIPPET = 1024
#: So much of a page is looked at.
_PAGE = 65536

_MESSAGES = (
    "error",
    "message",
    "error_message",
    "error_msg",
    "errorMessage",
    "errorMsg",
    "detail",
    "msg",
    "error_description",
    "errors",
    "err_msg",
    "err",
    "Message",
    "status_msg",
    "base_resp",
    "fault",
    "faultstring",
    "reason",
    "title",
)
_CODES = (
    "code",
    "status_code",
    "statusCode",
    "http_status",
    "http_code",
    "httpCode",
    "status",
    "type",
    "error_type",
    "error_code",
    "errorCode",
)


def snippet(text: str) -> str:
    """The first KiB of a server's words, control characters out."""
    cut = text[:SNIPPET]
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in cut)


def parse(body: str) -> Any:
    """The body's JSON; None if it is none that can be read."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def message_of(payload: Any, depth: int = 0) -> str:
    """The provider's own words in a payload of any known shape; "" if there are none."""
    if depth > 4:
        return ""
    if isinstance(payload, str):
        return payload
    if isinstance(payload, list):
        return "; ".join(filter(None, (message_of(item, depth + 1) for item in payload[:8])))
    if not isinstance(payload, dict):
        return ""
    for key in _MESSAGES:
        found = message_of(payload.get(key), depth + 1)
        if not found:
            continue
        if key == "msg" and isinstance(payload.get("loc"), list):  # FastAPI says where apart
            found = ".".join(str(part) for part in payload["loc"]) + ": " + found
        raw = payload.get("metadata")
        if isinstance(raw, dict) and isinstance(raw.get("raw"), str):  # OpenRouter's upstream
            found += f" ({message_of(parse(raw['raw'])) or raw['raw']})"
        return found
    return ""


def codes_of(payload: Any) -> Iterator[str]:
    """The codes and types in an error's payload, as texts, the most telling first."""
    for holder in holders_of(payload):
        for key in _CODES:
            value = holder.get(key)
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            if value and isinstance(value, (str, int)) and not isinstance(value, bool):
                yield str(value)


def holders_of(payload: Any, depth: int = 0) -> Iterator[Dict[str, Any]]:
    """The objects of an error's payload that may hold its code, the innermost first."""
    if isinstance(payload, list) and payload:  # Gemini
        payload = payload[0]
    if not isinstance(payload, dict) or depth > 2:
        return
    for key in ("error", "errors", "base_resp"):
        yield from holders_of(payload.get(key), depth + 1)
    yield payload


def page_text(body: str) -> str:
    """Plain text as it is; of an HTML page, its title or its words."""
    head = body[:_PAGE]
    if not re.search(r"<(!doctype|html|head|body|title)\b", head[:2048], re.IGNORECASE):
        return head.strip()
    title: Optional[re.Match[str]] = re.search(r"<title\b[^<>]*>([^<]*)", head, re.IGNORECASE)
    if title and title.group(1).strip():
        return _unescaped(title.group(1)).strip()
    # No tag has "<" within: so each character is looked at once, whatever the page.
    return " ".join(_unescaped(re.sub("<[^<>]*>", " ", head)).split())


def _unescaped(text: str) -> str:
    from html import unescape  # noqa: PLC0415 - its tables cost a millisecond, and few need them

    # A number of thousands of digits is no character, and int() refuses it.
    return unescape(re.sub(r"&#(\d{8,}|[xX][0-9a-fA-F]{7,});?", "\ufffd", text))
