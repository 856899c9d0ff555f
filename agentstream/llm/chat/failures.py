"""What servers send when they fail -> the typed error.  Pure.

HTTP answers that are errors, and payloads in mid-stream that are, in every
dialect seen in the wild.  A new way of failing is a new rule here.
"""

from __future__ import annotations

import email.utils
import json
import re
import time
from typing import Any, Dict, Mapping, Optional, Type

from agentstream.errors import (
    AuthError,
    BadRequest,
    ConnectError,
    ProtocolError,
    ProviderStreamError,
    RateLimited,
    ServerError,
    StatusError,
)
from agentstream.llm.secrets import Redactor

__all__ = [
    "parse_retry_after",
    "proxy_refused",
    "refuses_stream_options",
    "snippet",
    "status_error",
    "stream_error",
]

#: The most characters of a server's words that an error carries.
SNIPPET = 1024

_RETRYABLE = {408, 409, 429}
_REQUEST_ID_HEADERS = (
    "x-request-id",
    "request-id",
    "x-amzn-requestid",
    "apim-request-id",
    "cf-ray",
)


def snippet(text: str) -> str:
    """The first KiB of a server's words, control characters out."""
    cut = text[:SNIPPET]
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in cut)


def status_error(
    status: int,
    headers: Mapping[str, str],
    body: str,
    *,
    redact: Redactor,
    now: Optional[float] = None,
) -> StatusError:
    """The error an HTTP answer means.

    Args:
        status: the status code, anything but 200.
        headers: the answer's headers, looked up in lower case.
        body: as much of the body as was read, as text.
        redact: takes secrets out of what the error will carry.
        now: Unix time that an HTTP date in Retry-After counts from.
    """
    headers = {name.lower(): value for name, value in headers.items()}
    payload = _parse(body)
    # The secrets go before the cut: half a key at the end of a snippet matches nothing.
    said = snippet(redact(_status_message(payload, body))).strip()
    message = f"HTTP {status}: {said}" if said else f"HTTP {status} with an empty body"
    common: Dict[str, Any] = {
        "status": status,
        "body": snippet(redact(body)),
        "phase": "headers",
        "request_id": _request_id(headers, payload),
        "location": redact(headers["location"]) if "location" in headers else None,
        "retryable": _is_retryable(status, headers, said),
    }
    if status in (401, 403):
        return AuthError(message, **common)
    kind: Type[StatusError] = BadRequest
    if status == 429:
        kind = RateLimited
    elif status >= 500 or status in _RETRYABLE:
        kind = ServerError
    if kind is BadRequest:
        if common["location"]:
            message += f" (redirect to {common['location']}, not followed)"
        return kind(message, **common)
    delay = parse_retry_after(headers, now=time.time() if now is None else now)
    if delay is None:
        delay = _retry_info(payload)
    return kind(message, retry_after=delay, **common)


def proxy_refused(body: str, *, redact: Redactor) -> ConnectError:
    """407: a proxy wants to know who asks; the server itself was never reached."""
    said = snippet(redact(_status_message(_parse(body), body))).strip()
    return ConnectError(
        "the proxy asks for a user and a password (HTTP 407)" + (said and f": {said}"),
        phase="connect",
    )


def _is_retryable(status: int, headers: Mapping[str, str], said: str) -> bool:
    if status < 500 and status not in _RETRYABLE:
        return False
    if headers.get("x-should-retry", "").lower() == "false":
        return False
    # llama.cpp's router: the model's file is broken, and stays so.
    return not (status == 500 and said.startswith("model name=") and "failed to load" in said)


def parse_retry_after(headers: Mapping[str, str], *, now: float) -> Optional[float]:
    """Seconds to wait by `retry-after` and `retry-after-ms`, the larger of them (RFC 9110, 10.2.3).

    None when neither is there or readable; a date in the past is 0.
    """
    delays = []
    text = headers.get("retry-after-ms", "").strip()
    if re.fullmatch(r"\d{1,12}(\.\d{1,12})?", text):
        delays.append(float(text) / 1000)
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,12}(\.\d{1,12})?", text):
        delays.append(float(text))
    elif text:
        try:
            delays.append(max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now))
        except (TypeError, ValueError, OverflowError, IndexError):
            pass  # junk asks for nothing
    return max(delays) if delays else None


def _retry_info(payload: Any) -> Optional[float]:
    """Google's delay: `error.details[].retryDelay`, "48.9s"."""
    error = payload[0] if isinstance(payload, list) and payload else payload
    error = error.get("error") if isinstance(error, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    for detail in details if isinstance(details, list) else []:
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str) and re.fullmatch(r"\d{1,9}(\.\d{1,12})?s", delay):
            return float(delay[:-1])
    return None


def refuses_stream_options(error: StatusError) -> bool:
    """True if the server's complaint is about `stream_options`."""
    return error.status in (400, 422) and (
        "stream_options" in error.body or "include_usage" in error.body
    )


def stream_error(payload: Any, event: str, raw: str, *, redact: Redactor) -> ProviderStreamError:
    """The error that a payload in mid-stream reports; `event` is its SSE name."""
    message = redact(_message(payload) or raw.strip() or f"event {event!r} without data")
    code = _code(payload)
    return ProviderStreamError(
        f"the server reported an error in mid-stream: {snippet(message)}",
        code=code if code is None else redact(code)[:200],
        body=snippet(redact(raw)),
        phase="stream",
        request_id=_request_id({}, payload),
    )


def is_error(chunk: Mapping[str, Any]) -> bool:
    """True if a chunk reports an error, whatever else it holds."""
    if chunk.get("error") or chunk.get("object") == "error":
        return True
    return not chunk.get("choices") and bool(
        chunk.get("error_message") or (chunk.get("error_type") and chunk.get("message"))
    )


def wrong_content(content_type: str, body: str, *, redact: Redactor) -> ProtocolError:
    """A 200 whose body is neither a stream nor an answer."""
    said = redact(_page_text(body))
    return ProtocolError(
        f"expected an event stream, got {content_type or 'no content type'}: "
        f"{snippet(said)[:300] or 'an empty body'}",
        raw=snippet(redact(body)),
        content_type=content_type,
        phase="headers",
    )


def _parse(body: str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _status_message(payload: Any, body: str) -> str:
    return _message(payload) or _page_text(body)


def _message(payload: Any, depth: int = 0) -> str:
    """The provider's own words in a payload of any known shape; "" if there are none."""
    if depth > 4:
        return ""
    if isinstance(payload, str):
        return payload
    if isinstance(payload, list):
        return "; ".join(filter(None, (_message(item, depth + 1) for item in payload[:8])))
    if not isinstance(payload, dict):
        return ""
    for key in (
        "error",
        "message",
        "error_message",
        "detail",
        "msg",
        "error_description",
        "errors",
        "title",
    ):
        found = _message(payload.get(key), depth + 1)
        if not found:
            continue
        if key == "msg" and isinstance(payload.get("loc"), list):  # FastAPI says where apart
            found = ".".join(str(part) for part in payload["loc"]) + ": " + found
        raw = payload.get("metadata")
        if isinstance(raw, dict) and isinstance(raw.get("raw"), str):  # OpenRouter's upstream
            found += f" ({_message(_parse(raw['raw'])) or raw['raw']})"
        return found
    return ""


def _page_text(body: str) -> str:
    """Plain text as it is; of an HTML page, its title or its words."""
    from html import unescape  # noqa: PLC0415 - its tables cost a millisecond, and few need them

    head = body[:65536]
    if not re.search(r"<(!doctype|html|head|body|title)\b", head[:2048], re.IGNORECASE):
        return head.strip()
    title = re.search(r"<title[^>]*>([^<]*)", head, re.IGNORECASE)
    if title and title.group(1).strip():
        return unescape(title.group(1)).strip()
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", head)).split())


def _code(payload: Any) -> Optional[str]:
    error = payload.get("error") if isinstance(payload, dict) else None
    for holder in (error, payload):
        if isinstance(holder, dict):
            for key in ("code", "type", "error_type"):
                if isinstance(holder.get(key), (str, int)) and holder[key]:
                    return str(holder[key])
    return None


def _request_id(headers: Mapping[str, str], payload: Any) -> Optional[str]:
    for name in _REQUEST_ID_HEADERS:
        if headers.get(name):
            return headers[name][:200]
    found = payload.get("request_id") if isinstance(payload, dict) else None
    return found[:200] if isinstance(found, str) else None
