"""Providers: a name and settings become a client.

The only place that knows which class a provider's client is, what is taken where
nothing is set, and which settings are its own; the command line, workflow files and
the demo ask here.  A further provider is a further entry of `PROVIDERS`.

The values of the defaults stand in `agentstream.llm.settings`: the clients' own
signatures show them, and imports go one way, upwards.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Callable, Dict, NamedTuple, Optional, Tuple

from agentstream import checks
from agentstream.llm.clients import ChatClient
from agentstream.llm.settings import (
    ANTHROPIC_MODEL,
    ANTHROPIC_TIMEOUTS,
    ANTHROPIC_URL,
    LLAMA_MODEL,
    LLAMA_TIMEOUTS,
    LLAMA_URL,
    OLLAMA_TIMEOUTS,
    OLLAMA_URL,
    OPENAI_MODEL,
    OPENAI_URL,
    Timeouts,
)

if TYPE_CHECKING:
    from agentstream.local import LocalServer

__all__ = ["DEFAULT", "EMBEDDED", "NAMES", "PROVIDERS", "Provider", "make_client", "start_server"]


class Provider(NamedTuple):
    """What is known of a provider before there is a client.

    Attributes:
        home: its client's class, "module:name".
        base_url, model, timeouts: what its client takes where nothing is set; no model
            (""): one must be named.
        title: what it is called where no URL is set.
        key_env, url_env: the environment's variables for its key and its URL; None
            for a provider that has none by convention.
        own: settings that its client takes and others do not.
        resumes: it can go on with an answer that broke off (`Retries.resume`).
    """

    home: str
    base_url: str
    model: str
    title: str
    timeouts: Timeouts = Timeouts()
    key_env: Optional[str] = None
    url_env: Optional[str] = None
    own: Tuple[str, ...] = ()
    resumes: bool = False

    def make(self, **settings: Any) -> ChatClient:
        """A client, to be closed; settings that are None count as not set.

        Raises:
            ConfigError: a setting cannot be used, or a key is missing.
        """
        module, _, name = self.home.partition(":")
        kind = getattr(importlib.import_module(module), name)
        given = {key: value for key, value in settings.items() if value is not None}
        client: ChatClient = kind(**{"model": self.model, **given})
        return client


_LLAMA = Provider(
    "agentstream.llm.clients:LlamaClient",
    base_url=LLAMA_URL,
    model=LLAMA_MODEL,
    title=LLAMA_URL,
    timeouts=LLAMA_TIMEOUTS,
    own=("tool_mode", "think_tags"),
    resumes=True,
)

#: A llama.cpp that we start ourselves: `start_server`, then `make_client` with its URL.
EMBEDDED = "embedded"

#: The providers by name.
PROVIDERS: Dict[str, Provider] = {
    "llama": _LLAMA,
    "openai": Provider(
        "agentstream.llm.clients:OpenAIClient",
        base_url=OPENAI_URL,
        model=OPENAI_MODEL,
        title="OpenAI",
        key_env="OPENAI_API_KEY",
        url_env="OPENAI_BASE_URL",
        own=("query", "think_tags", "api", "store"),
    ),
    "anthropic": Provider(
        "agentstream.llm.anthropic.client:AnthropicClient",
        base_url=ANTHROPIC_URL,
        model=ANTHROPIC_MODEL,
        title="Anthropic",
        timeouts=ANTHROPIC_TIMEOUTS,
        key_env="ANTHROPIC_API_KEY",
        url_env="ANTHROPIC_BASE_URL",
        own=("max_tokens", "cache"),
    ),
    "ollama": Provider(
        "agentstream.llm.ollama.client:OllamaClient",
        base_url=OLLAMA_URL,
        model="",
        title=OLLAMA_URL,
        timeouts=OLLAMA_TIMEOUTS,
        own=("num_ctx", "think", "keep_alive", "options"),
    ),
    EMBEDDED: _LLAMA._replace(title="embedded llama.cpp"),
}
NAMES = tuple(PROVIDERS)
#: The provider where none is named.
DEFAULT = "llama"


def make_client(name: str, **settings: Any) -> ChatClient:
    """The client of a provider, to be closed; settings that are None count as not set.

    Raises:
        ConfigError: there is no such provider, or a setting cannot be used.
    """
    return PROVIDERS[checks.one_of("provider", name, NAMES)].make(**settings)


def start_server(
    progress: Optional[Callable[[int, int], object]] = None, **settings: Any
) -> LocalServer:
    """The embedded llama.cpp, to be closed; fetches the small model if none is named.

    Args:
        progress: called with (done, total) bytes of the model while it is fetched.
        settings: as `LocalServer` takes them.

    Raises:
        ConfigError: no model or no server can be had.
    """
    from agentstream.local import LocalServer  # noqa: PLC0415 - few need it

    return LocalServer(progress=progress, **settings)
