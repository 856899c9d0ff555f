"""One call to a model, from the request to the last delta.

Its attempts and the waits between them, its clocks, the truth about its ending.
What the bytes mean is sse.py's and chunks.py's; which socket they come from is the
transport's; whether another try is due is decided here and nowhere else.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from typing import Any, Callable, Dict, Generator, Iterator, NoReturn, Optional

from agentstream.cancel import CancelToken
from agentstream.errors import (
    AgentStreamError,
    Cancelled,
    ConfigError,
    LimitExceeded,
    ProtocolError,
    StallTimeout,
    StatusError,
    StreamTruncated,
)
from agentstream.llm.accumulator import Accumulator
from agentstream.llm.chat import failures
from agentstream.llm.chat.chunks import ChunkReader, parse_chunk
from agentstream.llm.deadlines import Deadlines
from agentstream.llm.llama.resume import Resumption
from agentstream.llm.messages import ChatRequest, Delta, RetryNotice
from agentstream.llm.secrets import Redactor
from agentstream.llm.settings import Limits, Retries, Timeouts
from agentstream.llm.sse import EventDecoder
from agentstream.llm.transport import Exchange, Transport

__all__ = ["Call"]

#: The body of an HTTP error may take this long and be this long.
_ERROR_BODY_S = 2.0
_ERROR_BODY = 65536
#: Waits for a server that is loading its model.
_LOADING_FIRST_S, _LOADING_MOST_S = 0.25, 2.0

_FIELDS = (b"data", b"event", b"id", b"retry", b"error", b":", b"\xef\xbb\xbf")


class Call:
    """One call.  `run` may be iterated once, by one thread.

    Args:
        transport: where it goes.
        request: what is asked.
        model: the client's model, for requests that name none.
        body: further fields of the body.
        timeouts, retries, limits: the client's.
        redact: takes secrets out of what errors carry.
        usage: ask for usage; `on_usage_refused` is told if the server refuses the field.
        is_loading: True for an answer of a server that is still loading its model.
        resume: go on with an answer that breaks off; for servers that can continue one.
    """

    def __init__(
        self,
        transport: Transport,
        request: ChatRequest,
        *,
        model: str,
        body: Dict[str, Any],
        timeouts: Timeouts,
        retries: Retries,
        limits: Limits,
        redact: Redactor,
        usage: bool = True,
        on_usage_refused: Callable[[], object] = lambda: None,
        is_loading: Callable[[StatusError], bool] = lambda _: False,
        resume: bool = False,
    ) -> None:
        self._transport = transport
        self._request = request
        self._body: Dict[str, Any] = {**request.to_body(model), **body, **request.extra}
        self._timeouts = timeouts
        self._retries = retries
        self._limits = limits
        self.cancel = CancelToken()
        self._redact = redact
        self._usage = usage
        self._on_usage_refused = on_usage_refused
        self._is_loading = is_loading
        self.answer = Accumulator(str(self._body["model"]))
        self._resumption = Resumption(self._body, self.answer) if resume else None
        self._tries = 0  # that counted as retries
        self._loading_tries = 0
        self._stop = CancelToken()  # this attempt's: cancelled by `cancel` and by the clocks
        self._clocks = Deadlines(timeouts)
        self._size = 0
        self._arguments = 0

    def run(self, cancel: CancelToken) -> Generator[Delta, None, None]:
        """Yield the deltas; `cancel` ends the call from any thread.

        Raises:
            AgentStreamError: whichever applies, `partial` holding what had arrived.
        """
        self.cancel = cancel
        self._waiting_since = self.answer.start()
        self._clocks.start(self._waiting_since)
        try:
            yield from self._attempts()
            self.answer.end()
        except AgentStreamError as error:
            self.answer.end()
            error.partial = self.answer.response()
            raise
        finally:
            self._clocks.stop()

    # --- attempts ---------------------------------------------------------------------------

    def _attempts(self) -> Iterator[Delta]:
        while True:
            try:
                yield from self._attempt()
                return
            except AgentStreamError as error:
                notice = self._next_try(error)
                if notice is None:
                    if self._resumption is not None:
                        self._resumption.judge(error)
                    raise
            yield Delta(retry=notice)
            self._pause(notice.delay_s)

    def _next_try(self, error: AgentStreamError) -> Optional[RetryNotice]:
        """What to do about a failed attempt; None: nothing, raise it."""
        if self.cancel.cancelled or (self.answer.begun and not self._may_resume(error)):
            return None
        if isinstance(error, StatusError):
            if self._usage and failures.refuses_stream_options(error):
                self._usage = False
                self._on_usage_refused()
                return self._notice(error, 0.0)
            if self._is_loading(error):
                return self._next_try_loading(error)
        if not (error.retryable or isinstance(error, StallTimeout)):
            return None
        if self._tries >= self._retries.attempts:
            return None
        delay = self._retries.delay(self._tries)
        asked: Optional[float] = getattr(error, "retry_after", None)
        if asked is not None:
            if asked > self._retries.max_retry_after:
                return None
            delay = max(delay, asked)
        if time.monotonic() + delay >= self._clocks.total_due:
            return None  # there will be no time left to use it
        self._tries += 1
        return self._notice(error, delay)

    def _next_try_loading(self, error: StatusError) -> Optional[RetryNotice]:
        delay = min(_LOADING_MOST_S, _LOADING_FIRST_S * 2.0**self._loading_tries)
        now = time.monotonic()
        waited = now + delay - self._waiting_since
        if self._timeouts.first_token is not None and waited > self._timeouts.first_token:
            return None
        if now + delay >= self._clocks.total_due:
            return None
        self._loading_tries += 1
        return self._notice(error, delay)

    def _notice(self, error: AgentStreamError, delay: float) -> RetryNotice:
        attempt = self._tries + self._loading_tries + (not self._usage)
        resumed = self.answer.begun  # for else there would be no further try
        return RetryNotice(attempt, delay, type(error).__name__, str(error), resumed)

    def _may_resume(self, error: AgentStreamError) -> bool:
        if self._resumption is None or not self._resumption.may_follow(error):
            return False
        if error.phase == "stream":
            self._waiting_since = time.monotonic()
        return True

    def _pause(self, seconds: float) -> None:
        self.cancel.wait(seconds)
        if self.cancel.cancelled:
            raise self._stopped("connect")

    def _attempt(self) -> Iterator[Delta]:
        try:
            body = json.dumps(self._to_send(), allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"the request cannot be written as JSON: {error}") from None
        with self._exchange(body) as exchange:
            if not 200 <= exchange.status < 300:
                raise self._status_error(exchange)
            yield from self._read(exchange)

    @contextlib.contextmanager
    def _exchange(self, body: Optional[bytes], url: Optional[str] = None) -> Iterator[Exchange]:
        """One exchange, which `cancel` and the clocks end."""
        self._stop = stop = CancelToken()
        self._clocks.begin_attempt(stop)
        key = self.cancel.add_callback(stop.cancel)
        try:
            with self._transport.exchange(body, stop, url=url, deadlines=self._clocks) as exchange:
                yield exchange
        except Cancelled as error:
            if not stop.cancelled:
                raise
            raise self._stopped(error.phase) from None
        finally:
            self.cancel.remove_callback(key)

    def _to_send(self) -> Dict[str, Any]:
        body = self._body if self._resumption is None else self._resumption.body()
        if self._usage and "stream_options" not in body:
            body = {**body, "stream_options": {"include_usage": True}}
        return {name: value for name, value in body.items() if value is not None}

    def _status_error(self, exchange: Exchange) -> AgentStreamError:
        self._clocks.arm("body", _ERROR_BODY_S)
        text = exchange.read_text(_ERROR_BODY)
        if self.cancel.cancelled:
            raise self._stopped("headers")
        if exchange.status == 407:
            return failures.proxy_refused(text, redact=self._redact)
        return failures.status_error(exchange.status, exchange.headers, text, redact=self._redact)

    def _check_stop(self, phase: str) -> None:
        if self._stop.cancelled:
            raise self._stopped(phase)

    def _stopped(self, phase: str) -> AgentStreamError:
        """Why this attempt was stopped.  A cancel comes before all else."""
        if self.cancel.cancelled:
            return Cancelled(f"the call was stopped: {self.cancel.reason}", phase=phase)
        return self._clocks.error(phase)

    # --- the body ---------------------------------------------------------------------------

    def _read(self, exchange: Exchange) -> Iterator[Delta]:
        content_type = exchange.headers.get("content-type", "")
        lines = exchange.lines()
        first = next((line for line in lines if line), b"")
        if self._is_foreign(first, content_type):
            yield from self._read_whole(exchange, itertools.chain([first], lines), content_type)
            return
        decoder = EventDecoder(max_event=self._limits.event, error_field=True)
        reader = self._reader()
        stop = self._stop
        done = False
        for event, data in decoder.decode_data(itertools.chain([first], lines)):
            if stop.cancelled:
                break
            if data[:1] != "{" and data.strip() == "[DONE]":
                done = True
                break
            delta = self._to_delta(reader, event, data)
            if delta is not None:
                self._take(delta)
                yield delta
            if reader.failure is not None:
                self._raise_stream_error(data, event, reader.failure)
        if not done and self.cancel.cancelled:
            raise self._stopped("stream")
        done = done or decoder.tail().strip() == "[DONE]"
        # What waits for its other half will come again, if the answer goes on.
        whole = self._resumption is None or done or self.answer.finish_reason is not None
        if whole:
            yield from self._flush(reader)
        self._judge_ending(done, exchange.broken)
        self._note_oddities(decoder, reader)

    def _reader(self) -> ChunkReader:
        return ChunkReader() if self._resumption is None else self._resumption.reader()

    def _to_delta(self, reader: ChunkReader, event: str, data: str) -> Optional[Delta]:
        try:
            if event == "error":
                self._raise_stream_error(data, event)
            chunk = parse_chunk(data)
            if chunk.__class__ is not dict:
                return None  # null, a list, a number: some proxies send them, none means anything
            if "error" in chunk or not chunk.get("choices"):
                if failures.is_error(chunk):
                    last = reader.read(chunk)
                    if last is not None:  # its usage counts; what it says was not delivered
                        self.answer.add(Delta(usage=last.usage, model=last.model))
                    self._raise_stream_error(data, event, chunk)
            return reader.read(chunk)
        except ProtocolError as error:
            raw = failures.snippet(self._redact(data))
            raise ProtocolError(f"{error}: {raw[:200]}", raw=raw, phase="stream") from None

    def _raise_stream_error(self, data: str, event: str, payload: Any = None) -> NoReturn:
        if payload is None:
            try:
                payload = parse_chunk(data)
            except ProtocolError:
                payload = None
        raise failures.stream_error(payload, event, data, redact=self._redact)

    def _flush(self, reader: ChunkReader) -> Iterator[Delta]:
        rest = reader.flush()
        if rest is not None:
            self._take(rest._replace(tool_calls=()))
            # Corrections of calls: their arguments have been held against the limits.
            self.answer.add(Delta(tool_calls=rest.tool_calls))
            yield rest

    def _take(self, delta: Delta) -> None:
        """Hold the delta against the limits, add it to the answer, move from clock to clock."""
        self._size += len(delta[0]) + len(delta[1])
        if self._limits.answer is not None and self._size > self._limits.answer:
            self._exceeded("answer", self._limits.answer, "characters")
        for piece in delta[2]:
            self._arguments += len(piece.arguments)
            most = self._limits.tool_arguments
            if most is not None and self._arguments > most:
                self._exceeded("tool_arguments", most, "characters")
        self.answer.add(delta)
        if not self._clocks.streaming and self.answer.begun:
            self._clocks.begin_stream()
        if delta[3]:
            self._clocks.begin_tail()

    @staticmethod
    def _exceeded(limit: str, most: int, unit: str) -> NoReturn:
        raise LimitExceeded(
            f"the answer passed {most} {unit} (Limits.{limit})", limit=limit, phase="stream"
        )

    def _judge_ending(self, done: bool, broken: str) -> None:
        """Raise if the answer is not whole.  [DONE] or a finish_reason is the only sign of it."""
        if done:
            return
        if self.answer.finish_reason is not None:
            if self._clocks.expired == "total":
                raise self._stopped("stream")
            self.answer.warn("the stream ended without [DONE]")
            return
        if self._clocks.expired:
            raise self._stopped("stream")
        raise _truncated(broken)

    def _note_oddities(self, decoder: EventDecoder, reader: ChunkReader) -> None:
        answer = self.answer
        if decoder.invalid_utf8:
            answer.warn("the stream held bytes that are not UTF-8; each became U+FFFD")
        for oddity in reader.oddities():
            answer.warn(oddity)
        if not (answer.begun or reader.cut):
            answer.warn("the answer is empty")

    def _is_foreign(self, first: bytes, content_type: str) -> bool:
        """True if the body is no event stream, whatever its Content-Type claims."""
        if first[:1] in (b"{", b"["):
            return True
        if not first or "event-stream" in content_type.lower():
            return first[:1] == b"<"
        return not first.startswith(_FIELDS)

    def _read_whole(
        self, exchange: Exchange, lines: Iterator[bytes], content_type: str
    ) -> Iterator[Delta]:
        """A server that answers with one JSON object though asked to stream."""
        most = self._limits.event
        pieces = []
        size = 0
        for line in lines:
            pieces.append(line)
            size += len(line) + 1
            if most is not None and size > most:
                self._exceeded("event", most, "bytes")
        self._check_stop("stream")
        if exchange.broken:
            raise _truncated(exchange.broken)
        text = b"\n".join(pieces).decode("utf-8", "replace")
        try:
            body = parse_chunk(text)
        except ProtocolError:
            body = None
        if isinstance(body, dict):
            if failures.is_error(body):
                self._raise_stream_error(text, "message", body)
            reader = self._reader()
            delta = reader.read_whole(body)
            if reader.failure is not None:
                self._raise_stream_error(text, "message", reader.failure)
            if delta is not None:
                self._take(delta)
                yield delta
                yield from self._flush(reader)
                self._note_oddities(EventDecoder(), reader)
                return
        raise failures.wrong_content(content_type, text, redact=self._redact)


def _truncated(broken: str) -> StreamTruncated:
    """The error for a body that ended too soon; `broken` as `Exchange` has it."""
    return StreamTruncated(
        "the stream ended without [DONE] and without a finish_reason: "
        + (broken or "the server closed it"),
        phase="stream",
        retryable=True,
        outcome="unknown",
    )
