"""FallbackClient: a client made of clients, the next of which is asked where one fails.

What one of its calls does is fallback_call.py's; who is left alone until when pauses.py's.
"""

from __future__ import annotations

import contextlib
from typing import (
    Any,
    Iterable,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Type,
    Union,
)

from agentstream import checks
from agentstream.cancel import CancelToken
from agentstream.errors import (
    AgentStreamError,
    ConfigError,
    ConnectError,
    FirstTokenTimeout,
    ProviderStreamError,
    RateLimited,
    ServerError,
    StreamTruncated,
)
from agentstream.llm.client import ChatClient
from agentstream.llm.fallback_call import ENDS, FallbackCall, Rules, total_of, with_earlier
from agentstream.llm.messages import ChatRequest
from agentstream.llm.pauses import Pauses
from agentstream.llm.stream import DeltaStream
from agentstream.results import Usage

__all__ = ["FALLS_OVER", "FallbackClient", "error_kinds"]

#: What makes a call ask the next client, unless told otherwise.
FALLS_OVER: Tuple[Type[AgentStreamError], ...] = (
    RateLimited,
    ServerError,
    ConnectError,
    FirstTokenTimeout,
    ProviderStreamError,
    StreamTruncated,
)


class FallbackClient(ChatClient):
    """A client made of clients: the first that answers does.

    A call asks the clients in order.  One that fails before its answer's first delta (text,
    reasoning, tool call) with an error of `on` is followed by the next; behind that delta an
    error is raised as it is.  A client's own retries come first, but for long waits
    (`patience`).  One that cannot make the request (`ConfigError`) is passed over.  Who answered
    is told by the response's `provider` and `model`, and a change by an `agent_fallback` event.

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
            named themselves; `Cancelled` and `DeadlineExceeded` always end the call.  A
            client's own `Timeouts.total` that is over before the call's time, and before
            the first delta, counts as a `FirstTokenTimeout`.
        pause, max_pause: seconds.
        patience: seconds that a client may wait before a retry of its own, while another
            client is ready: one that would wait longer has failed.  None: any time.
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
        patience: Optional[float] = 5.0,
        total: Optional[float] = None,
    ) -> None:
        self.clients = _clients(clients)
        self.on = error_kinds(on)
        first = self.clients[0]
        self.model, self.provider = first.model, first.provider
        said = {client.parallel_tool_calls for client in self.clients}
        self.parallel_tool_calls = False if False in said else first.parallel_tool_calls
        self.schema_with_tools = all(client.schema_with_tools for client in self.clients)
        totals = [total_of(client) for client in self.clients]
        longest = None if None in totals else max(t for t in totals if t is not None)
        self.total = checks.seconds("total", total, optional=True) or longest
        self.patience = checks.seconds("patience", patience, zero=True, optional=True)
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
        rules = Rules(self.clients, self.on, self.patience, self.total)
        call = FallbackCall(rules, self._pauses, request)
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
            except ENDS:
                raise
            except AgentStreamError as error:
                errors.append(error)
        if len(errors) == len(self.clients):
            raise with_earlier(errors)
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

    def close(self) -> None:
        """Close all of its clients."""
        with contextlib.ExitStack() as stack:
            for client in reversed(self.clients):
                stack.callback(client.close)


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
        if issubclass(kind, ENDS):
            raise ConfigError.about("on", f"cannot hold {kind.__name__}: it ends every call")
    return kinds
