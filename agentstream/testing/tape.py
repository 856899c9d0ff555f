"""The transport of a client that is recorded, or replayed.

It stands where a client's own transport stands: a recorded exchange is read by the
dialect as a real one is, and retries, deadlines and errors come about as they did.
"""

from __future__ import annotations

import contextlib
import json
import time
import urllib.parse
from types import TracebackType
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Type

from agentstream import errors
from agentstream.cancel import CancelToken
from agentstream.errors import AgentStreamError, Cancelled, ConfigError
from agentstream.llm.secrets import Redactor
from agentstream.llm.transport import Exchange, Transport, secrets_in
from agentstream.testing.cassette import Cassette, NotRecorded, Taped, bytes_of, text_of

__all__ = ["TapeTransport"]

#: Of an answer's headers these are kept; cookies, and what names an account, are not.
_KEPT = (
    *("content-type", "retry-after", "retry-after-ms", "x-should-retry", "location"),
    *("x-request-id", "request-id", "apim-request-id"),
)
#: A key or a header's value that is shorter is no secret, and may be a word of an answer's.
_SECRET = 8
_ERROR_FIELDS = ("phase", "retryable", "outcome", "request_id", "limit", "raw", "content_type")


class TapeTransport:
    """A transport that replays a cassette, and may record into it.

    Args:
        real: the client's own, which is asked for nothing but addresses when replaying.
        cassette: the recordings.
        replays: known requests are answered from it.
        records: other requests go to the server, and are recorded.
        speed: how many times as fast as they came a recorded stream's lines come; 0: at once.
    """

    def __init__(
        self, real: Transport, cassette: Cassette, *, replays: bool, records: bool, speed: float
    ) -> None:
        self._real = real
        self._cassette = cassette
        self._replays = replays
        self._records = records
        self._speed = speed
        if not records:
            self.pace = 1 / speed if speed else 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def exchange(
        self, body: Optional[bytes], stop: CancelToken, *, url: Optional[str] = None, **how: Any
    ) -> contextlib.AbstractContextManager[Any]:
        """As `Transport.exchange`.

        Raises:
            NotRecorded: it is not in the cassette, and nothing is recorded.
        """
        request = self._request(body, url or self._real.url, how.get("method"))
        taped = self._cassette.take(request) if self._replays else None
        if taped is not None:
            return _Replayed(taped, stop, how.get("timer"), self._speed)
        if not self._records:
            raise self._cassette.missing(request)
        exchange = self._real.exchange(body, stop, url=url, **how)
        return _Recorded(exchange, Taped(request), stop, how.get("timer"), self._keep)

    def _request(self, body: Optional[bytes], url: str, method: Optional[str]) -> Dict[str, Any]:
        """What a request is to a cassette, whatever server it is sent to, and with which key."""
        parts = urllib.parse.urlsplit(url)
        query = parts.query
        for secret in sorted(secrets_in(url), key=len, reverse=True):
            query = query.replace(secret, "...")
        return {
            "method": method or ("GET" if body is None else "POST"),
            "path": urllib.parse.urlunsplit(("", "", parts.path, query, "")),
            "body": None if body is None else json.loads(body),
        }

    def _keep(self, taped: Taped) -> None:
        """Put an exchange into the cassette, without the client's secrets, wherever they stand."""
        redact = Redactor(secret for secret in self._real.secrets() if len(secret) >= _SECRET)
        taped.request = _each_text(taped.request, redact)
        taped.steps = _each_text(taped.steps, redact)
        self._cassette.add(taped)


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_each_text(each, change) for each in value]
    if isinstance(value, dict):
        return {name: _each_text(each, change) for name, each in value.items()}
    return value


class _Recorded:
    """A real exchange, and what is noted of it."""

    def __init__(
        self,
        exchange: Exchange,
        taped: Taped,
        stop: CancelToken,
        timer: Any,
        keep: Callable[[Taped], None],
    ) -> None:
        self._exchange = exchange
        self._taped = taped
        self._stop = stop
        self._timer = timer
        self._keep = keep
        self._began = time.monotonic()
        self._failure: Optional[AgentStreamError] = None

    def __getattr__(self, name: str) -> Any:  # status, headers, broken
        return getattr(self._exchange, name)

    def _note(self, step: Dict[str, Any]) -> None:
        at = round(time.monotonic() - self._began, 4)
        self._taped.steps.append({**step, "at": at})

    def __enter__(self) -> _Recorded:
        try:
            self._exchange.__enter__()
        except AgentStreamError as error:
            self._failure = error
            self._finish(error)
            raise
        self._note({"answer": self._exchange.status, "headers": _kept(self._exchange.headers)})
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        broken = self._exchange.broken
        self._exchange.__exit__(kind, error, trace)
        self._finish(error, broken)

    def lines(self) -> Iterator[bytes]:
        """The body's lines."""
        try:
            for line in self._exchange.lines():
                self._note(text_of(line))
                yield line
        except AgentStreamError as error:
            self._failure = error
            raise

    def read_text(self, limit: int) -> str:
        """The body of an error."""
        text = self._exchange.read_text(limit)
        self._note({"text": text})
        return text

    def _finish(self, error: Optional[BaseException], broken: str = "") -> None:
        clock = getattr(self._timer, "expired", "")
        if self._stop.cancelled and clock:
            phase = error.phase if isinstance(error, Cancelled) else "stream"
            self._note({"end": "expired", "clock": clock, "phase": phase})
        elif self._stop.cancelled or isinstance(error, GeneratorExit):
            self._note({"end": "left"})  # by whoever asked
        elif isinstance(self._failure, ConfigError):
            return  # nothing was sent
        elif self._failure is not None:
            self._note({"end": "failed", **_described(self._failure)})
        elif broken:
            self._note({"end": "broken", "why": broken})
        else:
            self._note({"end": "whole"})
        self._keep(self._taped)


class _Replayed:
    """An exchange from a cassette, for as long as it goes.

    Attributes:
        status, headers, broken: as `Exchange` has them.
    """

    def __init__(self, taped: Taped, stop: CancelToken, timer: Any, speed: float) -> None:
        self._taped = taped
        self._stop = stop
        self._timer = timer
        self._speed = speed
        self._began = time.monotonic()
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.broken = ""

    def _wait(self, step: Dict[str, Any]) -> None:
        if self._speed:
            due = self._began + step.get("at", 0.0) / self._speed
            self._stop.wait(max(due - time.monotonic(), 0.0))

    def __enter__(self) -> _Replayed:
        self._began = time.monotonic()
        step = self._taped.steps[0]
        self._wait(step)
        self._check_stop("headers")
        if "end" in step:
            self._end(step)
            self._check_stop(step.get("phase", "headers"))
        self.status, self.headers = step["answer"], step["headers"]
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _check_stop(self, phase: str) -> None:
        if self._stop.cancelled:
            raise Cancelled(f"the request was stopped: {self._stop.reason}", phase=phase)

    def lines(self) -> Iterator[bytes]:
        """The body's lines."""
        for step in self._taped.steps[1:]:
            self._wait(step)
            if self._stop.cancelled:
                self.broken = "it was stopped"
                return
            if "end" in step:
                self._end(step)
            else:
                yield bytes_of(step)

    def read_text(self, limit: int) -> str:
        """The body of an error."""
        return "".join(step.get("text", "") for step in self._taped.steps)[:limit]

    def _end(self, step: Dict[str, Any]) -> None:
        """End as it ended.

        Raises:
            AgentStreamError: as it was raised.
        """
        if step["end"] == "expired":
            self._timer.expired = step["clock"]
            self._stop.cancel(step["clock"])
            self.broken = "it was stopped"
        elif step["end"] == "failed":
            raise _raised(step)
        elif step["end"] == "broken":
            self.broken = step["why"]
        elif step["end"] == "left":
            number = self._taped.number
            raise NotRecorded(
                f"recording {number} ends here: whoever made it left the answer",
                request=self._taped.request,
                nearest=number,
            )


def _kept(headers: Mapping[str, str]) -> Dict[str, str]:
    """Those of an answer's headers that mean something to a client."""
    names = sorted({name.lower() for name in headers})
    return {name: headers[name] for name in names if name in _KEPT or "ratelimit" in name}


def _described(error: AgentStreamError) -> Dict[str, Any]:
    """An error of the transport as JSON."""
    fields = {name: getattr(error, name, None) for name in _ERROR_FIELDS}
    given = {name: value for name, value in fields.items() if value not in (None, "")}
    return {"error": type(error).__name__, "message": str(error), **given}


def _raised(step: Dict[str, Any]) -> AgentStreamError:
    kind = getattr(errors, step["error"], AgentStreamError)
    fields = {name: step[name] for name in _ERROR_FIELDS if name in step}
    error: AgentStreamError = kind(step["message"], **fields)
    return error
