"""What the environment says of proxies and certificates, checked.

requests reads HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE and
CURL_CA_BUNDLE; here are the names for its complaints, and OpenSSL's own variables.
"""

from __future__ import annotations

import importlib.util
import os
import urllib.parse
from typing import Optional

from agentstream.errors import ConfigError

__all__ = ["check_bundle", "check_proxy", "openssl_bundle"]

_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
_SOCKS = ("socks4", "socks4a", "socks5", "socks5h")


def openssl_bundle() -> Optional[str]:
    """The CA bundle that SSL_CERT_FILE, or SSL_CERT_DIR, names; None if neither is set."""
    return os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR") or None


def check_bundle(path: str) -> None:
    """Hold the CA bundle that a variable names against the disk.

    Raises:
        ConfigError: there is nothing; `setting` is the variable.
    """
    if not os.path.exists(path):
        names = (name for name in _BUNDLES if os.environ.get(name) == path)
        raise ConfigError.about(next(names, "verify"), f"names no file or directory: {path!r}")


def check_proxy(proxy: str, scheme: str) -> None:
    """Hold the proxy for requests of `scheme` against what can be used.

    Raises:
        ConfigError: it is no URL of a proxy, or one that needs a package which is
            not installed; `setting` is the variable.
    """
    variable = _variable(proxy, scheme)
    try:
        parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        usable = bool(parts.hostname) and parts.port != 0 and parts.path in ("", "/")
    except ValueError:
        usable = False
    if not usable or any(c.isspace() for c in proxy):
        raise ConfigError.about(
            variable, "must be the URL of a proxy, such as http://host:3128; it is none"
        )
    kind = parts.scheme.lower()
    if kind in _SOCKS:
        if importlib.util.find_spec("socks") is None:
            raise ConfigError.about(
                variable,
                "names a SOCKS proxy, for which a package is missing: pip install requests[socks]",
            )
    elif kind not in ("http", "https"):
        raise ConfigError.about(
            variable, f"must begin with http://, https:// or socks5h://, not {kind[:20]!r}"
        )


def _variable(proxy: str, scheme: str) -> str:
    """The variable that names this proxy."""
    for name in (f"{scheme}_proxy", "all_proxy"):
        for spelling in (name, name.upper()):
            if spelling in os.environ and os.environ[spelling].strip() == proxy.strip():
                return spelling
    return "the system's proxy"
