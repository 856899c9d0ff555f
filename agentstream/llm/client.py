"""ChatClient, HTTPClient: what every client is, and what every client of a server is.

One path for all of them: a client makes a Call, a TextStream drains it.  What a stream
means is its dialect's; here are the settings that any server has.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Tuple,
    TypeVar,
)

from agentstream import checks
from agentstream.cancel import CancelToken
from agentstream.errors import AgentStreamError, ConfigError
from agentstream.llm.call import Call
from agentstream.llm.dialect import Dialect
from agentstream.llm.history import mended
from agentstream.llm.keywords import CLIENT_METHODS, OTHER_FIELD, REQUEST_HINTS
from agentstream.llm.messages import ChatMessage, ChatRequest, Delta, Prompt, as_request
from agentstream.llm.prices import Prices
from agentstream.llm.secrets import Redactor
from agentstream.llm.settings import Limits, Retries, Timeouts
from agentstream.llm.stream import DeltaStream, TextStream, as_delta_stream
from agentstream.llm.transport import ApiKey, Cert, Transport, Verify, display_url, place_of
from agentstream.results import ChatResponse, Usage

__all__ = [
    "ACCOUNTS",
    "ChatClient",
    "ClientSettings",
    "HTTPClient",
    "InsecureWarning",
    "signature_of",
]

if TYPE_CHECKING:
    from typing_extensions import TypedDict, Unpack

    from agentstream.llm.messages import RequestFields
    from agentstream.llm.output.means import OutputTraits
    from agentstream.llm.rate_limit.limit import RateLimit

    class Accounts(TypedDict, total=False):
        """What every client takes besides: see `ACCOUNTS`."""

        prices: Optional[Prices]
        rate_limit: Optional[RateLimit]


_Self = TypeVar("_Self", bound="ChatClient")
#: Keywords of every client about what its requests cost, and how many there may be.
ACCOUNTS = ("prices", "rate_limit")


_takes_fields = checks.keywords(
    REQUEST_HINTS,
    more=[name for name in ChatRequest._fields if name != "messages"],
    otherwise=OTHER_FIELD,
)


class InsecureWarning(UserWarning):
    """A client was told not to verify the server's certificate."""


class ChatClient(ABC):
    """A model to talk to.

    One method is abstract; the others stand on it.  Any number of threads may
    use one client.

    Attributes:
        model: the model's name, sent with requests that name none.
        provider: who serves it, "openai" for example.
        parallel_tool_calls: what each of its requests says of them; None if nothing.
        prices: what its models' tokens cost; None if that is not known.
    """

    model: str = ""
    provider: str = ""
    parallel_tool_calls: Optional[bool] = None
    prices: Optional[Prices] = None
    #: Host and port of its server; None of a client that has no one server.
    address: Optional[Tuple[str, int]] = None
    #: It can be asked for a typed answer and be given tools in one request.
    schema_with_tools: bool = True

    @abstractmethod
    def stream_deltas(
        self, request: ChatRequest, *, cancel: Optional[CancelToken] = None
    ) -> Iterator[Delta]:
        """Send `request` and yield the answer's deltas as they arrive.

        Dropping the iterator frees its socket; `cancel` ends it from any thread.

        Raises:
            AgentStreamError: from the iteration, with `partial`.
        """

    @_takes_fields
    def chat_stream(
        self,
        prompt: Prompt,
        *,
        cancel: Optional[CancelToken] = None,
        **fields: Unpack[RequestFields],
    ) -> TextStream:
        """Send a text, messages or a `ChatRequest`; iterate the text of the answer.

        The request is sent when the first text is asked for.

        Messages are brought into a form that every server can read (`llm/history.py`).

        Args:
            prompt: what is asked.
            cancel: stops the call.
            fields: those of a `ChatRequest`: `temperature`, `max_tokens` ...; they win over
                the prompt's own.  With `output`, `values()` of the stream gives the answer
                as it arrives, `response.value` in the end.

        Raises:
            ConfigError: `prompt` is no request, or holds a call without its result;
                `output` is no type that can be asked for.
            TypeError: a keyword is no field.
        """
        request = as_request(prompt, fields)
        messages = mended(request.messages)
        if messages is not request.messages:
            request = request.replace(messages=messages)
        if request.output is not None:
            from agentstream.llm.output.stream import OutputStream  # noqa: PLC0415 - as in messages

            return OutputStream(self._send, request, self.model, cancel)
        return TextStream(
            lambda token: self.stream_deltas(request, cancel=token),
            request.model or self.model,
            cancel,
            provider=self.provider,
        )

    def _send(self, request: ChatRequest, cancel: CancelToken) -> DeltaStream:
        deltas = self.stream_deltas(request, cancel=cancel)
        return as_delta_stream(deltas, request.model or self.model, self.provider)

    @_takes_fields
    def chat(
        self,
        prompt: Prompt,
        *,
        cancel: Optional[CancelToken] = None,
        **fields: Unpack[RequestFields],
    ) -> ChatResponse:
        """As `chat_stream`, drained: returns the whole `ChatResponse`.

        Raises:
            AgentStreamError: whichever applies, with `partial`; `OutputInvalid` for an
                answer that is not what `output` asks for, after its retries.
        """
        with self.chat_stream(prompt, cancel=cancel, **fields) as stream:
            for _ in stream:
                pass
            return stream.response

    def models(self, *, cancel: Optional[CancelToken] = None) -> List[str]:
        """The names of the models that the server offers, as it orders them.

        A client that asks no server names its own model.

        Raises:
            AgentStreamError: whichever applies; a `BadRequest` (404) of a server without a list.
        """
        return [self.model] if self.model else []

    def cost_of(self, usage: Usage, model: Optional[str] = None) -> Optional[float]:
        """What so many tokens cost, of `model` or of its own; None where no price is known."""
        return None if self.prices is None else self.prices.cost(model or self.model, usage)

    def wrote(self, state: Mapping[str, Any]) -> bool:
        """True if a `ChatMessage.provider_state` came from the server of this client."""
        return state.get("origin") == signature_of(self)

    def close(self) -> None:  # noqa: B027 - a client that holds nothing needs none
        """Close idle connections.  Streams under way go on."""

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.model!r}>"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            known = CLIENT_METHODS.get(name)
            hint = f": it is {known}" if known else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")


def signature_of(client: ChatClient) -> str:
    """Whose a provider state is that names no server: its "origin", for those who mix clients."""
    return f"{client.provider}/{client.model}"


class ClientSettings(NamedTuple):
    """What the client of any server is told; the clients' docstrings say what each field means."""

    model: str
    api_key: ApiKey = None
    headers: Optional[Mapping[str, str]] = None
    body: Optional[Mapping[str, Any]] = None
    verify: Verify = True
    cert: Cert = None
    timeouts: Optional[Timeouts] = None
    retries: Optional[Retries] = None
    limits: Optional[Limits] = None
    prices: Optional[Prices] = None
    rate_limit: Optional[RateLimit] = None

    def __repr__(self) -> str:
        return f"<ClientSettings of {self.model!r}>"  # no key, no header


class HTTPClient(ChatClient):
    """A client of one server: a transport, settings, and a dialect for each call.

    Args:
        url: where requests are posted.
        settings: what the client was told.
        key_header: where the key is sent; in Authorization, as a bearer token.
    """

    _timeouts = Timeouts()  # where none are given
    _wire = "openai"  # as llm/output/means.py has it
    _outputs: Optional[OutputTraits] = None

    def __init__(
        self, url: str, settings: ClientSettings, *, key_header: str = "Authorization"
    ) -> None:
        self.model = checks.text("model", settings.model, empty=True)
        self.timeouts = settings.timeouts or self._timeouts
        self.retries = settings.retries or Retries()
        self.limits = settings.limits or Limits()
        checks.instance("timeouts", self.timeouts, Timeouts, example="Timeouts(total=30)")
        checks.instance("retries", self.retries, Retries, example="Retries(attempts=2)")
        checks.instance("limits", self.limits, Limits)
        self.prices = checks.instance("prices", settings.prices, Prices, optional=True)
        self.rate_limit = _checked_limit(settings.rate_limit)
        self._body = checks.fields("body", settings.body)
        self.parallel_tool_calls = self._body.get("parallel_tool_calls")
        self._transport = Transport(
            url,
            api_key=settings.api_key,
            key_header=key_header,
            headers=checks.fields("headers", settings.headers),
            verify=settings.verify,
            cert=settings.cert,
            limits=self.limits,
        )
        self.address = self._transport.address
        if settings.verify is False:
            warnings.warn(
                f"certificates of {display_url(url)} are not verified",
                InsecureWarning,
                stacklevel=5,
            )

    def __repr__(self) -> str:
        where = display_url(self._transport.url)
        return f"<{type(self).__name__} {self.model!r} at {where}>"

    def stream_deltas(
        self, request: ChatRequest, *, cancel: Optional[CancelToken] = None
    ) -> DeltaStream:
        """See `ChatClient.stream_deltas`."""
        call = self._call(
            self._dialect(request) if request.output is None else self._typed(request)
        )
        call.answer.provider = self.provider
        return DeltaStream(call.answer, call.run, cancel)

    def models(self, *, cancel: Optional[CancelToken] = None) -> List[str]:
        """See `ChatClient.models`."""
        from agentstream.llm.model_list import ModelListDialect  # noqa: PLC0415 - few need it

        dialect = ModelListDialect(self._models_page, Redactor(self._transport.secrets()))
        call = self._call(dialect)
        try:
            with DeltaStream(call.answer, call.run, cancel) as deltas:
                for _ in deltas:
                    pass
        except AgentStreamError as error:
            error.partial = None  # there was no answer of a model's
            raise
        return dialect.names

    def _call(self, dialect: Dialect) -> Call:
        return Call(
            self._transport,
            dialect,
            timeouts=self.timeouts,
            retries=self.retries,
            limits=self.limits,
            prices=self.prices,
            rate_limit=self.rate_limit,
        )

    def _models_page(self, after: Optional[str]) -> str:
        """The URL of the list of models, or of what it holds behind the model `after`."""
        raise ConfigError(f"{type(self).__name__} knows no list of models")

    def _typed(self, request: ChatRequest) -> Dialect:
        """The dialect of a request with an `output`."""
        from agentstream.llm.output import dialect, means  # noqa: PLC0415 - as in messages

        if self._outputs is None:
            self._outputs = means.OutputTraits()
        wire = means.WIRES[self._wire]
        return dialect.OutputDialect(request, self._dialect, wire, self._outputs)

    @abstractmethod
    def _dialect(self, request: ChatRequest) -> Dialect:
        """What the request is, and how its answer is read: one object a call.

        Raises:
            ConfigError: the request cannot be made.
        """

    def _redactor(self, request: ChatRequest) -> Redactor:
        """Takes the client's keys and the request's words out of what errors carry."""
        return Redactor(self._transport.secrets(), _texts_of(request))

    def wrote(self, state: Mapping[str, Any]) -> bool:
        """See `ChatClient.wrote`; its dialect knows whether it can use the state."""
        return place_of(str(state.get("origin"))) == place_of(self._transport.url)

    def close(self) -> None:
        """Close idle connections.  Streams under way go on."""
        self._transport.close()


def _checked_limit(given: Optional[RateLimit]) -> Optional[RateLimit]:
    if given is not None:
        from agentstream.llm.rate_limit.limit import RateLimit  # noqa: PLC0415 - few need it

        checks.instance("rate_limit", given, RateLimit, example="RateLimit(60)")
    return given


def _texts_of(request: ChatRequest) -> Iterator[str]:
    """The words of a request, for the redactor, which reads them only when an error needs it."""
    for message in request.messages:
        ours = isinstance(message, ChatMessage)
        content: Any = message.content if ours else message.get("content")  # type: ignore[union-attr]
        parts: List[Any] = content if isinstance(content, list) else [content]
        for part in parts:
            value: Any = part.get("text") if isinstance(part, Dict) else part
            if isinstance(value, str):
                yield value
