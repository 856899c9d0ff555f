"""What an HTTP error says of where it came from: the URL, the key's source, what may be meant."""

from __future__ import annotations

import re
import urllib.parse
from typing import Optional

from agentstream.errors import AgentStreamError, AuthError, StatusError
from agentstream.llm.failures import says_model_is_gone

__all__ = ["from_url", "placed"]

#: The paths of requests, below a base URL.
_ENDPOINTS = ("/chat/completions", "/responses", "/messages", "/api/chat", "/models")
_VERSION = re.compile(r"/v\d+\w*(/|$)")


def placed(error: AgentStreamError, url: str, key_source: Optional[str]) -> AgentStreamError:
    """The error of an answer, with where it came from in its words and in its `url`.

    Args:
        url: where the request went, as it may be shown.
        key_source: what `Transport.key_source` says.
    """
    hint = ""
    if isinstance(error, AuthError) and error.status == 401:
        error.key_source = key_source
        hint = _of_key(key_source)
    elif isinstance(error, StatusError) and error.status in (404, 405):
        hint = "" if says_model_is_gone(error) else _meant(url)
    return from_url(error, url, f" ({hint})" if hint else "")


def from_url(error: AgentStreamError, url: str, more: str = "") -> AgentStreamError:
    """The error of an answer, with the URL, and with `more` behind that."""
    if isinstance(error, StatusError):
        error.url = url
    error.args = (f"{error}, from {url}{more}", *error.args[1:])
    return error


def _of_key(source: Optional[str]) -> str:
    if source is None:
        return "no key was sent: api_key= takes one"
    return f"the key that was sent is that of {source}"


def _meant(url: str) -> str:
    """Which base URL may be meant, by that of a request to nothing; "" if none comes to mind."""
    parts = urllib.parse.urlsplit(url)
    path = parts.path.rstrip("/")
    endpoint = next((end for end in _ENDPOINTS if path.endswith(end)), "")
    base = path[: len(path) - len(endpoint)]
    for other in _ENDPOINTS:
        if f"{other}/" in f"{base}/":
            return f"a base_url ends before {other}"
    if not endpoint or _VERSION.search(base):
        return ""
    root = urllib.parse.urlunsplit((parts.scheme, parts.netloc, base, "", ""))
    return f"is its base_url {root}/v1?"
