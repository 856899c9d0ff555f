"""URLs, keys and headers: what can be sent, and what may be shown of it."""

from __future__ import annotations

import ipaddress
import urllib.parse
from typing import List, Optional

import requests.auth

from agentstream.errors import ConfigError
from agentstream.llm.secrets import mask
from agentstream.llm.settings import LLAMA_URL

__all__ = [
    "authorization",
    "check_header",
    "check_url",
    "display_url",
    "is_address",
    "is_loopback",
    "secrets_in",
]

_SECRET_FIELDS = ("key", "token", "secret", "sig", "password")


def check_url(url: str) -> urllib.parse.SplitResult:
    """The parts of a URL that requests can be sent to.

    Raises:
        ConfigError: it is none.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urllib.parse.urlsplit(""), 0
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        reason = (
            "must look like http://host:port or https://host, for example"
            f" {LLAMA_URL}; got {display_url(url)!r}"
        )
        raise ConfigError(f"the base URL {reason}", setting="base_url", reason=reason)
    return parts


def display_url(url: str) -> str:
    """A URL as it may be shown: without user, password and query."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", ""))
    except ValueError:
        return "(unreadable)"


def secrets_in(url: str) -> List[str]:
    """A URL's password, the header made of it, and the values of its query that pass for keys."""
    parts = urllib.parse.urlsplit(url)
    found = []
    if parts.password:
        found = [urllib.parse.unquote(parts.password), authorization(None, parts) or ""]
    for name, value in urllib.parse.parse_qsl(parts.query):
        if any(word in name.lower() for word in _SECRET_FIELDS):
            found += [value, urllib.parse.quote(value, safe="")]
    return found


def authorization(api_key: Optional[str], parts: urllib.parse.SplitResult) -> Optional[str]:
    if api_key is not None:
        return "Bearer " + check_header(api_key, "the API key")
    if parts.username is not None:
        user = urllib.parse.unquote(parts.username)
        basic = requests.auth._basic_auth_str(user, urllib.parse.unquote(parts.password or ""))
        return str(basic)
    return None


def check_header(value: str, what: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{what} must be a str, not {type(value).__name__}")
    text = value.strip(" ")
    if not text or not all(" " <= c <= "~" for c in text):
        trouble = "is empty" if not text else "holds a line break or a character beyond ASCII"
        raise ConfigError(f"{what} ({mask(value)}) {trouble}: it cannot be sent as a header")
    return text


def is_loopback(host: str) -> bool:
    if is_address(host):
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def is_address(host: str) -> bool:
    """True if `host` is an IP address, which needs no look-up."""
    try:
        ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    return True
