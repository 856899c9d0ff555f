"""What a caller holds: ChatClient, OpenAIClient, LlamaClient.

One path for all of them: a client makes a Call, a TextStream drains it.  What a
stream means is decided below; here are the settings, and their conventions.
"""

from __future__ import annotations

import os
import re
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
    Type,
    TypeVar,
)

from agentstream import checks
from agentstream.cancel import CancelToken
from agentstream.llm.call import Call
from agentstream.llm.chat.dialect import ChatTraits
from agentstream.llm.dialect import Dialect
from agentstream.llm.history import mended
from agentstream.llm.hosted import Host
from agentstream.llm.llama.dialect import LlamaDialect
from agentstream.llm.messages import ChatMessage, ChatRequest, Delta, Prompt, as_request
from agentstream.llm.prices import Prices
from agentstream.llm.secrets import Redactor
from agentstream.llm.settings import (
    LLAMA_MODEL,
    LLAMA_TIMEOUTS,
    LLAMA_URL,
    OPENAI_MODEL,
    OPENAI_URL,
    Limits,
    Retries,
    Timeouts,
)
from agentstream.llm.stream import DeltaStream, TextStream
from agentstream.llm.transport import ApiKey, Cert, Transport, Verify, at_path, display_url
from agentstream.results import ChatResponse

__all__ = [
    "OPENAI_URL",
    "ChatClient",
    "InsecureWarning",
    "LlamaClient",
    "OpenAIClient",
    "TextStream",
]

if TYPE_CHECKING:
    from agentstream.llm.llama.tools import Template
    from agentstream.llm.output.means import OutputTraits
    from agentstream.llm.responses.choice import Apis

APIS = ("auto", "responses", "chat")
TOOL_MODES = ("native", "schema", "auto")

_Self = TypeVar("_Self", bound="ChatClient")
#: The end of a llama.cpp server's base URL that may be given or left out.
_V1 = re.compile(r"/v1/*(?=[?#]|$)")
#: Of other hosts than its own, only their users know what key they take.
_OPENAI = Host("OpenAI", OPENAI_URL, "OPENAI_API_KEY", ("authorization",))


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
    """

    model: str = ""
    provider: str = ""
    parallel_tool_calls: Optional[bool] = None
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

    def chat_stream(
        self, prompt: Prompt, *, output: Any = None, cancel: Optional[CancelToken] = None
    ) -> TextStream:
        """Send a text, a list of messages or a `ChatRequest`; iterate the text of the answer.

        The request is sent when the first text is asked for.

        Messages are brought into a form that every server can read (`llm/history.py`).

        Args:
            prompt: what is asked.
            output: the type of the answer, or an `Output`: `values()` of the stream then
                gives it as it arrives, `response.value` in the end.
            cancel: stops the call.

        Raises:
            ConfigError: `prompt` is no request, or holds a call without its result;
                `output` is no type that can be asked for.
        """
        request = as_request(prompt)
        messages = mended(request.messages)
        if messages is not request.messages:
            request = request.replace(messages=messages)
        if output is not None:
            request = request.replace(output=output)
        if request.output is not None:
            from agentstream.llm.output.stream import OutputStream  # noqa: PLC0415 - as in messages

            return OutputStream(self._send, request, self.model, cancel)
        return TextStream(
            lambda token: self.stream_deltas(request, cancel=token),
            request.model or self.model,
            cancel,
        )

    def _send(self, request: ChatRequest, cancel: CancelToken) -> Iterator[Delta]:
        return self.stream_deltas(request, cancel=cancel)

    def chat(
        self, prompt: Prompt, *, output: Any = None, cancel: Optional[CancelToken] = None
    ) -> ChatResponse:
        """As `chat_stream`, drained: returns the whole `ChatResponse`.

        Raises:
            AgentStreamError: whichever applies, with `partial`; `OutputInvalid` for an
                answer that is not what `output` asks for, after its retries.
        """
        with self.chat_stream(prompt, output=output, cancel=cancel) as stream:
            for _ in stream:
                pass
            return stream.response

    def close(self) -> None:  # noqa: B027 - a client that holds nothing needs none
        """Close idle connections.  Streams under way go on."""

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.model!r}>"


class ClientSettings(NamedTuple):
    """What the client of any server is told; the clients' docstrings say what each field means."""

    model: str
    api_key: ApiKey
    headers: Optional[Mapping[str, str]]
    body: Optional[Mapping[str, Any]]
    verify: Verify
    cert: Cert
    timeouts: Optional[Timeouts]
    retries: Optional[Retries]
    limits: Optional[Limits]
    prices: Optional[Prices]

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
        checks.instance("timeouts", self.timeouts, Timeouts)
        checks.instance("retries", self.retries, Retries)
        checks.instance("limits", self.limits, Limits)
        self.prices = checks.instance("prices", settings.prices, Prices, optional=True)
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
        if settings.verify is False:
            warnings.warn(
                f"certificates of {display_url(url)} are not verified",
                InsecureWarning,
                stacklevel=4,
            )

    def __repr__(self) -> str:
        where = display_url(self._transport.url)
        return f"<{type(self).__name__} {self.model!r} at {where}>"

    def stream_deltas(
        self, request: ChatRequest, *, cancel: Optional[CancelToken] = None
    ) -> DeltaStream:
        """See `ChatClient.stream_deltas`."""
        call = Call(
            self._transport,
            self._dialect(request) if request.output is None else self._typed(request),
            timeouts=self.timeouts,
            retries=self.retries,
            limits=self.limits,
            prices=self.prices,
        )
        return DeltaStream(call.answer, call.run, cancel)

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

    def close(self) -> None:
        """Close idle connections.  Streams under way go on."""
        self._transport.close()


class OpenAIClient(HTTPClient):
    """OpenAI, or any server that speaks its Responses API or its chat completions.

    Args:
        model: the model's name.
        api_key: sent as a bearer token, or a function that gives it, called for each
            request; "" for none at all.  Default: the environment's OPENAI_API_KEY,
            where OpenAI or the environment's own OPENAI_BASE_URL is asked and
            `headers` holds no Authorization.
        base_url: requests go to base_url/responses or base_url/chat/completions, its query
            behind that; default: the environment's OPENAI_BASE_URL, else OpenAI's own.
        headers, query, body: further headers, query fields and body fields of
            every request ("api-version" for Azure, say).
        verify: True, False, the path of a CA bundle, or an `ssl.SSLContext`.
        cert: the client's certificate: a PEM file with its key, or (certificate, key).
        timeouts: default `Timeouts()`: 10 s to connect, 120 s to the first
            token, 60 s of silence, no deadline: for a hosted model.
        retries, limits: default `Retries()` and `Limits()`.
        prices: what its models' tokens cost, for `usage.cost`.
        think_tags: the model writes its reasoning into its answer, between <think>
            and </think>: take it for reasoning.  An answer without tags is held
            back for up to 65,536 characters, until it is clear that none come.
        api: "responses", "chat" for chat completions, or "auto": the Responses API at
            OpenAI's own host, chat completions elsewhere, and of a request without
            tools that has a field only chat completions knows (`stop`, `seed`,
            "logit_bias", "n").  A server that refuses a request with the words to use
            the other one, or another name for `max_tokens`, is asked so once more.
        store: the provider may keep what it answers.  Without it, nothing is kept
            there: a model's reasoning comes encrypted, and goes back with the history.

    Raises:
        ConfigError: a setting cannot be used, or OpenAI's own server is meant
            and there is no key.
    """

    provider = "openai"

    def __init__(
        self,
        model: str = OPENAI_MODEL,
        *,
        api_key: ApiKey = None,
        base_url: Optional[str] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        body: Optional[Mapping[str, Any]] = None,
        verify: Verify = True,
        cert: Cert = None,
        timeouts: Optional[Timeouts] = None,
        retries: Optional[Retries] = None,
        limits: Optional[Limits] = None,
        prices: Optional[Prices] = None,
        think_tags: bool = False,
        api: str = "auto",
        store: bool = False,
    ) -> None:
        own_url = os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
        base_url = own_url if base_url is None else checks.text("base_url", base_url, empty=True)
        own_key = os.environ.get("OPENAI_API_KEY")
        api_key = _OPENAI.key_for(base_url, api_key, headers, beside=own_url, own_key=own_key)
        at_home = _OPENAI.is_asked(base_url)
        chat, responses = (
            at_path(base_url, path, query) for path in ("/chat/completions", "/responses")
        )
        checks.one_of("api", api, APIS)
        super().__init__(
            responses if api == "responses" or (api == "auto" and at_home) else chat,
            ClientSettings(
                model, api_key, headers, body, verify, cert, timeouts, retries, limits, prices
            ),
        )
        self._settings: Dict[str, Any] = {"api": api, "at_home": at_home, "store": store}
        checks.flag("store", store)
        self._urls = chat, responses
        self._apis: Optional[Apis] = None
        self._think_tags = think_tags

    def _dialect(self, request: ChatRequest) -> Dialect:
        if self._apis is None:
            from agentstream.llm.responses.choice import Apis  # noqa: PLC0415 - for the first call

            self._apis = Apis(*self._urls, **self._settings)
        dialect = self._apis.dialect(
            request, model=self.model, fields=self._body, redact=self._redactor(request)
        )
        return _thinking(dialect) if self._think_tags else dialect


class LlamaClient(HTTPClient):
    """llama.cpp's server.

    Args:
        base_url: requests go to base_url/v1/chat/completions.
        model: for a server that serves several; llama.cpp takes any name otherwise.
        api_key: if the server was started with one; or a function that gives it,
            called for each request.
        headers, body: further headers and body fields of every request.
        verify: True, False, the path of a CA bundle, or an `ssl.SSLContext`; see `insecure`.
        cert: the client's certificate: a PEM file with its key, or (certificate, key).
        timeouts: default: 10 s to connect, 600 s to the first token (a long
            prompt on a CPU takes its time, and so does loading a model), 120 s
            of silence, no deadline.
        retries, limits: default `Retries()` and `Limits()`.
        prices: what its models' tokens cost, for `usage.cost`.
        tool_mode: how a model is given tools.  "native": by its chat template;
            if that knows none, a request with tools is a ConfigError (llama.cpp
            would drop them in silence; its /props is asked once).  "schema": by
            words and a JSON schema, one call at a time and none after a tool's
            result; works with any model.  "auto": "native" if the template knows
            tools, else "schema".
        think_tags: as `OpenAIClient` has it, for a server that was started with
            `--reasoning-format none`.

    Raises:
        ConfigError: a setting cannot be used.
    """

    provider = "llama.cpp"
    schema_with_tools = False
    _wire = "grammar"
    _timeouts = LLAMA_TIMEOUTS

    def __init__(
        self,
        base_url: str = LLAMA_URL,
        *,
        model: str = LLAMA_MODEL,
        api_key: ApiKey = None,
        headers: Optional[Mapping[str, str]] = None,
        body: Optional[Mapping[str, Any]] = None,
        verify: Verify = True,
        cert: Cert = None,
        timeouts: Optional[Timeouts] = None,
        retries: Optional[Retries] = None,
        limits: Optional[Limits] = None,
        prices: Optional[Prices] = None,
        tool_mode: str = "native",
        think_tags: bool = False,
    ) -> None:
        root = _V1.sub("", checks.text("base_url", base_url, empty=True))
        super().__init__(
            at_path(root, "/v1/chat/completions"),
            ClientSettings(
                model, api_key, headers, body, verify, cert, timeouts, retries, limits, prices
            ),
        )
        self._traits = ChatTraits(display_url(self._transport.url))
        self._think_tags = think_tags
        self._tool_mode = checks.one_of("tool_mode", tool_mode, TOOL_MODES)
        self._root = root
        self._template: Optional[Template] = None

    @classmethod
    def insecure(cls: Type[LlamaClient], base_url: str, **settings: Any) -> LlamaClient:
        """A client that does not verify the certificate: for a self-signed one.

        Warns (`InsecureWarning`), once for each such client: whoever sits
        between can read and change everything.
        """
        return cls(base_url, verify=False, **settings)

    def _dialect(self, request: ChatRequest) -> Dialect:
        resume = self.retries.resume
        if not request.tools:
            return self._resuming(request) if resume else self._plain(request)
        from agentstream.llm.llama.tools import Template, ToolsDialect  # noqa: PLC0415 - few need it

        if self._template is None:
            self._template = Template(self._tool_mode, self._root, self.model)
        return ToolsDialect(request, self._template, self._plain, resume=resume)

    def _plain(self, request: ChatRequest) -> Dialect:
        dialect = LlamaDialect(
            request,
            model=self.model,
            fields=self._body,
            redact=self._redactor(request),
            traits=self._traits,
        )
        return _thinking(dialect) if self._think_tags else dialect

    def _resuming(self, request: ChatRequest) -> Dialect:
        from agentstream.llm.llama.resume import ResumingDialect  # noqa: PLC0415 - few need it

        return ResumingDialect(self._plain(request))


def _thinking(dialect: Dialect) -> Dialect:
    from agentstream.llm.chat.think import ThinkDialect  # noqa: PLC0415 - few need it

    return ThinkDialect(dialect)


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
