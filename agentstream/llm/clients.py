"""OpenAIClient, LlamaClient: the clients of chat completions and of the Responses API."""

from __future__ import annotations

import os
from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    Mapping,
    Optional,
    Type,
)

from agentstream import checks
from agentstream.llm.chat.dialect import ChatTraits
from agentstream.llm.client import ACCOUNTS, ChatClient, ClientSettings, HTTPClient, InsecureWarning
from agentstream.llm.dialect import Dialect
from agentstream.llm.hosted import Host
from agentstream.llm.keywords import CLIENT_HINTS, OTHER_SETTING
from agentstream.llm.llama.dialect import LlamaDialect
from agentstream.llm.messages import ChatRequest
from agentstream.llm.secrets import NamedKey
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
from agentstream.llm.stream import TextStream
from agentstream.llm.transport import ApiKey, Cert, Verify, at_path, display_url
from agentstream.text import pattern

__all__ = [
    "OPENAI_URL",
    "ChatClient",
    "InsecureWarning",
    "LlamaClient",
    "OpenAIClient",
    "TextStream",
]

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from agentstream.llm.client import Accounts
    from agentstream.llm.llama.tools import Template
    from agentstream.llm.responses.choice import Apis

APIS = ("auto", "responses", "chat")
TOOL_MODES = ("native", "schema", "auto")

#: The end of a llama.cpp server's base URL that may be given or left out.
_V1 = pattern(r"/v1/*(?=[?#]|$)")
#: Of other hosts than its own, only their users know what key they take.
_OPENAI = Host("OpenAI", OPENAI_URL, "OPENAI_API_KEY", ("authorization",))


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
        rate_limit: a `RateLimit`, which clients may share.
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
            With it and `Retries(resume=True)`, a response whose stream breaks off is
            gone on with: it is written in the background, which a cancel here does
            not end there.

    Raises:
        ConfigError: a setting cannot be used, or OpenAI's own server is meant
            and there is no key.
    """

    provider = "openai"

    @checks.keywords(CLIENT_HINTS, more=ACCOUNTS, otherwise=OTHER_SETTING)
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
        think_tags: bool = False,
        api: str = "auto",
        store: bool = False,
        **accounts: Unpack[Accounts],
    ) -> None:
        own_url = os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
        base_url = own_url if base_url is None else checks.text("base_url", base_url, empty=True)
        own_key = NamedKey.of(os.environ.get("OPENAI_API_KEY"), "OPENAI_API_KEY")
        api_key = _OPENAI.key_for(base_url, api_key, headers, beside=own_url, own_key=own_key)
        at_home = _OPENAI.is_asked(base_url)
        chat, responses = (
            at_path(base_url, path, query) for path in ("/chat/completions", "/responses")
        )
        checks.one_of("api", api, APIS)
        super().__init__(
            responses if api == "responses" or (api == "auto" and at_home) else chat,
            ClientSettings(
                model, api_key, headers, body, verify, cert, timeouts, retries, limits, **accounts
            ),
        )
        self._settings: Dict[str, Any] = {"api": api, "at_home": at_home, "store": store}
        checks.flag("store", store)
        self._urls = chat, responses
        self._models = at_path(base_url, "/models", query)
        self._apis: Optional[Apis] = None
        self._think_tags = think_tags

    def _dialect(self, request: ChatRequest) -> Dialect:
        if self._apis is None:
            from agentstream.llm.responses.choice import Apis  # noqa: PLC0415 - for the first call

            resume = self.retries.resume
            self._apis = Apis(*self._urls, **self._settings, resume=resume)
        dialect = self._apis.dialect(
            request, model=self.model, fields=self._body, redact=self._redactor(request)
        )
        return _thinking(dialect) if self._think_tags else dialect

    def _models_page(self, after: Optional[str]) -> str:
        return self._models


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
        rate_limit: a `RateLimit`, which clients may share.
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

    @checks.keywords(CLIENT_HINTS, more=ACCOUNTS, otherwise=OTHER_SETTING)
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
        tool_mode: str = "native",
        think_tags: bool = False,
        **accounts: Unpack[Accounts],
    ) -> None:
        root = _V1.sub("", checks.text("base_url", base_url, empty=True))
        super().__init__(
            at_path(root, "/v1/chat/completions"),
            ClientSettings(
                model, api_key, headers, body, verify, cert, timeouts, retries, limits, **accounts
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

    def _models_page(self, after: Optional[str]) -> str:
        return at_path(self._root, "/v1/models")

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
