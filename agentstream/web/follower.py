"""follow: the events of a remote run, through reconnects, each once.

The stream is read with sseclient-py.  It gets whole events only, their line
ends made LF: an event that the connection's end cut short it would hand out as
it is, of mixed line ends it makes empty events, and an `id` without data, which
says where a stream begins, it does not tell.
"""

from __future__ import annotations

import json
import logging
import time
import urllib.parse
from typing import Callable, Iterable, Iterator, List, Optional

import sseclient

from agentstream import threads
from agentstream.cancel import CancelToken
from agentstream.errors import (
    AgentStreamError,
    Cancelled,
    ConfigError,
    ConnectError,
    ProtocolError,
)
from agentstream.events.model import TERMINAL, Event, EventType
from agentstream.llm.chat import failures
from agentstream.llm.secrets import Redactor
from agentstream.llm.settings import Limits, Retries
from agentstream.llm.transport import Exchange, Transport

__all__ = ["follow"]

logger = logging.getLogger("agentstream.web")

_CONNECT_S = 10.0
#: A server that sends heartbeats is never silent for so long.
_SILENCE_S = 60.0


def follow(
    url: str,
    token: Optional[str] = None,
    after: Optional[int] = None,
    *,
    cancel: Optional[CancelToken] = None,
    verify: bool | str = True,
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

    Raises:
        StatusError: the server refuses: no such run, a wrong token.
        ProtocolError: what answers is no event stream.
        Cancelled: `cancel` was called.
        ConfigError: the URL cannot be used.
    """
    if after is not None and after < 0:
        raise ConfigError(f"after must be a whole number from 0 on, not {after!r}")
    return _Follower(_stream_url(url), token, after, cancel or CancelToken(), verify).events()


def _stream_url(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    path = parts.path.rstrip("/")
    if not path.endswith("/stream"):
        path += "/stream" if "/workflows/" in path else "/events/stream"
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, "", ""))


class _Follower:
    def __init__(
        self,
        url: str,
        token: Optional[str],
        after: Optional[int],
        cancel: CancelToken,
        verify: bool | str,
    ) -> None:
        self._url = url
        self._one_run = "/workflows/" in url
        self._after = after
        self._cancel = cancel
        self._retries = Retries(backoff=0.2, max_backoff=5.0)
        self._redact = Redactor([token] if token else [])
        self._transport = Transport(url, api_key=token, headers={}, verify=verify, limits=Limits())
        self._failed = 0  # times in a row

    def events(self) -> Iterator[Event]:
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
            self._transport.close()

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
        stop = CancelToken()
        key = self._cancel.add_callback(stop.cancel)
        query = "" if self._after is None else f"?after={self._after}"
        silence = _Silence(stop)
        try:
            with self._transport.exchange(
                None, stop, url=self._url + query, deadlines=silence
            ) as exchange:
                self._check(exchange)
                yield from self._parse(exchange.lines(), silence)
                if exchange.broken and not self._cancel.cancelled:
                    logger.info("the connection broke: %s", exchange.broken)
        except Cancelled:
            self._check_cancel()
            raise ConnectError("the server did not answer in time", retryable=True) from None
        finally:
            silence.over()
            self._cancel.remove_callback(key)
        self._check_cancel()

    def _check(self, exchange: Exchange) -> None:
        if exchange.status == 204:
            raise _Over
        if exchange.status != 200:
            text = exchange.read_text(65536)
            raise failures.status_error(
                exchange.status, exchange.headers, text, redact=self._redact
            )
        content_type = exchange.headers.get("content-type", "")
        if "event-stream" not in content_type:
            raise failures.wrong_content(
                content_type, exchange.read_text(4096), redact=self._redact
            )
        place = exchange.headers.get("last-event-id", "")
        if self._after is None and place.isascii() and place.isdigit() and len(place) <= 18:
            self._after = int(place)  # where a stream of what is new began

    def _parse(self, lines: Iterable[bytes], silence: _Silence) -> Iterator[Event]:
        whole = self._whole_events(lines, silence)
        for sent in sseclient.SSEClient(whole).events():
            # Some of what a socket held may be left; more must not be handed out.
            self._check_cancel()
            try:
                event = Event.from_dict(json.loads(sent.data))
                place = self._place(event)
            except (ValueError, KeyError, TypeError):
                raise ProtocolError("an event of the stream cannot be read") from None
            if self._after is not None and place <= self._after:
                continue
            self._after = place
            yield event

    def _place(self, event: Event) -> int:
        """Where one is after an event; what is missed is not asked for again."""
        if event.type is EventType.EVENTS_MISSED:
            return int(event.data["last"])
        return int((event.offset if self._one_run else event.position) or 0)

    def _whole_events(self, lines: Iterable[bytes], silence: _Silence) -> Iterator[bytes]:
        """Whole events as bytes, with LF line ends; what the end cuts off is dropped."""
        pending: List[bytes] = []
        for line in lines:
            silence.line_came()
            if line:
                pending.append(line)
                continue
            if any(field.startswith(b"data") for field in pending):
                text = b"\n".join(pending).decode("utf-8", "replace")
                yield text.encode() + b"\n\n"
            else:
                self._note_start(pending)
            pending.clear()

    def _note_start(self, fields: List[bytes]) -> None:
        for field in fields:
            name, _, value = field.partition(b":")
            if name == b"id" and self._after is None and value.strip().isdigit():
                self._after = int(value)


class _Silence:
    """The deadlines of one connection: to be made, and then between any two lines."""

    def __init__(self, stop: CancelToken) -> None:
        self._alarm = threads.Alarm(lambda _: stop.cancel("silence"), grain=_SILENCE_S)

    def queued(self) -> None:
        pass

    def connecting(self) -> float:
        threads.arm(self._alarm, time.monotonic() + _CONNECT_S)
        return self._alarm.due

    def connected(self) -> None:
        pass

    def watch(self, read: Callable[[], bytes]) -> Callable[[], bytes]:
        self.line_came()  # the headers are here
        return read

    def is_alive(self) -> None:
        pass

    def line_came(self) -> None:
        self._alarm.due = time.monotonic() + _SILENCE_S

    def over(self) -> None:
        self._alarm.stop()


class _Over(Exception):
    """204: the run has ended, and all of it has been read."""
