"""A client of the endpoint: `runs` lists a server's runs, `follow` yields a run's events.

Over the library's one transport: no redirect is followed, a proxy is asked for
other machines only, an answer has a bound in size and in time.

The stream is read with sseclient-py.  It gets whole events only, their line
ends made LF: an event that the connection's end cut short it would hand out as
it is, of mixed line ends it makes empty events, and an `id` without data, which
says where a stream begins, it does not tell.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
import urllib.parse
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional

import sseclient

from agentstream import checks, threads
from agentstream.cancel import CancelToken
from agentstream.errors import (
    AgentStreamError,
    Cancelled,
    ConnectError,
    LimitExceeded,
    LogError,
    ProtocolError,
)
from agentstream.events.model import TERMINAL, Event, EventType
from agentstream.events.store import RunState
from agentstream.llm import failures
from agentstream.llm.secrets import Redactor
from agentstream.llm.settings import Limits, Retries
from agentstream.llm.sse import LOOSE, compact
from agentstream.llm.transport import Exchange, Transport, check_url
from agentstream.llm.where import from_url

__all__ = ["follow", "run_url", "runs"]

logger = logging.getLogger("agentstream.web")

_CONNECT_S = 10.0
#: A server that sends heartbeats is never silent for so long.
_SILENCE_S = 60.0
#: Bytes of a list of runs.
_MOST_LISTED = 16 * 2**20
#: The first offset or position that no log has; the first second that no calendar has.
_NO_PLACE, _NO_TIME = 2**63, 253_402_300_800
#: Digits of a whole number that a float can hold.
_MOST_DIGITS = 300


def run_url(base: str, workflow_id: str) -> str:
    """The URL of a run at a server."""
    return f"{base.rstrip('/')}/workflows/{urllib.parse.quote(workflow_id, safe='')}"


def runs(
    url: str,
    token: Optional[str] = None,
    *,
    limit: int = 1000,
    timeout: float = _CONNECT_S,
    cancel: Optional[CancelToken] = None,
    verify: bool | str = True,
) -> List[RunState]:
    """The runs that a server has, the newest first.

    Args:
        url: `http://host:port`.
        token: the server's token.
        limit: how many at most; a server gives 1,000 at once.
        timeout: seconds for the whole answer.
        cancel: ends it, from any thread.
        verify: True, False, or the path of a CA bundle.

    Raises:
        ConnectError: there is no server, or no whole answer in time.
        StatusError: the server refuses: a wrong token.
        ProtocolError, LimitExceeded: what answers is no list of runs, or too long a one.
        Cancelled: `cancel` was called.
        ConfigError: an argument cannot be used.
    """
    checks.whole("limit", limit, 1)
    clock = _Clock(checks.seconds("timeout", timeout))
    server = _Server(url, token, verify, Limits())
    try:
        target = f"{url.rstrip('/')}/workflows?limit={limit}"
        with server.get(target, clock, cancel or CancelToken()) as exchange:
            server.check(exchange, "json", target)
            body = exchange.read(_MOST_LISTED)
            if exchange.broken:
                raise ConnectError(f"the connection broke: {exchange.broken}", retryable=True)
    finally:
        server.close()
    try:
        return [_as_state(fields) for fields in _parse_json(body.decode())["workflows"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ProtocolError("the list of runs cannot be read") from None


def follow(
    url: str,
    token: Optional[str] = None,
    after: Optional[int] = None,
    *,
    cancel: Optional[CancelToken] = None,
    verify: bool | str = True,
    limits: Optional[Limits] = None,
) -> Iterator[Event]:
    """Yield the events of a remote run as they happen; ends after the terminal one.

    A connection that breaks is made again, and goes on after the last event; a
    server that is not there is waited for.

    Args:
        url: `http://host:port/workflows/ID` for a run, `http://host:port` for
            all runs, which never ends by itself.
        token: the server's token.
        after: the offset (of one run) or position (of all) after which to begin;
            default: a run's beginning, and from now on for all.
        cancel: ends it, from any thread.
        verify: True, False, or the path of a CA bundle.
        limits: default `Limits()`; its `line` and `event` bound what the server sends.

    Raises:
        StatusError: the server refuses: no such run, a wrong token.
        ProtocolError: what answers is no event stream.
        LimitExceeded: a line or an event is too long.
        Cancelled: `cancel` was called.
        ConfigError: the URL cannot be used.
    """
    checks.whole("after", after, optional=True)
    server = _Server(_stream_url(url), token, verify, limits or Limits())
    return _Follower(server, after, cancel or CancelToken()).events()


def _stream_url(url: str) -> str:
    parts = check_url(url)
    path = parts.path.rstrip("/")
    if not path.endswith("/stream"):
        path += "/stream" if "/workflows/" in path else "/events/stream"
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, "", ""))


class _Server:
    """One server, asked by GET.

    Attributes:
        url, limits: as given.
    """

    def __init__(self, url: str, token: Optional[str], verify: bool | str, limits: Limits) -> None:
        self.url = url
        self.limits = limits
        self._redact = Redactor([token] if token else [])
        self._transport = Transport(url, api_key=token, headers={}, verify=verify, limits=limits)

    @contextlib.contextmanager
    def get(self, url: str, clock: _Clock, cancel: CancelToken) -> Iterator[Exchange]:
        """Ask; `clock` and `cancel` bound all that is done with the answer.

        Raises:
            Cancelled: `cancel` was called.
            ConnectError: there is no answer, or the clock ran out.
        """
        key = cancel.add_callback(lambda: clock.stop.cancel(cancel.reason))
        try:
            with self._transport.exchange(None, clock.stop, url=url, timer=clock) as exchange:
                yield exchange
        except (Cancelled, ConnectError):
            if not clock.stop.cancelled:
                raise
        finally:
            clock.end()
            cancel.remove_callback(key)
        if cancel.cancelled:
            raise Cancelled(f"the request was stopped: {cancel.reason}")
        if clock.stop.cancelled:
            raise ConnectError("the server did not answer in time", retryable=True)

    def check(self, exchange: Exchange, wanted: str, url: str) -> None:
        """Raise what an answer from there stands for that is not 200 with that content type."""
        if exchange.status != 200:
            error = failures.status_error(
                exchange.status, exchange.headers, exchange.read_text(65536), redact=self._redact
            )
            raise from_url(error, self._transport.shown(url))
        content_type = exchange.headers.get("content-type", "")
        if wanted not in content_type.lower():
            found = failures.wrong_content(
                content_type, exchange.read_text(4096), redact=self._redact
            )
            raise from_url(found, self._transport.shown(url))

    def close(self) -> None:
        """Close its connections."""
        self._transport.close()


class _Clock:
    """Bounds an exchange in time: the whole of it, or with `between` the gap between lines.

    Attributes:
        stop: what it cancels.
    """

    def __init__(self, seconds: float, between: Optional[float] = None) -> None:
        self.stop = CancelToken()
        self._seconds = seconds
        self._between = between
        self._alarm = threads.Alarm(lambda _: self.stop.cancel("the time is over"), grain=seconds)

    def queued(self) -> None:
        threads.arm(self._alarm, time.monotonic() + self._seconds)

    def connecting(self) -> float:
        return self._alarm.due

    def connected(self) -> None:
        pass

    def watch(self, read: Callable[[], bytes]) -> Callable[[], bytes]:
        self.line_came()  # the headers are here
        return read

    def is_alive(self) -> None:
        pass

    def line_came(self) -> None:
        """A line has come."""
        if self._between is not None:
            self._alarm.due = time.monotonic() + self._between

    def end(self) -> None:
        """Ring no more."""
        self._alarm.stop()


class _Follower:
    """Where one is in a stream, over all its connections."""

    def __init__(self, server: _Server, after: Optional[int], cancel: CancelToken) -> None:
        self._server = server
        self._one_run = "/workflows/" in server.url
        self._after = after
        self._cancel = cancel
        self._retries = Retries(backoff=0.2, max_backoff=5.0)
        self._failed = 0  # times in a row

    def events(self) -> Iterator[Event]:
        """The events, each once."""
        try:
            while True:
                try:
                    for event in self._connection():
                        self._failed = 0
                        yield event
                        if self._one_run and event.type in TERMINAL:
                            return
                    self._pause(0.0)
                except AgentStreamError as error:
                    self._check_cancel()
                    if not error.retryable:
                        raise
                    logger.info("following again: %s", error)
                    self._pause(getattr(error, "retry_after", None) or 0.0)
                except _Over:
                    return
        finally:
            self._server.close()

    def _pause(self, asked: float) -> None:
        """Wait before the next connection, at least as long as the server asked for."""
        asked = min(asked, self._retries.max_retry_after)
        self._cancel.wait(max(asked, self._retries.delay(self._failed)))
        self._check_cancel()
        self._failed += 1

    def _check_cancel(self) -> None:
        if self._cancel.cancelled:
            raise Cancelled(f"following was stopped: {self._cancel.reason}")

    def _connection(self) -> Iterator[Event]:
        """The events of one connection."""
        query = "" if self._after is None else f"?after={self._after}"
        clock = _Clock(_CONNECT_S, between=_SILENCE_S)
        with self._server.get(self._server.url + query, clock, self._cancel) as exchange:
            if exchange.status == 204:
                raise _Over
            self._server.check(exchange, "event-stream", self._server.url)
            # Where a stream of what is new began.
            self._note_start(exchange.headers.get("last-event-id", ""))
            yield from self._parse(exchange.lines(), clock)
            if exchange.broken and not clock.stop.cancelled:
                logger.info("the connection broke: %s", exchange.broken)

    def _parse(self, lines: Iterable[bytes], clock: _Clock) -> Iterator[Event]:
        for sent in sseclient.SSEClient(self._whole_events(lines, clock)).events():
            # Some of what a socket held may be left; more must not be handed out.
            self._check_cancel()
            event = _as_event(sent.data)
            place = self._place(event)
            if self._after is not None and place <= self._after:
                continue
            self._after = place
            yield event

    def _place(self, event: Event) -> int:
        """Where one is after an event; what is missed is not asked for again."""
        if event.type is EventType.EVENTS_MISSED:
            return _as_place(event.data.get("last"))
        return (event.offset if self._one_run else event.position) or 0

    def _whole_events(self, lines: Iterable[bytes], clock: _Clock) -> Iterator[bytes]:
        """Whole events as bytes, with LF line ends; what the end cuts off is dropped.

        Raises:
            LimitExceeded: an event has more than `Limits.event` bytes.
        """
        most = self._server.limits.event or math.inf
        pending: List[bytes] = []
        joined = size = 0
        for line in lines:
            clock.line_came()
            if line:
                if line.startswith(b":"):
                    continue
                pending.append(line)
                size += len(line) + 1
                if len(pending) > joined + LOOSE:
                    joined = compact(pending, joined)
                if size > most:
                    raise LimitExceeded(f"an event passed {most} bytes", limit="event")
                continue
            if any(field.startswith(b"data") or b"\ndata" in field for field in pending):
                text = b"\n".join(pending).decode("utf-8", "replace")
                yield text.encode() + b"\n\n"
            else:
                for field in b"\n".join(pending).split(b"\n"):
                    name, _, value = field.partition(b":")
                    if name == b"id":
                        self._note_start(value.decode("ascii", "replace").strip())
            pending.clear()
            joined = size = 0

    def _note_start(self, place: str) -> None:
        if self._after is None and place.isascii() and place.isdigit() and len(place) < 19:
            self._after = int(place)


class _Over(Exception):
    """204: the run has ended, and all of it has been read."""


# --- what a server says ---------------------------------------------------------------------


def _as_event(text: str) -> Event:
    """The event that an event's data is.

    Raises:
        ProtocolError: it is none.
    """
    try:
        event = Event.from_dict(_parse_json(text))
        _as_place(event.offset)
        if event.position is not None:
            _as_place(event.position)
        _check_ids(event.workflow_id, event.parent_workflow_id)
        _check_time(event.timestamp)
    except (ValueError, KeyError, TypeError, RecursionError, LogError):
        raise ProtocolError("an event of the stream cannot be read") from None
    return event


#: Fields of a `RunState` that servers of 0.1 do not send.
_LATER = ("output", "error", "input")


def _as_state(fields: Dict[str, Any]) -> RunState:
    """The state of a run; raises ValueError, KeyError or TypeError where it is none."""
    values = {name: fields[name] for name in RunState._fields if name not in _LATER}
    values.update((name, fields.get(name)) for name in _LATER)
    state = RunState(**values)
    _check_ids(state.workflow_id, state.parent_workflow_id)
    for seconds in (state.started_at, state.ended_at):
        if seconds is not None:
            _check_time(seconds)
    _as_place(state.last_offset)
    if not isinstance(state.name, str) or not isinstance(state.status, str):
        raise TypeError("a name and a status are texts")
    if not isinstance(state.input, (str, type(None))):
        raise TypeError("an input is a text")
    if not isinstance(state.error, (str, type(None))):
        raise TypeError("an error is a text")
    return state


def _as_place(value: Any) -> int:
    if not checks.is_whole(value) or not 0 <= value < _NO_PLACE:
        raise ProtocolError("an event of the stream has no place in a log")
    place: int = value
    return place


def _check_ids(workflow_id: Any, parent: Any) -> None:
    if not isinstance(workflow_id, str) or not (parent is None or isinstance(parent, str)):
        raise TypeError("an id is a text")


def _check_time(seconds: Any) -> None:
    if not checks.is_number(seconds) or not 0 <= seconds < _NO_TIME:
        raise ValueError("that is no time")


def _parse_json(text: str) -> Any:
    """A JSON object whose numbers a float can hold; raises ValueError or RecursionError."""
    value = json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=_finite)
    if not isinstance(value, dict):
        raise ValueError("that is no object")
    return value


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError("a whole number of so many digits")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number that is none")
    return value
