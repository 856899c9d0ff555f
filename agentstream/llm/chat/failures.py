"""What servers send when they fail -> the typed error.  Pure.

HTTP answers that are errors, and payloads in mid-stream that are, in every
dialect seen in the wild.  A new way of failing is a new rule here.
"""

from __future__ import annotations

import time
from typing import Any, Dict, Mapping, Optional, Type, Union

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
from agentstream.llm.chat.retry_hints import (
    is_retryable,
    parse_retry_after,
    retry_after,
    status_of,
)
from agentstream.llm.chat.words import codes_of, message_of, page_text, parse, snippet
from agentstream.llm.secrets import Redactor
from agentstream.text import replace_surrogates, strip_controls

__all__ = [
    "is_error",
    "names_field",
    "parse_retry_after",
    "proxy_refused",
    "refuses_stream_options",
    "snippet",
    "status_error",
    "stream_error",
    "wrong_content",
]

_REQUEST_ID_HEADERS = (
    "x-request-id",
    "request-id",
    "x-amzn-requestid",
    "apim-request-id",
    "cf-ray",
)


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
    payload = parse(body)
    # The secrets go before the cut: half a key at the end of a snippet matches nothing.
    said = snippet(redact(message_of(payload) or page_text(body))).strip()
    message = f"HTTP {status}: {said}" if said else f"HTTP {status} with an empty body"
    common: Dict[str, Any] = {
        "status": status,
        "body": snippet(redact(body)),
        "phase": "headers",
        "request_id": _request_id(headers, payload, redact),
        "location": _shown(headers["location"], redact) if "location" in headers else None,
        "retryable": is_retryable(status, headers, payload, said),
    }
    if status in (401, 403):
        return AuthError(message, **common)
    kind = _kind_of(status)
    if kind is None:
        if common["location"]:
            message += f" (redirect to {common['location']}, not followed)"
        return BadRequest(message, **common)
    delay = retry_after(headers, payload, said, time.time() if now is None else now)
    return kind(message, retry_after=delay, **common)


def _kind_of(status: int) -> Optional[Type[Union[RateLimited, ServerError]]]:
    """The class of an error of that status, if it is one that mostly passes."""
    if status == 429:
        return RateLimited
    return ServerError if status >= 500 or status in (408, 409, 425) else None


def proxy_refused(body: str, *, redact: Redactor) -> ConnectError:
    """407: a proxy wants to know who asks; the server itself was never reached."""
    said = snippet(redact(message_of(parse(body)) or page_text(body))).strip()
    return ConnectError(
        "the proxy asks for a user and a password (HTTP 407)" + (said and f": {said}"),
        phase="connect",
    )


def refuses_stream_options(error: StatusError) -> bool:
    """True if the server's complaint is about `stream_options`."""
    return error.status in (400, 422) and (
        "stream_options" in error.body or "include_usage" in error.body
    )


def names_field(error: StatusError, name: str) -> bool:
    """True if the server's complaint is about the request's field `name`."""
    return error.status in (400, 422) and name in error.body


def stream_error(
    payload: Any, event: str, raw: str, *, redact: Redactor, begun: bool = True
) -> Union[ProviderStreamError, StatusError]:
    """The error that a payload within a stream, or within an answer of status 200, reports.

    Args:
        payload: the JSON that reports it; of a choice that failed, `ChunkReader.failure`.
        event: the SSE name of the event that brought it.
        raw: that event's data.
        redact: takes secrets out of what the error will carry.
        begun: something of the answer had come.  If not, an error that amounts to
            a status that passes (408, 425, 429, 5xx) becomes that status' error.
    """
    said = snippet(redact(message_of(payload) or _code(payload) or raw.strip())).strip()
    said = said or f"event {snippet(event)!r} without data"
    code = _code(payload)
    common: Dict[str, Any] = {
        "body": snippet(redact(raw)),
        "phase": "stream",
        "request_id": _request_id({}, payload, redact),
    }
    in_choice = isinstance(payload, dict) and "delta" in payload
    status = None if begun or in_choice else status_of(payload, said)
    kind = None if status is None else _kind_of(status)
    if status is not None and kind is not None:
        return kind(
            f"the server reported an error in an answer of status 200: {said}",
            status=status,
            retry_after=retry_after({}, payload, said, time.time()),
            retryable=is_retryable(status, {}, payload, said),
            **common,
        )
    return ProviderStreamError(
        f"the server reported an error in mid-stream: {said}",
        code=code if code is None else _shown(code, redact)[:200],
        retryable=in_choice and not begun,
        **common,
    )


def is_error(chunk: Mapping[str, Any], *, begun: bool = True) -> bool:
    """True if a chunk reports an error, whatever else it holds.

    Args:
        chunk: the JSON object of an event, or of a whole body.
        begun: something of the answer had come.  If not, an object that is no
            chunk and has the fields of an error is one.
    """
    if chunk.get("error") or chunk.get("object") == "error":
        return True
    if chunk.get("choices"):
        return False
    if chunk.get("error_message") or (chunk.get("error_type") and chunk.get("message")):
        return True
    outcome = chunk.get("base_resp")  # MiniMax: 0 is none
    if isinstance(outcome, dict) and outcome.get("status_code"):
        return True
    return not (begun or chunk.get("usage")) and bool(chunk.get("code") or message_of(chunk))


def wrong_content(
    content_type: str, body: str, *, redact: Redactor, expected: str = "an event stream"
) -> ProtocolError:
    """A 200 whose body is neither a stream, as `expected` calls it, nor an answer."""
    said = snippet(redact(page_text(body)))[:300]
    content_type = _shown(content_type, redact)
    return ProtocolError(
        f"expected {expected}, got {content_type or 'no content type'}: {said or 'an empty body'}",
        raw=snippet(redact(body)),
        content_type=content_type,
        phase="headers",
    )


def _shown(text: str, redact: Redactor) -> str:
    """A header's value, or a code, as it may stand in an error."""
    return replace_surrogates(strip_controls(redact(text)))


def _code(payload: Any) -> Optional[str]:
    return next(codes_of(payload), None)


def _request_id(headers: Mapping[str, str], payload: Any, redact: Redactor) -> Optional[str]:
    found = next((headers[name] for name in _REQUEST_ID_HEADERS if headers.get(name)), None)
    if found is None and isinstance(payload, dict):
        found = payload.get("request_id")
    return _shown(found, redact)[:200] if isinstance(found, str) else None
