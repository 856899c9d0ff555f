"""FallbackCall: one call of a client that is made of clients.

It changes over before an answer's first delta and never behind it.  What is told of a
change is a `FallbackNotice` in the stream.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from typing import Generator, Iterator, List, NamedTuple, Optional, Set, Tuple, Type, Union

from agentstream import threads
from agentstream.cancel import CancelToken
from agentstream.errors import (
    AgentStreamError,
    AuthError,
    BadRequest,
    Cancelled,
    ConfigError,
    ConnectError,
    DeadlineExceeded,
    FirstTokenTimeout,
)
from agentstream.llm.accumulator import Accumulator
from agentstream.llm.client import ChatClient, signature_of
from agentstream.llm.history import without_state
from agentstream.llm.messages import ChatRequest, Delta, FallbackNotice, RetryNotice
from agentstream.llm.pauses import Pauses, Ticket
from agentstream.llm.stream import as_delta_stream
from agentstream.results import ChatResponse

__all__ = ["ENDS", "FallbackCall", "Rules", "total_of", "with_earlier"]

logger = logging.getLogger("agentstream.llm.fallback")

#: What another server would most likely say too: only who names it has it fall over.
_SAID_BY_ALL = (BadRequest, AuthError)
#: What ends a call, whoever is asked.
ENDS = (Cancelled, DeadlineExceeded)


class Rules(NamedTuple):
    """What a `FallbackClient` was told."""

    clients: Tuple[ChatClient, ...]
    on: Tuple[Type[AgentStreamError], ...]
    patience: Optional[float]
    total: Optional[float]

    def falls_over(self, error: AgentStreamError, *, has_time: bool = False) -> bool:
        """True if another client is to be asked after `error`.

        Args:
            has_time: the call's own time is not over: a client's may be.
        """
        if isinstance(error, DeadlineExceeded) and has_time:
            return FirstTokenTimeout in self.on  # which it comes to: there is no delta yet
        if isinstance(error, ENDS) or not isinstance(error, (*self.on, ConfigError)):
            return False
        named = [kind for kind in self.on if issubclass(kind, _SAID_BY_ALL)]
        return not isinstance(error, _SAID_BY_ALL) or isinstance(error, tuple(named))


class _Answer(Accumulator):
    """The answer of a call, which is that of the client that is asked now."""

    __slots__ = ("_now", "_signature")

    def __init__(self, model: str, provider: str) -> None:
        super().__init__(model, provider)
        self.follow(Accumulator(model, provider), "")

    def follow(self, answer: Accumulator, signature: str) -> None:
        """From now on the answer is that one; `signature` says whose, where its state does not."""
        self._now = answer
        self._signature = signature

    @property
    def begun(self) -> bool:
        return self._now.begun

    @property
    def finish_reason(self) -> Optional[str]:
        return self._now.finish_reason

    @property
    def goes_on(self) -> bool:
        return self._now.goes_on

    def warn(self, warning: str) -> None:
        self._now.warn(warning)

    def text(self) -> str:
        return self._now.text()

    def texts(self) -> List[str]:
        return self._now.texts()

    def response(self) -> ChatResponse:
        """The sum so far; its times count from the call's beginning, not from the client's."""
        response = self._now.response()
        before = max(0.0, self._now.started - self.started)
        first, state = response.first_token_s, response.provider_state
        if state is not None and "origin" not in state:
            state = {**state, "origin": self._signature}
        return response._replace(
            first_token_s=None if first is None else first + before,
            duration_s=response.duration_s + before,
            provider_state=state,
        )


class FallbackCall:
    """One call: its clients, one after the other.

    Args:
        rules: the client's.
        pauses: how its clients stand.
        request: what is asked.

    Attributes:
        answer: that of the client that is asked now.
    """

    def __init__(self, rules: Rules, pauses: Pauses, request: ChatRequest) -> None:
        first = rules.clients[0]
        self.answer = _Answer(request.model or first.model, first.provider)
        self._rules = rules
        self._pauses = pauses
        self._request = request
        self._asked: Set[int] = set()
        self._errors: List[AgentStreamError] = []
        self._took_paused = False
        self._due = threads.NEVER

    def run(self, cancel: CancelToken) -> Generator[Delta, None, None]:
        """Yield the deltas of the client that answers; `cancel` ends the call from any thread.

        Raises:
            AgentStreamError: as `FallbackClient.stream_deltas` has it.
        """
        started = self.answer.start()
        if self._rules.total is not None:
            self._due = started + self._rules.total
        ticket, notice = self._next(), None
        while ticket is not None:
            try:
                if notice is not None:
                    yield Delta(retry=notice)
                yield from self._ask(ticket, cancel)
                return
            except AgentStreamError as error:
                following, notice = self._after(ticket, error)
            finally:
                self._pauses.left(ticket)
            ticket = following

    def _next(self) -> Optional[Ticket]:
        """Leave to ask the next client; None if none is left."""
        ticket = self._pauses.take(self._asked, paused=False)
        if ticket is None and not self._took_paused:
            self._took_paused = True
            ticket = self._pauses.take(self._asked, paused=True)
        return ticket

    def _ask(self, ticket: Ticket, cancel: CancelToken) -> Iterator[Delta]:
        """Yield a client's deltas; those before the first that counts once that is there."""
        client = self._rules.clients[ticket.place]
        request = self._request_for(ticket.place)
        self._asked.add(ticket.place)
        with self._in_time(client, cancel) as token:
            deltas = client.stream_deltas(request, cancel=token)
            stream = as_delta_stream(deltas, request.model or client.model, client.provider)
            self.answer.follow(stream.answer, signature_of(client))
            held: List[Delta] = []
            try:
                for delta in stream.deltas:
                    if stream.answer.begun:
                        self._pauses.answered(ticket)
                        yield from held
                        yield delta
                        yield from stream.deltas  # no line of ours on the way of a chunk
                        return
                    if delta.retry is None:
                        held.append(delta)
                    else:
                        self._judge(delta.retry)
                        yield delta
                self._pauses.answered(ticket)  # with nothing
                yield from held
            finally:
                stream.close()

    def _judge(self, notice: Union[RetryNotice, FallbackNotice]) -> None:
        """Raise a retry's cause if its wait is too long, and there is who can be asked at once."""
        patience = self._rules.patience
        if patience is None or not isinstance(notice, RetryNotice) or notice.cause is None:
            return
        if notice.delay_s > patience and self._rules.falls_over(notice.cause):
            if self._pauses.ready(self._asked):
                raise notice.cause

    def _request_for(self, place: int) -> ChatRequest:
        """The request as the client at that place is to have it."""
        client, request = self._rules.clients[place], self._request
        messages = without_state(request.messages, client.wrote)
        if messages is not request.messages:
            request = request.replace(messages=messages)
        if place and request.model is not None:
            request = request.replace(model=None)
        return request

    @contextlib.contextmanager
    def _in_time(self, client: ChatClient, cancel: CancelToken) -> Iterator[CancelToken]:
        """The token of one client's try: cancelled by `cancel`, and when the call's time is over.

        Raises:
            DeadlineExceeded: that is why the try was cancelled.
            ConnectError: no thread can be started for the clock.
        """
        total = self._rules.total
        if total is None or (len(self._asked) == 1 and total_of(client) == total):
            yield cancel  # the client sees to it
            return
        token = CancelToken()
        alarm = threads.Alarm(lambda _: token.cancel("total"), grain=1.0)
        key = cancel.add_callback(lambda: token.cancel(cancel.reason))
        try:
            if time.monotonic() >= self._due:
                raise _too_late(total)
            _arm(alarm, self._due)
            yield token
        except Cancelled as error:
            if cancel.cancelled or not token.cancelled:
                raise
            raise _too_late(total, partial=error.partial) from None
        finally:
            alarm.stop()
            cancel.remove_callback(key)

    def _after(
        self, ticket: Ticket, error: AgentStreamError
    ) -> Tuple[Ticket, Optional[FallbackNotice]]:
        """Leave to ask the next client after `error`, and what to tell of it.

        Raises:
            AgentStreamError: the call ends here.
        """
        if not self._rules.falls_over(error, has_time=time.monotonic() < self._due):
            raise error
        seconds = 0.0
        if not isinstance(error, (ConfigError, BadRequest)):  # of which the request is the reason
            seconds = self._pauses.failed(ticket, getattr(error, "retry_after", None))
        if self.answer.begun:
            raise error
        self._errors.append(error)
        following = self._next()
        if following is None:
            errors, self._errors = self._errors, []  # no cycle through a traceback
            raise with_earlier(errors) from None
        error.with_traceback(None)  # the same
        notice = self._notice(ticket, error, seconds, following)
        logger.debug(
            "%s %s failed (%s); %s %s is asked",
            notice.provider,
            notice.model,
            notice.error,
            notice.next_provider,
            notice.next_model,
        )
        return following, notice

    def _notice(
        self, ticket: Ticket, error: AgentStreamError, seconds: float, following: Ticket
    ) -> FallbackNotice:
        clients = self._rules.clients
        failed, asked = clients[ticket.place], clients[following.place]
        return FallbackNotice(
            client=ticket.place + 1,
            provider=failed.provider,
            model=self._model_of(ticket.place),
            error=type(error).__name__,
            message=str(error),
            status=getattr(error, "status", None),
            pause_s=seconds,
            next_client=following.place + 1,
            next_provider=asked.provider,
            next_model=self._model_of(following.place),
        )

    def _model_of(self, place: int) -> str:
        wanted = None if place else self._request.model
        return wanted or self._rules.clients[place].model


def _arm(alarm: threads.Alarm, due: float) -> None:
    try:
        threads.arm(alarm, due)
    except RuntimeError:
        raise ConnectError("no thread could be started for the deadlines") from None


def _too_late(total: float, partial: Optional[ChatResponse] = None) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"the answer was not complete within {total:g} s, over all clients (Timeouts.total)",
        phase="stream",
        outcome="unknown",
        partial=partial,
    )


def with_earlier(errors: List[AgentStreamError]) -> AgentStreamError:
    """The last error, or that of the last client that could make the request; with the others."""
    asked = [error for error in errors if not isinstance(error, ConfigError)]
    final = (asked or errors)[-1]
    earlier: List[AgentStreamError] = []
    for error in errors:
        earlier += error.earlier  # of a client that is made of clients itself
        if error is not final:
            earlier.append(error)
    final.earlier = tuple(earlier)
    if sys.version_info >= (3, 11):
        for error in earlier:
            final.add_note(f"before it: {type(error).__name__}: {error}")
    return final


def total_of(client: ChatClient) -> Optional[float]:
    """Seconds that a call of the client may take; None for no bound."""
    timeouts = getattr(client, "timeouts", None)
    total: Optional[float] = getattr(client if timeouts is None else timeouts, "total", None)
    return total
