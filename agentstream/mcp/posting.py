"""One POST to an MCP server over HTTP, and its answer, JSON or events; on the library's transport.

What a version or a session means is http.py's.  A cancel shuts the socket, wherever
the exchange is: that is how a server of 2026-07-28 is told to stop.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterator, Mapping, NamedTuple, Optional, Tuple, Union

from agentstream import checks
from agentstream.cancel import CancelToken
from agentstream.errors import (
    AgentStreamError,
    Cancelled,
    ConfigError,
    ProtocolError,
    StatusError,
    StreamTruncated,
)
from agentstream.llm.deadlines import Deadlines
from agentstream.llm.failures import status_error
from agentstream.llm.secrets import Redactor
from agentstream.llm.settings import Limits, Timeouts
from agentstream.llm.sse import EventDecoder
from agentstream.llm.transport import Cert, Exchange, Transport, Verify
from agentstream.mcp.messages import messages_in

__all__ = ["Answer", "Headers", "Poster"]

#: Headers of every request, or a function that gives them, called for each.
Headers = Union[Mapping[str, str], Callable[[], Mapping[str, str]], None]

_ERROR_BODY = 65536
_ERROR_BODY_S = 2.0


class Poster:
    """Sends messages to one URL.  Any number of threads may use one.

    Raises:
        ConfigError: the URL, a header or a certificate cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Headers,
        verify: Verify,
        cert: Cert,
        timeouts: Timeouts,
        limits: Limits,
    ) -> None:
        self.url = url
        self._ask_headers = headers if callable(headers) else None
        fixed = {} if callable(headers) else checks.fields("headers", headers)
        self._transport = Transport(
            url, api_key=None, headers=fixed, verify=verify, cert=cert, limits=limits
        )
        self._timeouts = timeouts
        self._limits = limits
        self._asked: Deque[str] = deque(maxlen=16)  # the latest values that were asked for

    @property
    def address(self) -> Tuple[str, int]:
        """The server's host and port."""
        return self._transport.address

    def close(self) -> None:
        """Close the idle connections."""
        self._transport.close()

    def secrets(self) -> Iterator[str]:
        """What must not be shown of what is sent."""
        yield from self._transport.secrets()
        yield from list(self._asked)

    @contextlib.contextmanager
    def exchange(
        self,
        body: Optional[bytes],
        headers: Mapping[str, str],
        cancel: CancelToken,
        *,
        timeout: Optional[float] = None,
        resend: bool = False,
        method: Optional[str] = None,
    ) -> Iterator[Answer]:
        """A request and its answer, for a `with` block.

        Args:
            body: what is posted; None for a GET, or what `method` says.
            timeout: seconds for all of it; None for `Timeouts.total`.
            resend: it may reach the server twice, should a stale connection fail it.

        Raises:
            Cancelled: `cancel` was cancelled.
            AgentStreamError: a clock of `Timeouts` ran out; there was no answer.
        """
        timeouts = self._timeouts
        if timeout is not None:
            timeouts = timeouts.replace(total=timeout)
        own = {**self._own_headers(), **headers}
        stop = CancelToken()
        deadlines = Deadlines(timeouts)
        deadlines.start(time.monotonic())
        deadlines.begin_attempt(stop)
        key = cancel.add_callback(lambda: stop.cancel(cancel.reason))
        try:
            with self._transport.exchange(
                body, stop, headers=own, timer=deadlines, resend=resend, method=method
            ) as exchange:
                clocks = _Clocks(deadlines, stop, cancel)
                yield Answer(exchange, clocks, self._limits, self.secrets)
        except Cancelled as error:
            if cancel.cancelled or not stop.cancelled:
                raise
            raise _late(deadlines, error.phase) from None
        finally:
            deadlines.stop()
            cancel.remove_callback(key)

    def _own_headers(self) -> Mapping[str, str]:
        if self._ask_headers is None:
            return {}
        try:
            headers = dict(self._ask_headers())
        except AgentStreamError:
            raise
        except Exception as error:
            reason = f"could not be asked for: {type(error).__name__}"
            raise ConfigError.about("headers", reason) from error
        self._asked.extend(value for value in headers.values() if value not in self._asked)
        return headers


class _Clocks(NamedTuple):
    """What may end an exchange: a deadline, by way of `stop`, or the caller's `cancel`."""

    deadlines: Deadlines
    stop: CancelToken
    cancel: CancelToken

    def check(self) -> None:
        """Raise why the exchange was stopped, if it was."""
        if self.cancel.cancelled:
            raise Cancelled(f"the call was stopped: {self.cancel.reason}", phase="stream")
        if self.stop.cancelled:
            raise _late(self.deadlines, "stream")


class Answer:
    """What came back, its headers at least.

    Attributes:
        status: the HTTP status.
        headers: by name, in any case.
        streamed: it is an event stream.
        last_id: the id of the last event that had one; "" for none.
        retry: milliseconds to wait before that stream is asked for again, or None.
    """

    def __init__(
        self,
        exchange: Exchange,
        clocks: _Clocks,
        limits: Limits,
        secrets: Callable[[], Iterator[str]],
    ) -> None:
        self._exchange = exchange
        self._clocks = clocks
        self._limits = limits
        self._secrets = secrets
        self.status = exchange.status
        self.headers = exchange.headers
        kind = exchange.headers.get("content-type", "").partition(";")[0].strip().lower()
        self._is_json = kind == "application/json" or kind.endswith("+json")
        self.streamed = kind == "text/event-stream"
        self.last_id = ""
        self.retry: Optional[int] = None

    @property
    def ok(self) -> bool:
        """True for a status of success."""
        return 200 <= self.status < 300

    def error_text(self) -> str:
        """The beginning of the body of an error."""
        self._clocks.deadlines.arm("body", _ERROR_BODY_S)
        text = self._exchange.read_text(_ERROR_BODY)
        if self._clocks.cancel.cancelled:
            self._clocks.check()
        return text

    def failure(self, text: str) -> StatusError:
        """The error that the status means, for a body of that text."""
        redact = Redactor(keys=self._secrets())
        return status_error(self.status, self.headers, text, redact=redact)

    def messages(self) -> Iterator[Dict[str, Any]]:
        """The messages of the body, each as it arrives.

        What an event holds that is no message is passed over.

        Raises:
            Cancelled: the call was cancelled.
            AgentStreamError: a clock ran out.
            LimitExceeded: a message passed its bound (`Limits.event`).
            ProtocolError: the body is neither events nor JSON.
            StreamTruncated: a JSON body broke off.
        """
        if self.streamed:
            yield from self._events()
        elif self._is_json:
            yield from self._whole()
        else:
            kind = self.headers.get("content-type", "")[:100]
            raise ProtocolError(
                f"the answer is neither JSON nor an event stream, but {kind or 'of no type'!r}",
                content_type=kind,
                phase="headers",
            )

    def _events(self) -> Iterator[Dict[str, Any]]:
        decoder = EventDecoder(max_event=self._limits.event)
        for event in decoder.decode(self._exchange.lines()):
            if self._clocks.stop.cancelled:
                break
            if not self._clocks.deadlines.streaming:
                self._clocks.deadlines.begin_stream()
            self.last_id, self.retry = event.id, event.retry
            try:
                yield from messages_in(event.data or "[]")
            except ValueError:
                continue
        self._clocks.check()

    def _whole(self) -> Iterator[Dict[str, Any]]:
        most = self._limits.event
        raw = self._exchange.read(2**62 if most is None else most)
        self._clocks.check()
        if self._exchange.broken:
            raise self.broken()
        try:
            yield from messages_in(raw)
        except ValueError as error:
            raise ProtocolError(f"the answer is no JSON-RPC: {error}", phase="stream") from None

    def broken(self) -> StreamTruncated:
        """The error for an answer that ended before what was asked for had come."""
        why = self._exchange.broken or "the stream ended"
        return StreamTruncated(
            f"the server broke off before it had answered: {why}",
            phase="stream",
            retryable=True,
            outcome="unknown",
        )


def _late(deadlines: Deadlines, phase: str) -> AgentStreamError:
    """The error of the clock that ran out; those of a model's stream in words that fit here."""
    error = deadlines.error(phase)
    if deadlines.expired in ("first_token", "stall", "idle"):
        error.args = (f"no word from the MCP server: {str(error).partition(' within ')[2]}",)
    return error
