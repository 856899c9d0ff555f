"""Whose key goes where: a hosted provider's, of the environment, to its own servers only."""

from __future__ import annotations

import urllib.parse
from typing import Mapping, NamedTuple, Optional, Tuple

from agentstream.errors import ConfigError
from agentstream.llm.transport import ApiKey, place_of

__all__ = ["Host"]


class Host(NamedTuple):
    """A provider that sells keys.

    Attributes:
        title: its name, for messages.
        url: its API's, which is asked where no other is named.
        key_env: the environment's variable for the key.
        key_headers: headers, in lower case, that hold one.
    """

    title: str
    url: str
    key_env: str
    key_headers: Tuple[str, ...]

    def is_asked(self, url: str) -> bool:
        """True if `url` is on the provider's own servers; regions have names before the host's."""
        host, own = (_host(each) for each in (url, self.url))
        return host == own or host.endswith("." + own)

    def key_for(
        self,
        url: str,
        api_key: ApiKey,
        headers: Optional[Mapping[str, str]],
        *,
        beside: str,
        own_key: Optional[str],
    ) -> ApiKey:
        """The key for requests to `url`; None for none.

        Args:
            api_key, headers: as the client was given them.
            beside: the URL that the environment names, if any: its key is for that
                server too.
            own_key: the environment's key.

        Raises:
            ConfigError: the provider itself is asked, and there is no key.
        """
        at_home = self.is_asked(url)
        in_headers = any(str(name).strip().lower() in self.key_headers for name in headers or ())
        if api_key is None and not in_headers and (at_home or place_of(url) == place_of(beside)):
            api_key = own_key
        if at_home and not (api_key or in_headers):
            raise ConfigError(
                f"{self.title} needs a key: set {self.key_env} or pass api_key= "
                "(or base_url= for a server of your own)"
            )
        return api_key or None


def _host(url: str) -> str:
    try:
        return (urllib.parse.urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""  # it will be refused as a URL, which says more
