"""Who may ask: the token, the cookie that stands for it, Host and Origin.

Checked on loopback too: any page that a browser on this machine has open can
send requests there.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import urllib.parse
from typing import Iterable, Optional, Tuple

from werkzeug.exceptions import Forbidden, HTTPException, Unauthorized
from werkzeug.wrappers import Request, Response

from agentstream.errors import ConfigError

__all__ = ["LOOPBACK", "Guard", "cookie_name", "nothing", "origin_of"]

LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Guard:
    """Checks requests.

    Args:
        token: what a request must bring; None for none.
        hosts: the names that the server answers to, loopback's always among
            them; "*" for any, "0.0.0.0" for any address: what a browser takes for
            an address no DNS can turn to somebody else's page.
        cors: further origins whose pages may ask ("https://example.org").
        origins: what browsers call this server behind a proxy: their pages are its
            own, their hosts are answered to.

    Raises:
        ConfigError: the token is too short to be one, or an origin is none.
    """

    def __init__(
        self,
        token: Optional[str],
        hosts: Iterable[str],
        cors: Iterable[str],
        origins: Iterable[str] = (),
    ) -> None:
        if token is not None and (not isinstance(token, str) or len(token) < 8):
            raise ConfigError("the token must have at least 8 characters")
        self._token = None if token is None else token.encode()
        self._hosts = {host.lower().strip("[]") for host in (*LOOPBACK, *hosts)}
        self._cors = {origin_of(origin) for origin in cors}
        self._own = {origin_of(origin) for origin in origins}
        self._hosts |= {_name(origin.partition("://")[2]) for origin in self._own}

    @property
    def needs_token(self) -> bool:
        return self._token is not None

    def check_place(self, request: Request) -> None:
        """Refuse a foreign Host (DNS rebinding) or Origin (somebody else's page)."""
        host = request.headers.get("Host")
        if host is not None and not self._is_ours(_name(host)):  # HTTP/1.0 need not have one
            raise Forbidden("this server does not answer to that Host")
        origin = request.headers.get("Origin")
        if origin is None:
            return
        ours = {*self._own, *self._cors}
        if not any(own.partition("://")[2] == request.host.lower() for own in self._own):
            ours.add(f"{request.scheme}://{request.host}".lower())
        if origin.rstrip("/").lower() not in ours:
            raise Forbidden("this server does not answer to pages from that Origin")

    def _is_ours(self, name: str) -> bool:
        if name in self._hosts or "*" in self._hosts:
            return True
        return "0.0.0.0" in self._hosts and _is_address(name)

    def check_token(self, request: Request) -> None:
        """Refuse a request that brings neither the token nor its cookie."""
        if self._token is None:
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(given.strip()):
            return
        cookie = request.cookies.get(cookie_name(request), "")
        if hmac.compare_digest(cookie.encode("utf-8", "replace"), self._cookie().encode()):
            return
        raise _unauthorized()

    def is_token(self, given: str) -> bool:
        """Compared in constant time."""
        return self._token is not None and hmac.compare_digest(
            given.encode("utf-8", "replace"), self._token
        )

    def let_in(self, request: Request, given: str) -> Response:
        """Give the page its cookie for the token it posted."""
        if self._token is not None and not self.is_token(given):
            raise _unauthorized()
        response = nothing()
        if self._token is not None:
            response.set_cookie(
                cookie_name(request),
                self._cookie(),
                httponly=True,
                samesite="Strict",
                secure=self._is_secure(request),
                path=request.root_path or "/",
            )
        return response

    def _is_secure(self, request: Request) -> bool:
        """True if the browser's way here is TLS, as far as can be known."""
        origin = request.headers.get("Origin", "").lower().rstrip("/")
        return request.scheme == "https" or (origin in self._own and origin.startswith("https:"))

    def _cookie(self) -> str:
        # Made of the token, so that it outlives the server's restart, and does not tell it.
        assert self._token is not None
        return hmac.new(self._token, b"agentstream page", hashlib.sha256).hexdigest()

    def cors(self, request: Request) -> Tuple[Tuple[str, str], ...]:
        """The headers that let a page of an allowed origin read the answer."""
        origin = request.headers.get("Origin", "").lower()
        if origin.rstrip("/") not in self._cors:
            return ()
        return (
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Allow-Headers", "Authorization, Content-Type, Last-Event-ID"),
            ("Access-Control-Allow-Methods", "GET, POST"),
            ("Vary", "Origin"),
        )


def cookie_name(request: Request) -> str:
    """The page's cookie: one name a port, since cookies do not tell ports apart."""
    port = request.host.rpartition(":")[2]
    return f"agentstream-{port}" if port.isdigit() else "agentstream"


def origin_of(text: str) -> str:
    """An origin as it is compared.

    Raises:
        ConfigError: it is none.
    """
    scheme, _, place = text.rstrip("/").lower().partition("://")
    usual = {"http": 80, "https": 443}.get(scheme)
    try:
        parts = urllib.parse.urlsplit(f"//{place}")
        port, name = parts.port, (parts.hostname or "").encode("idna").decode()
    except ValueError:  # of a port, an address or a name that is none
        name, port = "", None
    if usual is None or not name or parts.netloc != place or re.search(r"[@\s]", place):
        raise ConfigError("an origin looks like https://host or http://host:port, and no more")
    shown = f"[{name}]" if ":" in name else name
    return f"{scheme}://{shown}" if port in (None, usual) else f"{scheme}://{shown}:{port}"


def _unauthorized() -> HTTPException:
    return Unauthorized("a valid token is needed: Authorization: Bearer ...")


def _name(host: str) -> str:
    """A Host header's name, without its port."""
    try:
        return (urllib.parse.urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def nothing() -> Response:
    """204, which has no type."""
    response = Response(status=204)
    del response.headers["Content-Type"]
    return response


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
