"""One call to a model, from the request to the last delta.

Its attempts and the waits between them, its deadlines, the truth about its ending.
Whether another attempt is due is decided here; only its dialect knows what a server's
words mean, and whether an answer that broke off can be gone on with.  Which socket
they come from is the transport's.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Generator,
    Iterable,
    Iterator,
    List,
    Mapping,
    NoReturn,
    Optional,
    Tuple,
)

from agentstream.cancel import CancelToken
from agentstream.errors import (
    AgentStreamError,
    Cancelled,
    ConfigError,
    LimitExceeded,
    StallTimeout,
    StreamTruncated,
)
from agentstream.llm.accumulator import Accumulator
from agentstream.llm.deadlines import Deadlines
from agentstream.llm.dialect import Decoder, Dialect
from agentstream.llm.messages import Delta, RetryNotice
from agentstream.llm.prices import Prices
from agentstream.llm.settings import Limits, Retries, Timeouts
from agentstream.llm.sse import LOOSE, compact
from agentstream.llm.transport import Exchange, Transport

__all__ = ["Call"]

if TYPE_CHECKING:
    from agentstream.llm.rate_limit.admission import Admission
    from agentstream.llm.rate_limit.limit import RateLimit

#: The body of an HTTP error may take this long and be this long.
_ERROR_BODY_S = 2.0
_ERROR_BODY = 65536
#: Waits for a server that is loading its model.
_LOADING_FIRST_S, _LOADING_MOST_S = 0.25, 2.0
#: So often one call's request is changed because the server refuses a part of it.
_MOST_AMENDMENTS = 4


class Call:
    """One call.  `run` may be iterated once, by one thread.

    Args:
        transport: where it goes.
        dialect: the request, and how its answer is read.
        timeouts, retries, limits, prices, rate_limit: the client's.

    Attributes:
        answer: the sum of what has come.
    """

    def __init__(
        self,
        transport: Transport,
        dialect: Dialect,
        *,
        timeouts: Timeouts,
        retries: Retries,
        limits: Limits,
        prices: Optional[Prices] = None,
        rate_limit: Optional[RateLimit] = None,
    ) -> None:
        self._transport = transport
        self._dialect = dialect
        self._timeouts = timeouts
        self._retries = retries
        self._limits = limits
        self._prices = prices
        self._rate_limit = rate_limit
        self._cancel = CancelToken()
        self.answer = Accumulator(dialect.model)
        self._tries = 0  # that counted as retries
        self._loading_tries = 0
        self._amendments = 0
        self._stop = CancelToken()  # this attempt's: cancelled by `cancel` and by the deadlines
        self._deadlines = Deadlines(timeouts)
        self._size = 0
        self._arguments = 0

    def run(self, cancel: CancelToken) -> Generator[Delta, None, None]:
        """Yield the deltas; `cancel` ends the call from any thread.

        Raises:
            AgentStreamError: whichever applies, `partial` holding what had arrived.
        """
        self._cancel = cancel
        self._waiting_since = self.answer.start()
        self._deadlines.start(self._waiting_since)
        try:
            yield from self._attempts()
            self.answer.end()
        except AgentStreamError as error:
            self.answer.end()
            error.partial = self.answer.response()
            raise
        finally:
            self._deadlines.stop()

    # --- attempts ---------------------------------------------------------------------------

    def _attempts(self) -> Iterator[Delta]:
        while True:
            try:
                yield from self._attempt()
                if not self._dialect.goes_on:
                    return
                continue
            except AgentStreamError as error:
                notice = self._next_try(error)
                if notice is None:
                    final = self._dialect.final(error)
                    if final is error:
                        raise
                    raise final from error
            yield Delta(retry=notice)
            self._pause(notice.delay_s)

    def _next_try(self, error: AgentStreamError) -> Optional[RetryNotice]:
        """What to do about a failed attempt; None: nothing, raise it."""
        if self._cancel.cancelled or (self.answer.begun and not self._may_resume(error)):
            return None
        if self._amendments < _MOST_AMENDMENTS and self._dialect.amend(error):
            self._amendments += 1
            return self._notice(error, 0.0)
        if self._dialect.is_loading(error):
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
        if time.monotonic() + delay >= self._deadlines.total_due:
            return None  # there will be no time left to use it
        self._tries += 1
        return self._notice(error, delay)

    def _next_try_loading(self, error: AgentStreamError) -> Optional[RetryNotice]:
        delay = min(_LOADING_MOST_S, _LOADING_FIRST_S * 2.0**self._loading_tries)
        now = time.monotonic()
        waited = now + delay - self._waiting_since
        if self._timeouts.first_token is not None and waited > self._timeouts.first_token:
            return None
        if now + delay >= self._deadlines.total_due:
            return None
        self._loading_tries += 1
        return self._notice(error, delay)

    def _notice(self, error: AgentStreamError, delay: float) -> RetryNotice:
        attempt = self._tries + self._loading_tries + self._amendments
        resumed = self.answer.begun  # for else there would be no further try
        notice = RetryNotice(attempt, delay, type(error).__name__, str(error), resumed)
        notice.cause = error.with_traceback(None)  # which leads to who holds the notice
        return notice

    def _may_resume(self, error: AgentStreamError) -> bool:
        if not self._dialect.may_resume(error):
            return False
        if error.phase == "stream":
            self._waiting_since = time.monotonic()
        return True

    def _pause(self, seconds: float) -> None:
        self._cancel.wait(seconds * self._transport.pace)
        if self._cancel.cancelled:
            raise self._stopped("connect")

    def _attempt(self) -> Iterator[Delta]:
        self._dialect = dialect = self._dialect.prepare(self._ask)
        body = dialect.body()
        try:
            data = None if body is None else json.dumps(body, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"the request cannot be written as JSON: {error}") from None
        with (
            self._admission(body) as admission,
            self._exchange(data, dialect.url, dialect.headers, admission) as exchange,
        ):
            if admission is not None:
                admission.heard(exchange.headers)
            if not 200 <= exchange.status < 300:
                text = self._read_text(exchange, _ERROR_BODY_S, _ERROR_BODY)
                raise self._placed(dialect.status_error(exchange.status, exchange.headers, text))
            try:
                yield from self._read(exchange)
            finally:
                self.answer.identify(dialect.response_id, dialect.native_finish)

    def _admission(
        self, body: Optional[Mapping[str, Any]]
    ) -> contextlib.AbstractContextManager[Optional[Admission]]:
        """What the attempt has to do with the rate limit, if there is one and a model is asked."""
        if self._rate_limit is None or body is None:
            return contextlib.nullcontext()
        from agentstream.llm.rate_limit.admission import Admission  # noqa: PLC0415 - few need it

        return Admission(
            self._rate_limit, body, self._deadlines, self._retries, lambda: self.answer.usage
        )

    def _placed(self, error: AgentStreamError) -> AgentStreamError:
        from agentstream.llm.where import placed  # noqa: PLC0415 - only errors need it

        url = self._transport.shown(self._dialect.url)
        return placed(error, url, self._transport.key_source)

    @contextlib.contextmanager
    def _exchange(
        self,
        body: Optional[bytes],
        url: Optional[str],
        headers: Optional[Mapping[str, str]],
        admission: Optional[Admission] = None,
    ) -> Iterator[Exchange]:
        """One exchange, which `cancel` and the deadlines end."""
        self._stop = stop = CancelToken()
        self._deadlines.begin_attempt(stop)
        key = self._cancel.add_callback(stop.cancel)
        try:
            with self._transport.exchange(
                body,
                stop,
                url=url,
                headers=headers,
                timer=self._deadlines,
                admit=None if admission is None else admission.enter,
            ) as exchange:
                yield exchange
        except Cancelled as error:
            if not stop.cancelled:
                raise
            raise self._stopped(error.phase) from None
        finally:
            self._cancel.remove_callback(key)

    def _ask(self, url: str, seconds: float, limit: int) -> Tuple[int, Mapping[str, str], str]:
        """See `dialect.Ask`."""
        with self._exchange(None, url, None) as exchange:
            text = self._read_text(exchange, seconds, limit)
            return exchange.status, exchange.headers, text

    def _read_text(self, exchange: Exchange, seconds: float, limit: int) -> str:
        self._deadlines.arm("body", seconds)
        text = exchange.read_text(limit)
        if self._cancel.cancelled:
            raise self._stopped("headers")
        return text

    def _stopped(self, phase: str) -> AgentStreamError:
        """Why this attempt was stopped.  A cancel comes before all else."""
        if self._cancel.cancelled:
            return Cancelled(f"the call was stopped: {self._cancel.reason}", phase=phase)
        return self._deadlines.error(phase)

    # --- the body ---------------------------------------------------------------------------

    def _read(self, exchange: Exchange) -> Iterator[Delta]:
        """An iterator over the answer's deltas: a stream's, or one that came whole."""
        self._dialect.begin(self.answer)
        decoder = self._dialect.decoder(self._limits.event)
        content_type = exchange.headers.get("content-type", "")
        lines = exchange.lines()
        first = next((line for line in lines if line), b"")
        lines = itertools.chain([first], lines)
        if not decoder.fits(first, content_type):
            return self._read_whole(exchange, lines, content_type)
        if decoder.any_line_is_life:
            lines = _each(lines, self._deadlines.is_alive)
        return self._read_events(exchange, decoder, lines)

    def _read_events(
        self, exchange: Exchange, decoder: Decoder, lines: Iterable[bytes]
    ) -> Iterator[Delta]:
        dialect = self._dialect
        read = dialect.read
        stop = self._stop
        idle_until = 0.0
        for event, data in decoder.decode_data(lines):
            if stop.cancelled:
                break
            delta = read(event, data)
            if delta is not None:
                yield self._take(delta)
                idle_until = 0.0
            else:
                idle_until = self._deadlines.idle(idle_until)
            if dialect.ended:
                break
        self._raise_failure()
        if not dialect.ended and self._cancel.cancelled:
            if dialect.holds_back:  # words that came before the cancel
                yield from self._flush("")
            raise self._stopped("stream")
        yield from self._flush("" if dialect.ended else decoder.tail())
        self._raise_failure()
        self._judge_ending(exchange.broken)
        if decoder.invalid_utf8:
            self.answer.warn("the stream held bytes that are not UTF-8; each became U+FFFD")
        self._note_oddities()

    def _read_whole(
        self, exchange: Exchange, lines: Iterable[bytes], content_type: str
    ) -> Iterator[Delta]:
        """A server that answers with one JSON object though asked to stream."""
        most = self._limits.event
        pieces: List[bytes] = []
        joined = size = 0
        for line in lines:
            pieces.append(line)
            if len(pieces) > joined + LOOSE:
                joined = compact(pieces, joined)
            size += len(line) + 1
            if most is not None and size > most:
                self._exceeded("event", most, "bytes")
        if self._stop.cancelled:
            raise self._stopped("stream")
        if exchange.broken:
            raise self._truncated(exchange.broken)
        text = b"\n".join(pieces).decode("utf-8", "replace")
        delta = self._dialect.read_whole(text)
        if delta is not None:
            yield self._take(delta)
        self._raise_failure()
        if delta is None:
            raise self._placed(self._dialect.wrong_content(content_type, text))
        yield from self._flush("")
        self._note_oddities()

    def _raise_failure(self) -> None:
        error = self._dialect.error()
        if error is not None:
            raise error

    def _flush(self, tail: str) -> Iterator[Delta]:
        rest = self._dialect.flush(tail)
        if rest is not None:
            yield self._take(rest)

    def _take(self, delta: Delta) -> Delta:
        """Hold the delta against the limits, add it to the answer, move from clock to clock.

        Returns it, its usage with what it cost.
        """
        self._size += len(delta[0]) + len(delta[1])
        if self._limits.answer is not None and self._size > self._limits.answer:
            self._exceeded("answer", self._limits.answer, "characters")
        for piece in delta[2]:
            self._arguments += 0 if piece.replaces else len(piece.arguments)
            most = self._limits.tool_arguments
            if most is not None and self._arguments > most:
                self._exceeded("tool_arguments", most, "characters")
        if delta[4] is not None and self._prices is not None:
            delta = delta._replace(usage=self._prices.priced(self._dialect.model, delta[4]))
        self.answer.add(delta)
        if not self._deadlines.streaming and (self.answer.begun or self._dialect.holds_back):
            self._deadlines.begin_stream()
        if delta[3]:
            self._deadlines.begin_tail()
        return delta

    @staticmethod
    def _exceeded(limit: str, most: int, unit: str) -> NoReturn:
        raise LimitExceeded(
            f"the answer passed {most} {unit} (Limits.{limit})", limit=limit, phase="stream"
        )

    # --- the ending -------------------------------------------------------------------------

    def _judge_ending(self, broken: str) -> None:
        """Raise if the answer is not whole.

        The stream's own mark or a finish_reason is the only sign that it is.
        """
        if self._dialect.ended:
            return
        if self.answer.finish_reason is not None:
            if self._deadlines.expired == "total":
                raise self._stopped("stream")
            self.answer.warn(f"the stream ended without {self._dialect.end_mark}")
            return
        if self._deadlines.expired:
            raise self._stopped("stream")
        raise self._truncated(broken)

    def _truncated(self, broken: str) -> StreamTruncated:
        """The error for a body that ended too soon; `broken` as `Exchange` has it."""
        return StreamTruncated(
            f"the stream ended without {self._dialect.end_mark} and without a finish_reason: "
            + (broken or "the server closed it"),
            phase="stream",
            retryable=True,
            outcome="unknown",
        )

    def _note_oddities(self) -> None:
        if self._dialect.goes_on:
            return
        for warning in self._dialect.warnings():
            self.answer.warn(warning)
        if not (self.answer.begun or self._dialect.cut):
            self.answer.warn("the answer is empty")


def _each(lines: Iterable[bytes], call: Callable[[], object]) -> Iterator[bytes]:
    for line in lines:
        call()
        yield line
