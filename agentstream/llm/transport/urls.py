"""URLs, keys and headers: what can be sent, and what may be shown of it."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import os
import ssl
import urllib.parse
from typing import List, Mapping, Optional, Tuple, Union

import requests.auth

from agentstream.errors import ConfigError
from agentstream.llm.secrets import mask
from agentstream.llm.settings import LLAMA_URL

__all__ = [
    "at_path",
    "check_certificate",
    "check_header",
    "check_url",
    "display_url",
    "is_address",
    "is_loopback",
    "place_of",
    "secrets_in",
    "user_of",
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
            f" {LLAMA_URL}; it makes {display_url(url)!r}"
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


def at_path(base_url: str, path: str, query: Optional[Mapping[str, str]] = None) -> str:
    """`path` under a base URL, whose own query stays behind it, before `query`."""
    base, _, own = base_url.partition("#")[0].partition("?")
    fields = [text for text in (own, urllib.parse.urlencode(dict(query or {}))) if text]
    return base.rstrip("/") + path + ("?" + "&".join(fields) if fields else "")


def secrets_in(url: str) -> List[str]:
    """The secrets of a URL, each as it stands there and as it is meant.

    Those are its password, also with its user as Basic sends them, a user without a
    password, and the values of its query that pass for keys.
    """
    parts = urllib.parse.urlsplit(url)
    found: List[Optional[str]] = []
    if parts.username or parts.password:
        user, password = (urllib.parse.unquote(p or "") for p in (parts.username, parts.password))
        pair = f"{user}:{password}"
        found = [parts.password, password] if password else [parts.username, user]
        found.append(pair)
        for encoding in ("latin-1", "utf-8"):
            with contextlib.suppress(UnicodeEncodeError):
                found.append(base64.b64encode(pair.encode(encoding)).decode())
    for field in parts.query.split("&"):
        name, _, value = field.partition("=")
        if any(word in name.lower() for word in _SECRET_FIELDS):
            found += [value, urllib.parse.unquote_plus(value)]
    return list(dict.fromkeys(secret for secret in found if secret))


def check_certificate(cert: object) -> Union[str, Tuple[str, str], None]:
    """A client's certificate as requests takes it: a path, or (certificate, key).

    Raises:
        ConfigError: a file is missing, cannot be used, or needs a password.
    """
    if cert is None:
        return None
    files = [cert] if isinstance(cert, (str, os.PathLike)) else cert
    if not isinstance(files, (list, tuple)) or not 1 <= len(files) <= 2:
        raise ConfigError.about("cert", "must be the path of a PEM file, or (certificate, key)")
    paths = [os.fspath(file) for file in files]
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_cert_chain(paths[0], paths[-1], lambda: b"")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "no PEM"
        raise ConfigError.about("cert", f"cannot be used: {reason}") from None
    return (paths[0], paths[1]) if len(paths) == 2 else str(paths[0])


def user_of(parts: urllib.parse.SplitResult) -> Optional[str]:
    """The Authorization of the user that a URL names; None for none."""
    if parts.username is None:
        return None
    user = urllib.parse.unquote(parts.username)
    return str(requests.auth._basic_auth_str(user, urllib.parse.unquote(parts.password or "")))


def place_of(url: str) -> str:
    """Host and port of a URL, the port by the scheme where none is given; "" for what is none."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""  # it will be refused as a URL, which says more
    return f"{host.rstrip('.')}:{port or parts.scheme}"


def check_header(value: str, what: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{what} must be a str, not {type(value).__name__}")
    text = value.strip(" ")
    if not text or not (text.isascii() and text.isprintable()):
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
