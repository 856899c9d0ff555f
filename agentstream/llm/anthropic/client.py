"""AnthropicClient: a model behind Messages, Anthropic's or another server's."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Mapping, Optional, Union

from agentstream import checks
from agentstream.llm.anthropic.dialect import MessagesDialect, MessagesTraits
from agentstream.llm.client import ACCOUNTS, ClientSettings, HTTPClient
from agentstream.llm.dialect import Dialect
from agentstream.llm.hosted import Host
from agentstream.llm.keywords import CLIENT_HINTS, OTHER_SETTING
from agentstream.llm.messages import ChatRequest
from agentstream.llm.secrets import NamedKey
from agentstream.llm.settings import (
    ANTHROPIC_MODEL,
    ANTHROPIC_TIMEOUTS,
    ANTHROPIC_URL,
    Limits,
    Retries,
    Timeouts,
)
from agentstream.llm.transport import ApiKey, Cert, Verify, at_path, display_url

__all__ = ["AnthropicClient"]

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from agentstream.llm.client import Accounts

#: The end of a base URL that may be given or left out.
_V1 = re.compile(r"/v1/*(?=\?|$)")
_VERSION = {"anthropic-version": "2023-06-01"}
_ANTHROPIC = Host("Anthropic", ANTHROPIC_URL, "ANTHROPIC_API_KEY", ("authorization", "x-api-key"))


class AnthropicClient(HTTPClient):
    """Anthropic, or any server that speaks its Messages stream.

    A `ChatRequest` is said in Messages' words: what the system says apart, tools and
    their results as blocks, images and PDFs (`image_url` and `file` parts with https:
    or data: URLs) too, `response_format` of a JSON schema as `output_config.format`,
    `reasoning_effort` as adaptive thinking of that effort, or none.  Blocks and tools in
    Messages' own form may stand among them.

    What comes back is in chat completions' words, `finish_reason` as well;
    `usage.prompt_tokens` counts the whole prompt, what came out of the cache included.
    Thinking, redacted thinking and the blocks of the server's own tools go back as they
    were, in later requests (`ChatMessage.provider_state`).

    Args:
        model: the model's name.
        api_key: sent as x-api-key, or a function that gives it, called for each
            request; "" for none at all.  Default: the environment's ANTHROPIC_API_KEY,
            where Anthropic or the environment's own ANTHROPIC_BASE_URL is asked and
            `headers` holds no key.
        base_url: requests go to base_url/v1/messages; its own /v1 counts once.
            Default: the environment's ANTHROPIC_BASE_URL, else Anthropic's own.
        max_tokens: the most tokens of an answer whose request names no number.
        cache: "auto" marks tools, the system's words and the last two user turns for
            the server's cache, where a request has no marks of its own; None or False
            does not.
        headers, body: further headers and body fields of every request
            ("anthropic-beta", or "thinking", say).
        verify: True, False, the path of a CA bundle, or an `ssl.SSLContext`.
        cert: the client's certificate: a PEM file with its key, or (certificate, key).
        timeouts: default: 10 s to connect, 600 s to the first token (thinking may be
            hidden, and then comes before it), 60 s of silence, no deadline.
        retries, limits: default `Retries()` and `Limits()`.
        prices: what its models' tokens cost, for `usage.cost`.
        rate_limit: a `RateLimit`, which clients may share.

    Raises:
        ConfigError: a setting cannot be used, or Anthropic's own server is meant and
            there is no key.
    """

    provider = "anthropic"
    _wire = "messages"
    _timeouts = ANTHROPIC_TIMEOUTS

    @checks.keywords(CLIENT_HINTS, more=ACCOUNTS, otherwise=OTHER_SETTING)
    def __init__(
        self,
        model: str = ANTHROPIC_MODEL,
        *,
        api_key: ApiKey = None,
        base_url: Optional[str] = None,
        max_tokens: int = 32_000,
        cache: Union[str, bool, None] = "auto",
        headers: Optional[Mapping[str, str]] = None,
        body: Optional[Mapping[str, Any]] = None,
        verify: Verify = True,
        cert: Cert = None,
        timeouts: Optional[Timeouts] = None,
        retries: Optional[Retries] = None,
        limits: Optional[Limits] = None,
        **accounts: Unpack[Accounts],
    ) -> None:
        own_url = os.environ.get("ANTHROPIC_BASE_URL") or ANTHROPIC_URL
        base_url = own_url if base_url is None else checks.text("base_url", base_url, empty=True)
        own_key = NamedKey.of(os.environ.get("ANTHROPIC_API_KEY"), "ANTHROPIC_API_KEY")
        api_key = _ANTHROPIC.key_for(base_url, api_key, headers, beside=own_url, own_key=own_key)
        headers = {**_VERSION, **checks.fields("headers", headers)}
        root = _V1.sub("", base_url)
        super().__init__(
            at_path(root, "/v1/messages"),
            ClientSettings(
                model, api_key, headers, body, verify, cert, timeouts, retries, limits, **accounts
            ),
            key_header="x-api-key",
        )
        self._root = root
        self._max_tokens = checks.whole("max_tokens", max_tokens, 1)
        self._cache = checks.one_of("cache", cache or None, ("auto", None)) is not None
        self._traits = MessagesTraits(display_url(self._transport.url))

    def _models_page(self, after: Optional[str]) -> str:
        page = {"limit": "1000"} if after is None else {"limit": "1000", "after_id": after}
        return at_path(self._root, "/v1/models", page)

    def _dialect(self, request: ChatRequest) -> Dialect:
        return MessagesDialect(
            request,
            model=self.model,
            max_tokens=self._max_tokens,
            fields=self._body,
            cache=self._cache,
            redact=self._redactor(request),
            traits=self._traits,
        )
