"""When a server wants to be asked again, if ever: from its headers, its codes, its words.  Pure."""

from __future__ import annotations

import datetime
import email.utils
import re
from typing import Any, List, Mapping, NamedTuple, Optional

from agentstream.llm.words import codes_of, holders_of

__all__ = [
    "Left",
    "is_final",
    "is_retryable",
    "parse_retry_after",
    "retry_after",
    "status_of",
    "until_reset",
    "what_is_left",
]

#: 425: too early, which TLS early data brings about.
_RETRYABLE = {408, 409, 425, 429}

# Patterns are compiled when the first error needs them: importing this costs nothing.
_NUMBER = r"\d{1,12}(?:\.\d{1,12})?"
_SECONDS = {"ms": 0.001, "milli": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = "(?i)" rf"({_NUMBER})\s*(ms|milli|s|m|h|d)[a-z]*[\s,]*"
_AGAIN = (
    "(?i)"
    r"(?:(?:again|try|retry|available|resets?)\s+(?:in|after)|wait(?:\s+for)?)"
    r"\s+(?:(?:about|approximately|another|at\s+least)\s+)?"
    rf"((?:{_NUMBER}\s*[a-z]+[\s,]*)+)"
)
#: Headers that say what is left of a limit.
_LEFT = r"(?:x-|anthropic-)?ratelimit-(?:remaining|remaining-[\w-]+|[\w-]+-remaining)"
#: What is no number of seconds, but a Unix time, or one in milliseconds.
_UNIX, _UNIX_MS = 1e9, 1e11
#: Where a body may say how long, and the unit.
_FIELDS = {
    "retry_after": 1.0,
    "retryAfter": 1.0,
    "retry_after_seconds": 1.0,
    "retryAfterSeconds": 1.0,
    "retry_after_ms": 0.001,
    "retryAfterMs": 0.001,
}

#: Money, not time, is what lacks.  In codes; in words.
_BROKE = (
    "insufficient(quota|balance|fund)|exceeded(your)?currentquota|credit|billing|payment|arrear"
    "|spend(ing)?limit"
)
_BROKE_WORDS = (
    "(?i)"
    "exceeded your current quota|billing|insufficient (account )?(balance|credit|quota|fund)"
    "|credit balance is too low|(out of|no|not enough) (more )?credits?\\b|payment required"
    "|credits? (is|are|has been|have been) (exhausted|depleted|used up)|spend(ing)? limit"
    "|in arrears|overdue"
)
_TOO_FAST = "ratelimit|toomanyrequest|throttl"

#: The words of a 500 that another try meets again.
_STAYS = r"(?s)model name=.*failed to load|['\"`][\w.\[\]]+['\"`] is required\.?$"

#: What errors told within a 200 amount to.
_KINDS = (
    (429, "ratelimit|toomanyrequest|resourceexhausted|throttl|quota|concurrency"),
    (529, "^overloadederror$"),  # as Anthropic's status has it
    (503, "overload|unavailable|capacity|busy"),
    (504, "timeout|timedout|deadlineexceeded"),
    (500, "servererror|internalerror|apierror|badgateway|^internal$"),
)
#: A code that says nothing of the kind.
_EMPTY_CODE = "error|none|null|unknown|unknownerror"


def is_retryable(status: int, headers: Mapping[str, str], payload: Any, said: str) -> bool:
    """True if an answer of that status is worth another try.

    Args:
        status: the status code.
        headers: by names in lower case; `x-should-retry` decides before all else.
        payload: the body's JSON, or what there is of it.
        said: the body's message.
    """
    wish = headers.get("x-should-retry", "").strip().lower()
    if wish in ("true", "false"):
        return wish == "true" and status >= 400
    if status < 500 and status not in _RETRYABLE:
        return False
    if status == 429 and is_final(headers, payload, said):
        return False
    # A model's file that is broken, and a request that lacks a field, stay so: llama.cpp.
    return not (status == 500 and re.match(_STAYS, said))


def is_final(headers: Mapping[str, str], payload: Any, said: str) -> bool:
    """True if a 429 is about money: no wait helps."""
    codes = [_bare(code) for code in codes_of(payload)]
    if any(re.search(_BROKE, code) for code in codes):
        return True
    # A server that says when to come back, or that it was too fast, means it, whatever its words.
    waits = "retry-after" in headers or "retry-after-ms" in headers
    if waits or _in_details(payload) is not None or _in_words(said) is not None:
        return False
    return bool(re.search(_BROKE_WORDS, said)) and not any(
        re.search(_TOO_FAST, code) for code in codes
    )


def status_of(payload: Any, said: str) -> Optional[int]:
    """The HTTP status, 408, 425, 429 or 5xx, that an error's payload amounts to; None for none."""
    telling = False
    for code in codes_of(payload):
        if code.isdigit() and len(code) == 3:
            status = int(code)
            if status in _RETRYABLE - {409} or 500 <= status < 600:
                return status
            telling = telling or 400 <= status < 500
            continue
        if code.isdigit():
            continue  # a number of the vendor's own
        bare = _bare(code)
        if re.search(_BROKE, bare):
            return 429
        found = _kind_of(bare)
        if found is not None:
            return found
        telling = telling or not re.fullmatch(_EMPTY_CODE, bare)
    if telling:
        return None
    return 429 if re.search(_BROKE_WORDS, said) else _kind_of(_bare(said))


def _kind_of(bare: str) -> Optional[int]:
    return next((status for status, words in _KINDS if re.search(words, bare)), None)


def _bare(word: str) -> str:
    return re.sub("[^a-z0-9]", "", word[:1024].lower())


# --- how long -------------------------------------------------------------------------------


def retry_after(headers: Mapping[str, str], payload: Any, said: str, now: float) -> Optional[float]:
    """Seconds that the server asks to wait, by its headers, its details or its words."""
    delay = parse_retry_after(headers, now=now)
    if delay is None:
        delay = _in_details(payload)
    return _in_words(said) if delay is None else delay


def parse_retry_after(headers: Mapping[str, str], *, now: float) -> Optional[float]:
    """Seconds to wait by `retry-after` and `retry-after-ms`, the larger of them (RFC 9110, 10.2.3).

    None when neither is there or readable; a date in the past is 0.
    """
    delays = []
    text = headers.get("retry-after-ms", "").strip()
    if re.fullmatch(_NUMBER, text):
        delays.append(float(text) / 1000)
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(_NUMBER + "s?", text):
        delays.append(float(text.rstrip("s")))
    elif text:
        try:
            delays.append(max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now))
        except (TypeError, ValueError, OverflowError, IndexError):
            pass  # junk asks for nothing
    return max(delays) if delays else None


def until_reset(headers: Mapping[str, str], now: float) -> Optional[float]:
    """Seconds until all limits that are used up begin anew; None if none is, or none says when.

    By headers with names in lower case; for a 429 that does not say itself how long.

    As in `x-ratelimit-remaining-tokens: 0` and `x-ratelimit-reset-tokens: 6m0s`, or
    `anthropic-ratelimit-tokens-remaining: 0` and `...-reset: 2026-11-27T09:47:55Z`.
    """
    waits = []
    for name, left in headers.items():
        if re.fullmatch(_LEFT, name) and re.fullmatch(r"0+(?:\.0+)?", left.strip()):
            wait = _until(headers.get(name.replace("remaining", "reset"), "").strip(), now)
            if wait is not None:
                waits.append(wait)
    return max(waits) if waits else None


class Left(NamedTuple):
    """What a server says to be left of one of its limits.

    Attributes:
        kind: "requests", "tokens", "input-tokens" ...; "" where the header does not say.
        left: how much.
        limit: of how much; None where it does not say.
        reset_s: seconds until there is more.
    """

    kind: str
    left: float
    limit: Optional[float]
    reset_s: float


def what_is_left(headers: Mapping[str, str], now: float) -> List[Left]:
    """What an answer's headers say to be left, in the forms that `until_reset` reads.

    Those that do not say until when are left out.

    Args:
        headers: by names in any case.
        now: Unix time that dates count from.
    """
    found = []
    lower = {name.lower(): value for name, value in headers.items() if "ratelimit" in name.lower()}
    for name, text in lower.items():
        if re.fullmatch(_LEFT, name) and re.fullmatch(_NUMBER, text.strip()):
            reset_s = _until(lower.get(name.replace("remaining", "reset"), "").strip(), now)
            limit = lower.get(name.replace("remaining", "limit"), "").strip()
            if reset_s is not None:
                kind = re.sub(r"^(x-|anthropic-)?ratelimit|-?remaining", "", name).strip("-")
                whole = float(limit) if re.fullmatch(_NUMBER, limit) else None
                found.append(Left(kind[:64], float(text), whole, reset_s))
    return found


def _until(text: str, now: float) -> Optional[float]:
    """Seconds until a reset: by a duration, by seconds, by a Unix time (or its ms), by a date."""
    if re.fullmatch(r"\d{1,14}(?:\.\d{1,12})?", text):
        value = float(text)
        if value >= _UNIX_MS:
            value /= 1000
        wait = value - now if value >= _UNIX else value
    elif re.fullmatch(rf"(?i)(?:{_NUMBER}\s*(?:ms|s|m|h|d)\s*)+", text):
        wait = sum(float(n) * _SECONDS[unit.lower()] for n, unit in re.findall(_DURATION, text))
    else:
        date = re.sub("[zZ]$", "+00:00", text[:40])
        try:
            wait = datetime.datetime.fromisoformat(date).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return wait if wait > 0 else None


def _in_details(payload: Any) -> Optional[float]:
    """A field such as `retry_after`; Google's `error.details[].retryDelay`, "48.9s"."""
    for holder in holders_of(payload):
        metadata = holder.get("metadata")
        for place in (holder, metadata if isinstance(metadata, dict) else {}):
            for name, unit in _FIELDS.items():
                value: Any = place.get(name, "")
                if not isinstance(value, bool) and re.fullmatch(_NUMBER, str(value)[:32]):
                    return float(value) * unit
        details = holder.get("details")
        for detail in details if isinstance(details, list) else []:
            delay = detail.get("retryDelay") if isinstance(detail, dict) else None
            if isinstance(delay, str) and re.fullmatch(rf"{_NUMBER}s", delay):
                return float(delay[:-1])
    return None


def _in_words(said: str) -> Optional[float]:
    """The wait in words such as "try again in 7.66s", "in 1m30s", "after 350 ms"."""
    found = re.search(_AGAIN, said[:4096])
    if found is None:
        return None
    parts = re.findall(_DURATION, found.group(1))
    return sum(float(n) * _SECONDS[unit.lower()] for n, unit in parts) if parts else None
