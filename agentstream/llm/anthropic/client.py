"""AnthropicClient: a model behind Messages, Anthropic's or another server's."""

from __future__ import annotations

import os
import re
from typing import Any, Mapping, Optional, Union

from agentstream import checks
from agentstream.errors import ConfigError
from agentstream.llm.anthropic.dialect import MessagesDialect, MessagesTraits
from agentstream.llm.clients import HTTPClient
from agentstream.llm.dialect import Dialect
from agentstream.llm.messages import ChatRequest
from agentstream.llm.prices import Prices
from agentstream.llm.settings import (
    ANTHROPIC_MODEL,
    ANTHROPIC_TIMEOUTS,
    ANTHROPIC_URL,
    Limits,
    Retries,
    Timeouts,
)
from agentstream.llm.transport import ApiKey, Cert, Verify, at_path, display_url, place_of

__all__ = ["AnthropicClient"]

#: The end of a base URL that may be given or left out.
_V1 = re.compile(r"/v1/*(?=\?|$)")
_VERSION = {"anthropic-version": "2023-06-01"}
_HOST = place_of(ANTHROPIC_URL)
_KEYS = ("authorization", "x-api-key")


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

    Raises:
        ConfigError: a setting cannot be used, or Anthropic's own server is meant and
            there is no key.
    """

    provider = "anthropic"

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
        prices: Optional[Prices] = None,
    ) -> None:
        own_url = os.environ.get("ANTHROPIC_BASE_URL") or ANTHROPIC_URL
        base_url = own_url if base_url is None else checks.text("base_url", base_url, empty=True)
        place = place_of(base_url)
        has_key = any(str(name).strip().lower() in _KEYS for name in headers or ())
        if api_key is None and not has_key and place in (_HOST, place_of(own_url)):
            # The environment's key is for Anthropic, and for the server that stands beside it.
            api_key = os.environ.get("ANTHROPIC_API_KEY")
        if not (api_key or has_key) and place == _HOST:
            raise ConfigError(
                "Anthropic needs a key: set ANTHROPIC_API_KEY or pass api_key= "
                "(or base_url= for a server of your own)"
            )
        super().__init__(
            at_path(_V1.sub("", base_url), "/v1/messages"),
            model=model,
            api_key=api_key or None,
            key_header="x-api-key",
            headers={**_VERSION, **checks.fields("headers", headers)},
            body=body,
            verify=verify,
            cert=cert,
            timeouts=timeouts or ANTHROPIC_TIMEOUTS,
            retries=retries,
            limits=limits,
            prices=prices,
        )
        self._max_tokens = checks.whole("max_tokens", max_tokens, 1)
        self._cache = checks.one_of("cache", cache or None, ("auto", None)) is not None
        self._traits = MessagesTraits(display_url(self._transport.url))

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
