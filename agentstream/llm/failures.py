"""What servers send when they fail -> the typed error.  Pure.

HTTP answers that are errors, and payloads in mid-stream that are, in every
dialect seen in the wild.  A new way of failing is a new rule here.
"""

from __future__ import annotations

import re
import time
from typing import Any, Dict, Mapping, Optional, Type, Union

from agentstream.errors import (
    AgentStreamError,
    AuthError,
    BadRequest,
    ConnectError,
    ProtocolError,
    ProviderStreamError,
    RateLimited,
    ServerError,
    StatusError,
)
from agentstream.llm.retry_hints import (
    is_retryable,
    parse_retry_after,
    retry_after,
    status_of,
    until_reset,
)
from agentstream.llm.secrets import Redactor
from agentstream.llm.words import SNIPPET, codes_of, message_of, page_text, parse, snippet
from agentstream.text import pattern, replace_surrogates, strip_controls

__all__ = [
    "is_error",
    "is_loading",
    "names_field",
    "parse_retry_after",
    "proxy_refused",
    "refuses_stream_options",
    "renamed",
    "says_model_is_gone",
    "snippet",
    "status_error",
    "stream_error",
    "wants_responses",
    "wrong_content",
]

_REQUEST_ID_HEADERS = (
    "x-request-id",
    "request-id",
    "x-amzn-requestid",
    "apim-request-id",
    "cf-ray",
)


#: The two names of one field.
_BOTH = ("max_tokens", "max_completion_tokens")
_UNKNOWN = pattern(
    "unknown|unsupported|not supported|unrecognized|unexpected|extra|not permitted|forbidden"
    "|not allowed",
    re.IGNORECASE,
)
#: Where a model is named.
_ANOTHER = "another is set by model=, --model, AGENTSTREAM_MODEL or a workflow file's model"
_GONE_CODES = pattern("model_?(not_?found|decommissioned|deprecated|retired|gone)", re.IGNORECASE)
_GONE = pattern(
    r"\bmodel\b.{0,200}\b(does not exist|doesn't exist|not found|no longer|decommissioned"
    r"|been deprecated|been (shut|retired)|not available)\b|model not found|unknown model"
    r"|invalid model name|no such model|^model: [\w.:/-]+$",
    re.IGNORECASE | re.DOTALL,
)


def status_error(
    status: int,
    headers: Mapping[str, str],
    body: str,
    *,
    redact: Redactor,
    now: Optional[float] = None,
    model: str = "",
) -> StatusError:
    """The error an HTTP answer means.

    Args:
        status: the status code, anything but 200.
        headers: the answer's headers, looked up in lower case.
        body: as much of the body as was read, as text.
        redact: takes secrets out of what the error will carry.
        now: Unix time that an HTTP date in Retry-After counts from.
        model: the model that was asked; an error that says there is none of that
            name says where another one is set.
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
    if model and status in (400, 404, 410, 422) and _is_gone(payload, said):
        message += f" (no model {_shown(model, redact)} is served, or no longer; {_ANOTHER})"
    if status in (401, 403):
        return AuthError(message, **common)
    kind = _kind_of(status)
    if kind is None:
        if common["location"]:
            message += f" (redirect to {common['location']}, not followed)"
        return BadRequest(message, **common)
    now = time.time() if now is None else now
    delay = retry_after(headers, payload, said, now)
    if delay is None and status == 429:
        delay = until_reset(headers, now)
    return kind(message, retry_after=delay, **common)


def says_model_is_gone(error: StatusError) -> bool:
    """True if the server said that the model which was asked is not there."""
    payload = parse(error.body)
    return _is_gone(payload, message_of(payload) or error.body)


def _is_gone(payload: Any, said: str) -> bool:
    """True if an error says that the model that was asked is not there, or not any more."""
    if any(_GONE_CODES.fullmatch(code) for code in codes_of(payload)):
        return True
    return bool(_GONE.search(said[:SNIPPET]))


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


def wants_responses(error: AgentStreamError) -> bool:
    """True if the server's complaint says to ask the Responses API."""
    return (
        isinstance(error, StatusError)
        and error.status in (400, 404, 422)
        and ("v1/responses" in error.body)
    )


def renamed(error: StatusError, sent: str) -> Optional[str]:
    """The field to say `sent` in, max_tokens or max_completion_tokens, by a server's complaint."""
    other = _BOTH[1 - _BOTH.index(sent)]
    if names_field(error, other) and sent in error.body:
        return other
    unknown = names_field(error, sent) and _UNKNOWN.search(error.body)
    return other if unknown else None


def is_loading(error: AgentStreamError) -> bool:
    """True for the answer of a llama.cpp that is still loading its model: a 503 that says so."""
    return (
        isinstance(error, StatusError)
        and error.status == 503
        and "loading model" in error.body.lower()
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
