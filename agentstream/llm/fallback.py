"""FallbackClient: a client made of clients, the next of which is asked where one fails.

It changes over before an answer's first delta and never behind it.  What is told of a
change is a `FallbackNotice` in the stream; who is left alone until when is pauses.py's.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from typing import (
    Any,
    Generator,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
    Type,
    Union,
)

from agentstream import checks, threads
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
    ProviderStreamError,
    RateLimited,
    ServerError,
    StreamTruncated,
)
from agentstream.llm.accumulator import Accumulator
from agentstream.llm.client import ChatClient, signature_of
from agentstream.llm.history import without_state
from agentstream.llm.messages import ChatRequest, Delta, FallbackNotice
from agentstream.llm.pauses import Pauses, Ticket
from agentstream.llm.stream import DeltaStream, as_delta_stream
from agentstream.results import ChatResponse, Usage

__all__ = ["FALLS_OVER", "FallbackClient", "error_kinds"]

logger = logging.getLogger("agentstream.llm.fallback")

#: What makes a call ask the next client, unless told otherwise.
FALLS_OVER: Tuple[Type[AgentStreamError], ...] = (
    RateLimited,
    ServerError,
    ConnectError,
    FirstTokenTimeout,
    ProviderStreamError,
    StreamTruncated,
)
#: What another server would most likely say too: only who names it has it fall over.
_SAID_BY_ALL = (BadRequest, AuthError)
#: What ends a call, whoever is asked.
_ENDS = (Cancelled, DeadlineExceeded)


class FallbackClient(ChatClient):
    """A client made of clients: the first that answers does.

    A call asks the clients in order.  One that fails before its answer's first delta (text,
    reasoning, tool call) with an error of `on` is followed by the next; behind that delta an
    error is raised as it is.  A client's own retries come first.  One that cannot make the
    request (`ConfigError`) is passed over.  Who answered is told by the response's
    `provider` and `model`, and a change by an `agent_fallback` event.

    A client that failed is left alone, for as long as its server asked by Retry-After, else
    for `pause` seconds, doubled for each further failure up to `max_pause`; then one call
    tries it.  Where all others are left alone, the one that is due first is asked all the
    same, once a call.  An error behind the first delta pauses its client too: who asks again
    asks the next one.

    A request's `model` is the first client's; the others are asked for their own.
    `ChatMessage.provider_state` goes to the server that it came from.

    Args:
        clients: in the order in which they are asked; `FallbackClient`s as well.
        on: the errors that make a call ask the next client: classes of `AgentStreamError`.
            `BadRequest` and `AuthError`, which another server would answer too, must be
            named themselves; `Cancelled` and `DeadlineExceeded` always end the call.
        pause, max_pause: seconds.
        total: seconds for a whole call, over all clients; None for the longest of their
            `Timeouts.total`.

    Attributes:
        clients: as given.
        model, provider: the first client's.

    Raises:
        ConfigError: a setting cannot be used.
    """

    def __init__(
        self,
        clients: Sequence[ChatClient],
        *,
        on: Union[Type[AgentStreamError], Iterable[Type[AgentStreamError]]] = FALLS_OVER,
        pause: float = 1.0,
        max_pause: float = 60.0,
        total: Optional[float] = None,
    ) -> None:
        self.clients = _clients(clients)
        self.on = error_kinds(on)
        first = self.clients[0]
        self.model, self.provider = first.model, first.provider
        said = {client.parallel_tool_calls for client in self.clients}
        self.parallel_tool_calls = False if False in said else first.parallel_tool_calls
        self.schema_with_tools = all(client.schema_with_tools for client in self.clients)
        totals = [_total_of(client) for client in self.clients]
        longest = None if None in totals else max(t for t in totals if t is not None)
        self.total = checks.seconds("total", total, optional=True) or longest
        self._pauses = Pauses(
            len(self.clients),
            first=checks.seconds("pause", pause, zero=True),
            most=checks.seconds("max_pause", max_pause, zero=True),
        )

    def __repr__(self) -> str:
        return f"<FallbackClient {', '.join(map(repr, self.clients))}>"

    def stream_deltas(
        self, request: ChatRequest, *, cancel: Optional[CancelToken] = None
    ) -> DeltaStream:
        """See `ChatClient.stream_deltas`.

        Raises:
            AgentStreamError: from the iteration, the error of the client that was asked last,
                with those of the others as `earlier`.
        """
        call = _Call(self, self._pauses, request)
        return DeltaStream(call.answer, call.run, cancel)

    def models(self, *, cancel: Optional[CancelToken] = None) -> List[str]:
        """The names of the models that its clients' servers offer, each once.

        Raises:
            AgentStreamError: none of them says.
        """
        names: List[str] = []
        errors: List[AgentStreamError] = []
        for client in self.clients:
            try:
                names += client.models(cancel=cancel)
            except _ENDS:
                raise
            except AgentStreamError as error:
                errors.append(error)
        if len(errors) == len(self.clients):
            raise _with_earlier(errors)
        return list(dict.fromkeys(names))

    def cost_of(self, usage: Usage, model: Optional[str] = None) -> Optional[float]:
        """See `ChatClient.cost_of`: at the dearest of its clients; None where one has no price."""
        costs = [
            client.cost_of(usage, None if place else model)
            for place, client in enumerate(self.clients)
        ]
        return None if None in costs else max(cost for cost in costs if cost is not None)

    def wrote(self, state: Mapping[str, Any]) -> bool:
        """See `ChatClient.wrote`."""
        return any(client.wrote(state) for client in self.clients)

    def falls_over(self, error: AgentStreamError) -> bool:
        """True if another client is to be asked after `error`."""
        if isinstance(error, _ENDS) or not isinstance(error, (*self.on, ConfigError)):
            return False
        named = [kind for kind in self.on if issubclass(kind, _SAID_BY_ALL)]
        return not isinstance(error, _SAID_BY_ALL) or isinstance(error, tuple(named))

    def close(self) -> None:
        """Close all of its clients."""
        with contextlib.ExitStack() as stack:
            for client in reversed(self.clients):
                stack.callback(client.close)


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


class _Call:
    """One call: its clients, one after the other."""

    def __init__(self, client: FallbackClient, pauses: Pauses, request: ChatRequest) -> None:
        self.answer = _Answer(request.model or client.model, client.provider)
        self._client = client
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
        if self._client.total is not None:
            self._due = started + self._client.total
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
        client = self._client.clients[ticket.place]
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
                        yield delta
                self._pauses.answered(ticket)  # with nothing
                yield from held
            finally:
                stream.close()

    def _request_for(self, place: int) -> ChatRequest:
        """The request as the client at that place is to have it."""
        client, request = self._client.clients[place], self._request
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
        total = self._client.total
        if total is None or (len(self._asked) == 1 and _total_of(client) == total):
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
        if not self._client.falls_over(error):
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
            raise _with_earlier(errors) from None
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
        clients = self._client.clients
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
        return wanted or self._client.clients[place].model


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


def _with_earlier(errors: List[AgentStreamError]) -> AgentStreamError:
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


def _clients(given: Any) -> Tuple[ChatClient, ...]:
    if isinstance(given, ChatClient) or not isinstance(given, Iterable):
        example = "FallbackClient([first, second])"
        raise ConfigError.about("clients", f"must be a list of clients: {example}")
    clients = tuple(given)
    if not clients:
        raise ConfigError.about("clients", "must be one client or more, not none")
    for client in clients:
        checks.instance("clients", client, ChatClient)
    if len({id(client) for client in clients}) < len(clients):
        raise ConfigError.about("clients", "must be different ones: one stands there twice")
    return clients


def error_kinds(given: Any) -> Tuple[Type[AgentStreamError], ...]:
    """The classes of errors that `FallbackClient(on=...)` is given.

    Raises:
        ConfigError: one is none, or ends every call.
    """
    kinds = (given,) if isinstance(given, type) else given
    if not isinstance(kinds, Iterable) or isinstance(kinds, str):
        raise ConfigError.about("on", "must be classes of errors: on=(RateLimited, ServerError)")
    kinds = tuple(kinds)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, AgentStreamError)):
            raise ConfigError.about("on", "must be classes of AgentStreamError")
        if issubclass(kind, _ENDS):
            raise ConfigError.about("on", f"cannot hold {kind.__name__}: it ends every call")
    return kinds


def _total_of(client: ChatClient) -> Optional[float]:
    if isinstance(client, FallbackClient):
        return client.total
    total: Optional[float] = getattr(getattr(client, "timeouts", None), "total", None)
    return total
