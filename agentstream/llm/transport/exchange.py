"""Exchange: one request and its answer, from the place in the pool to the connection's release.

    with transport.exchange(body, stop, timer=clocks) as exchange:
        for line in exchange.lines():
            ...

The ritual stands here once: wait for a place, tie the socket to `stop`, connect
and send, read, and then leave the connection fit for the next request or close
it.  What the bytes mean is for others to know.
"""

from __future__ import annotations

import http
from types import TracebackType
from typing import Callable, Iterator, Mapping, Optional, Protocol, Type

from agentstream import threads
from agentstream.cancel import CancelToken
from agentstream.errors import AgentStreamError, Cancelled, ConnectError, LimitExceeded
from agentstream.llm.transport.drain import drain
from agentstream.llm.transport.link import Link
from agentstream.llm.transport.problems import LOW_LEVEL, broken_by
from agentstream.llm.transport.response import StreamResponse
from agentstream.llm.transport.semaphore import FairSemaphore

__all__ = ["Exchange", "Timer"]


class Timer(Protocol):
    """What bounds an exchange in time: it is told how far the exchange is, and cancels `stop`."""

    def queued(self) -> None:
        """The exchange waits for a place in the pool."""

    def connecting(self) -> float:
        """It has one, and connects.

        Returns when that must be over, on `time.monotonic`'s scale.
        """

    def connected(self) -> None:
        """The connection stands; the request goes out."""

    def watch(self, read: Callable[[], bytes]) -> Callable[[], bytes]:
        """`read`, which blocks until the server sends, with a clock around it."""

    def is_alive(self) -> None:
        """Bytes came that are no comment."""


class _Unbounded:
    """No deadlines."""

    def queued(self) -> None:
        pass

    def connecting(self) -> float:
        return threads.NEVER

    def connected(self) -> None:
        pass

    def watch(self, read: Callable[[], bytes]) -> Callable[[], bytes]:
        return read

    def is_alive(self) -> None:
        pass


class Exchange:
    """One request and its answer: a context manager, entered once the headers are here.

    Left without an exception, its connection serves again if the body's end is
    near; left with one, the connection is closed.

    Args:
        send: sends the request over what the link connects; returns its response.
        places: the pool's.
        stop: cancels the exchange from any thread, wherever it is.
        timer: default: none, and so no deadlines.
        resend: send the request again, once and over a new connection, if the
            connection had lain idle and turns out to be stale: closed, closing with a
            408 (RFC 9110, 15.5.9), or with bytes in it that are no answer.  Nobody's
            failure, but the server may have seen the request.
        admit: called with `stop` once there is a place, before anything is sent; returns
            when the request may go out.

    Attributes:
        broken: what ended the body too soon, in words; "" if nothing did.

    Raises (on entering):
        Cancelled: `stop` was cancelled before the headers came; `phase` says where.
        ConnectError: there was no answer.
        ProtocolError: what answered does not speak HTTP.
        ConfigError: the request cannot be sent.
    """

    def __init__(
        self,
        send: Callable[[Link], StreamResponse],
        places: FairSemaphore,
        stop: CancelToken,
        *,
        timer: Optional[Timer] = None,
        resend: bool = True,
        admit: Optional[Callable[[CancelToken], object]] = None,
    ) -> None:
        self._send = send
        self._places = places
        self._stop = stop
        self._timer = _Unbounded() if timer is None else timer
        self._resend = resend
        self._admit = admit
        self._stale = False
        self._placed = False
        self._link: Optional[Link] = None
        self._response: Optional[StreamResponse] = None
        self.broken = ""

    def __enter__(self) -> Exchange:
        try:
            self._open()
        except BaseException:
            self._close(whole=False)
            raise
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._close(whole=kind is None)

    def _open(self) -> None:
        self._timer.queued()
        self._placed = self._places.acquire(self._stop)
        self._check_stop("connect")
        if self._admit is not None:
            self._admit(self._stop)
        while self._response is None:
            self._response = self._try()

    def _try(self) -> Optional[StreamResponse]:
        """The response; None if the request is to be sent again."""
        until = self._timer.connecting()
        link = Link(self._stop, until, self._timer.connected, fresh=self._stale)
        self._link = link
        response: Optional[StreamResponse] = None
        try:
            response = self._send(link)
        except AgentStreamError as error:
            self._check_stop(link.phase)
            unanswered = isinstance(error, ConnectError) and error.outcome == "unknown"
            self._stale = link.foreign or (unanswered and not link.answered)
            if not self._sends_again(link):
                raise
        else:
            self._stale = _says_idle(response)
            if not self._sends_again(link):
                return response
        link.release()
        if response is not None:
            response.close()
        return None

    def _sends_again(self, link: Link) -> bool:
        """True if a stale connection has failed the request; of those sent, true once."""
        if not (link.reused and self._stale and (self._resend or not link.sent)):
            return False
        if link.sent:
            self._resend = False
        return True

    def _check_stop(self, phase: str) -> None:
        if self._stop.cancelled:
            raise Cancelled(f"the request was stopped: {self._stop.reason}", phase=phase) from None

    def _close(self, whole: bool) -> None:
        link, response = self._link, self._response
        self._link = None
        try:
            if link is not None and response is not None and whole:
                drain(response, link)
            elif link is not None:
                link.release()
                if response is not None:
                    response.close()
        finally:
            if self._placed:
                self._placed = False
                self._places.release()

    # --- the answer -------------------------------------------------------------------------

    @property
    def response(self) -> StreamResponse:
        """The response under it."""
        assert self._response is not None, "the exchange has not been entered"
        return self._response

    @property
    def status(self) -> int:
        """The answer's status code."""
        return self.response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        """The answer's headers, whatever the case of their names."""
        return self.response.headers

    def lines(self) -> Iterator[bytes]:
        """The body's lines without their line ends, each the moment it arrives.

        Ends where the body does; `broken` tells if that was too soon.  What
        came before is given out first.

        Raises:
            LimitExceeded: a line, or the body inflated, passed its bound (`Limits`).
            ProtocolError: the body is compressed in a way that was not asked for, or damaged.
        """
        response = self.response
        response.watch = self._watch
        response.progress = self._timer.is_alive
        return response.iter_lines()

    def read(self, limit: int) -> bytes:
        """The whole body, its line ends made LF, the last one left out.

        `broken` tells if it ended too soon.

        Raises:
            LimitExceeded: it has more than `limit` bytes.
            ProtocolError: as `lines`.
        """
        self.response.watch = self._watch
        body = bytearray()
        for data in self.response.pieces():
            self._timer.is_alive()
            body += data
            if len(body) > limit:
                raise LimitExceeded(f"the body passed {limit} bytes", limit="body", phase="stream")
        text = bytes(body)
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return text[:-1] if text.endswith(b"\n") else text

    def read_text(self, limit: int) -> str:
        """Up to `limit` bytes of the body, as text; raises nothing.  For the body of an error."""
        return self.response.read_text(limit)

    def _watch(self, read: Callable[[], bytes]) -> Callable[[], bytes]:
        """Put the clock around the reads, and hold back the error that ends them.

        Lines may be waiting that came before the error: they first.
        """
        watched = self._timer.watch(read)

        def safe() -> bytes:
            if self._stop.cancelled:  # what the socket still holds is nobody's any more
                self.broken = "it was stopped"
                return b""
            try:
                return watched()
            except LOW_LEVEL as error:
                self.broken = broken_by(error)
                return b""

        return safe


def _says_idle(response: StreamResponse) -> bool:
    """True if a server closes a connection because no request came for too long."""
    closes = "close" in response.headers.get("connection", "").lower()
    return closes and response.status_code == http.HTTPStatus.REQUEST_TIMEOUT
