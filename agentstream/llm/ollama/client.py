"""OllamaClient: Ollama by its own API."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Mapping, Optional, Union

from agentstream import checks
from agentstream.errors import ConfigError
from agentstream.llm.client import ACCOUNTS, ClientSettings, HTTPClient
from agentstream.llm.dialect import Dialect
from agentstream.llm.keywords import CLIENT_HINTS, OTHER_SETTING
from agentstream.llm.messages import ChatRequest
from agentstream.llm.ollama.dialect import OllamaDialect
from agentstream.llm.ollama.request import Settings
from agentstream.llm.settings import OLLAMA_TIMEOUTS, OLLAMA_URL, Limits, Retries, Timeouts
from agentstream.llm.transport import ApiKey, Cert, Verify, at_path, display_url

__all__ = ["OllamaClient"]

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from agentstream.llm.client import Accounts

#: The end of a base URL of Ollama's that may be given or left out.
_PATH = re.compile(r"/(v1|api)/*(?=\?|$)")


class OllamaClient(HTTPClient):
    """Ollama.

    Args:
        model: the model's name, as `ollama list` has it.
        base_url: requests go to base_url/api/chat.
        num_ctx: tokens that the model may have before it, prompt and answer together;
            default: the server's, which is small.  What is too long is cut there
            without a word.
        think: True, False, or how much: "low", "medium", "high"; default: the model's.
            A request's `reasoning_effort` wins over it.
        keep_alive: how long the model stays loaded after a request: seconds, or a text
            such as "10m"; 0 to unload it at once, below 0 for ever.
        options: further parameters of the model, as a Modelfile names them
            (`top_k`, `repeat_penalty`, ...).
        api_key: sent as a bearer token, for a server behind a proxy that wants one;
            or a function that gives it, called for each request.
        headers, body: further headers and body fields of every request.
        verify: True, False, the path of a CA bundle, or an `ssl.SSLContext`.
        cert: the client's certificate: a PEM file with its key, or (certificate, key).
        timeouts: default: 10 s to connect, 600 s to the first token (the model is
            loaded meanwhile), 120 s of silence, no deadline.
        retries, limits: default `Retries()` and `Limits()`.
        prices: what its models' tokens cost, for `usage.cost`.
        rate_limit: a `RateLimit`, which clients may share.

    A request's `response_format` becomes `format`; `temperature`, `top_p`, `seed`, `stop`
    and `max_tokens` become options.  Pictures go as data: URLs only.

    Raises:
        ConfigError: a setting cannot be used.
    """

    provider = "ollama"
    schema_with_tools = False
    _wire = "grammar"
    _timeouts = OLLAMA_TIMEOUTS

    @checks.keywords(CLIENT_HINTS, more=ACCOUNTS, otherwise=OTHER_SETTING)
    def __init__(
        self,
        model: str,
        base_url: str = OLLAMA_URL,
        *,
        num_ctx: Optional[int] = None,
        think: Union[bool, str, None] = None,
        keep_alive: Union[float, str, None] = None,
        options: Optional[Mapping[str, Any]] = None,
        api_key: ApiKey = None,
        headers: Optional[Mapping[str, str]] = None,
        body: Optional[Mapping[str, Any]] = None,
        verify: Verify = True,
        cert: Cert = None,
        timeouts: Optional[Timeouts] = None,
        retries: Optional[Retries] = None,
        limits: Optional[Limits] = None,
        **accounts: Unpack[Accounts],
    ) -> None:
        if not checks.text("model", model, empty=True):
            raise ConfigError.about(
                "model", "must name a model; `ollama list` says which there are"
            )
        root = _PATH.sub("", checks.text("base_url", base_url, empty=True))
        super().__init__(
            at_path(root, "/api/chat"),
            ClientSettings(
                model, api_key, headers, body, verify, cert, timeouts, retries, limits, **accounts
            ),
        )
        self._models = at_path(root, "/api/tags")
        checks.instance("options", options, Mapping, optional=True)
        checks.whole("num_ctx", num_ctx, 1, optional=True)
        self._settings = Settings(
            model,
            origin=display_url(self._transport.url),
            think=_checked_think(think),
            keep_alive=_checked_keep_alive(keep_alive),
            options={**(options or {}), **({} if num_ctx is None else {"num_ctx": num_ctx})},
            body=self._body,
        )

    def _models_page(self, after: Optional[str]) -> str:
        return self._models

    def _dialect(self, request: ChatRequest) -> Dialect:
        return OllamaDialect(request, self._settings, self._redactor(request))


def _checked_think(think: Any) -> Union[bool, str, None]:
    if think is None or isinstance(think, bool):
        return think
    return checks.text("think", think)


def _checked_keep_alive(keep_alive: Any) -> Union[float, str, None]:
    if keep_alive is None or isinstance(keep_alive, str):
        return keep_alive
    checks.number("keep_alive", keep_alive)
    return float(keep_alive) if isinstance(keep_alive, float) else int(keep_alive)
