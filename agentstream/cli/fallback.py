"""`--fallback PROVIDER[:MODEL][@URL]`: who is asked where the first client fails."""

from __future__ import annotations

import re
from typing import Iterable, List, NamedTuple, Optional

from agentstream import checks
from agentstream.errors import AgentStreamError, ConfigError

__all__ = ["Named", "named_in", "tell_earlier"]

# Of a model's name no part is a URL, though it may hold ":", "/" and "@".
_NAMED = re.compile(r"([^:@]*)(?::(.*?))?(?:@(https?://.*))?")


class Named(NamedTuple):
    """A client as the command line names it; None for what it does not say."""

    provider: str
    model: Optional[str]
    base_url: Optional[str]


def named_in(given: Iterable[str], where: str = "--fallback") -> List[Named]:
    """The clients that are named.

    Raises:
        ConfigError: one is none.
    """
    return [_named(text, where) for text in given]


def _named(text: str, where: str) -> Named:
    from agentstream.llm.transport import check_url, secrets_in  # noqa: PLC0415 - few need it
    from agentstream.providers import EMBEDDED, NAMES, PROVIDERS  # noqa: PLC0415 - as above

    found = _NAMED.fullmatch(text)
    if found is None:
        raise ConfigError(f"{where} must be PROVIDER[:MODEL][@URL]")  # no value: it may hold a key
    provider, model, url = found.groups()
    checks.one_of(where, provider, NAMES)
    if not (model or PROVIDERS[provider].model):
        raise ConfigError(f"{where}: {provider} has no model of its own choice: {provider}:MODEL")
    if url is not None:
        if provider == EMBEDDED:
            raise ConfigError(f"{where}: {provider} is started here and has no URL")
        if secrets_in(url):
            raise ConfigError(
                f"{where}: a secret does not belong into a URL, which others can read"
            )
        check_url(url)
    return Named(provider, model or None, url)


def tell_earlier(error: BaseException) -> None:
    """Say behind an error what those failed with that were asked before it."""
    found: Optional[BaseException] = error
    while found is not None:
        earlier = found.earlier if isinstance(found, AgentStreamError) else ()
        if earlier:
            said = "; ".join(f"{type(one).__name__}: {one}" for one in earlier)
            error.args = (f"{error}; asked before it: {said}",)
            return
        found = found.__cause__
