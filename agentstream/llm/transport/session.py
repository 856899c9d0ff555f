"""Transport: one server's requests session, shared by all threads."""

from __future__ import annotations

import http.cookiejar
import os
import ssl
import urllib.parse
from collections import deque
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Callable, Deque, Dict, Iterator, Mapping, Optional, Tuple, Union

import requests
import requests.auth
from requests.models import PreparedRequest
from requests.utils import select_proxy

from agentstream import threads
from agentstream.cancel import CancelToken
from agentstream.errors import AgentStreamError, ConfigError
from agentstream.llm.secrets import NamedKey, Redactor
from agentstream.llm.settings import Limits
from agentstream.llm.transport.adapter import Adapter
from agentstream.llm.transport.environment import check_bundle, check_proxy, openssl_bundle
from agentstream.llm.transport.exchange import Exchange, Timer
from agentstream.llm.transport.link import Link, current
from agentstream.llm.transport.outgoing import trace_headers
from agentstream.llm.transport.problems import LOW_LEVEL, connect_error
from agentstream.llm.transport.response import StreamResponse
from agentstream.llm.transport.semaphore import FairSemaphore
from agentstream.llm.transport.urls import (
    check_certificate,
    check_header,
    check_url,
    display_url,
    is_loopback,
    secrets_in,
    user_of,
)
from agentstream.llm.transport.watching import show

__all__ = ["ApiKey", "Cert", "Transport", "Verify"]

ApiKey = Union[str, Callable[[], str], None]
Verify = Union[bool, str, ssl.SSLContext]
Cert = Union[str, Tuple[str, str], None]


class _Auth(requests.auth.AuthBase):
    """Sets the header of our key and, by being there, keeps netrc's out.

    Attributes:
        header: its name.
        asks: the key is asked for anew for each request.
        keys: the latest keys that were asked for.
    """

    def __init__(self, key: ApiKey, parts: urllib.parse.SplitResult, header: str) -> None:
        self.asks = callable(key)
        self.keys: Deque[str] = deque(maxlen=8)
        self._key = key
        self._scheme = "Bearer " if header == "Authorization" else ""
        self._value: Optional[str] = None
        if key is None:
            header, self._value = "Authorization", user_of(parts)
        elif not callable(key):
            self._value = self._scheme + check_header(key, "the API key")
        self.header = header

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        if self._value is not None:
            request.headers[self.header] = self._value
        return request

    def ask(self) -> str:
        """The header's value for one request.

        Raises:
            ConfigError: the function raised, or gave no key.
        """
        assert callable(self._key)
        try:
            key = self._key()
        except AgentStreamError:
            raise
        except Exception as error:
            reason = f"could not be asked for: {type(error).__name__}"
            raise ConfigError.about("api_key", reason) from error
        header = self._scheme + check_header(key, "the API key")
        if key not in self.keys:
            self.keys.append(key)
        return header


class Transport:
    """Sends requests to one server.  Any number of threads may use one.

    Args:
        url: where requests are posted.
        api_key: what is sent, or a function that gives it, called for each request;
            None for none.
        key_header: where it is sent; in Authorization, as a bearer token.
        headers: further headers of every request.
        verify: True, False, the path of a CA bundle or an `ssl.SSLContext`; what is
            not True wins over REQUESTS_CA_BUNDLE, which wins over SSL_CERT_FILE.
        limits: `Limits`.
        cert: the client's certificate: a PEM file that holds its key too, or
            (certificate, key).

    Attributes:
        places: the pool's.
        pace: how long the waits between a call's attempts are, for what they should be; 0
            of a transport that replays what was recorded.

    Raises:
        ConfigError: the URL, the key or a header cannot be sent; a file is missing
            or is no certificate.
    """

    pace = 1.0

    def __init__(
        self,
        url: str,
        *,
        api_key: ApiKey,
        headers: Mapping[str, str],
        verify: Verify,
        limits: Limits,
        cert: Cert = None,
        key_header: str = "Authorization",
    ) -> None:
        self.url = url
        self.limits = limits
        self._context = verify if isinstance(verify, ssl.SSLContext) else None
        self._verify: Union[bool, str] = True if isinstance(verify, ssl.SSLContext) else verify
        self._cert = check_certificate(cert)
        if isinstance(verify, str):
            check_bundle(verify)
        self._parts = parts = check_url(url)
        self._loopback = is_loopback(parts.hostname or "")
        self._auth = _Auth(api_key, parts, key_header)
        self._headers = {
            "Accept": "text/event-stream, application/json",
            "Accept-Encoding": "identity",  # unflushed gzip would hold tokens back
            "Content-Type": "application/json",
            "User-Agent": "agentstream",
        }
        self._api_key = api_key
        self._own_headers = list(headers.values())
        for name, value in headers.items():
            self._headers[check_header(name, "a header's name")] = check_header(
                value, f"the header {name!r}"
            )
        self._reset()
        threads.after_fork(self)

    def _reset(self) -> None:
        self._prepared: Optional[PreparedRequest] = None
        self._prepared_for = ""
        self._session = requests.Session()
        adapter = Adapter(self._context, self.limits.pool_size)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)
        # No server of ours sets cookies to good ends, and a jar is shared by all threads.
        self._session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        self.places = FairSemaphore(self.limits.places)
        self._process = os.getpid()

    def _after_fork(self) -> None:
        # Not closed: the sockets are the parent's, and a copy that is merely
        # dropped closes without a word on the wire.
        self._reset()

    def close(self) -> None:
        """Close the idle connections; those in use close when their streams end."""
        # One by one: urllib3's managers only let go of their pools, and what keeps a
        # pool, an error's traceback perhaps, would keep its connections open.
        for adapter in self._session.adapters.values():
            if isinstance(adapter, Adapter):
                adapter.close_pools()
        self._session.close()

    def exchange(
        self,
        body: Optional[bytes],
        stop: CancelToken,
        *,
        url: Optional[str] = None,
        headers: Optional[Mapping[str, str]] = None,
        timer: Optional[Timer] = None,
        resend: bool = True,
        method: Optional[str] = None,
        admit: Optional[Callable[[CancelToken], object]] = None,
    ) -> Exchange:
        """A request and its answer, to be used in a `with` block.

        Redirects are not followed.

        Args:
            body: what is posted; None for a GET.
            stop: ends the exchange, from any thread.
            url: default: the transport's own.
            headers: of this request, over those of every request.
            timer, resend, admit: see `Exchange`, which says what is raised, too.
            method: default: POST with a body, GET without.
        """

        if self._process != os.getpid():  # forked in a way that Python was not told of
            self._reset()
        if url is not None:
            self._check_origin(url)
        show(url or self.url, body, self.secrets)
        traced = trace_headers()
        if traced:
            headers = {**traced, **(headers or {})}

        def send(link: Link) -> StreamResponse:
            return self._send(link, body, url, headers, method)

        return Exchange(send, self.places, stop, timer=timer, resend=resend, admit=admit)

    def secrets(self) -> Iterator[str]:
        """What must not be shown of what is sent: keys, headers' values, the URL's secrets.

        Looked up when iterated: a key that is asked for is known by then.
        """
        yield from [self._api_key] if isinstance(self._api_key, str) else list(self._auth.keys)
        yield from self._own_headers
        yield from secrets_in(self.url)

    def shown(self, url: Optional[str] = None) -> str:
        """A URL, the transport's own by default, without what must not be shown."""
        return Redactor(self.secrets())(display_url(url or self.url))

    @property
    def address(self) -> Tuple[str, int]:
        """Host and port of its server."""
        port = self._parts.port or (443 if self._parts.scheme == "https" else 80)
        return self._parts.hostname or "", port

    @property
    def key_source(self) -> Optional[str]:
        """Where the key of its requests comes from; None for requests without one."""
        if self._api_key is not None:
            if callable(self._api_key):
                return "the function api_key="
            return self._api_key.source if isinstance(self._api_key, NamedKey) else "api_key="
        named = {name.lower() for name in self._headers}
        if self._auth.header.lower() in named or "authorization" in named:
            return "headers="
        return None if self._parts.username is None else "the URL"

    def _check_origin(self, url: str) -> None:
        parts = check_url(url)
        if (parts.scheme, parts.netloc) != (self._parts.scheme, self._parts.netloc):
            raise ConfigError(
                f"{display_url(url)} is another server than {display_url(self.url)}, to which"
                " the key and the headers belong"
            )

    def _prepare(
        self, method: str, url: str, body: Optional[bytes], headers: Mapping[str, str]
    ) -> PreparedRequest:
        return self._session.prepare_request(
            requests.Request(method, url, data=body, headers=headers, auth=self._auth)
        )

    def _request(
        self,
        body: Optional[bytes],
        url: str,
        headers: Optional[Mapping[str, str]],
        method: Optional[str],
    ) -> PreparedRequest:
        """The request: for a post as the last one's, at a tenth of the cost.

        Two of them differ in nothing but the body, its length and headers of their own.
        """
        own = {
            check_header(name, "a header's name"): check_header(value, f"the header {name!r}")
            for name, value in (headers or {}).items()
        }
        if body is None or method is not None:
            method = method or ("GET" if body is None else "POST")
            return self._prepare(method, url, body, {**self._headers, **own})
        pattern = self._prepared
        if pattern is None or self._prepared_for != url:
            pattern = self._prepared = self._prepare("POST", url, b"{}", self._headers)
            self._prepared_for = url
        request = PreparedRequest()
        request.__dict__.update(pattern.__dict__)
        request.headers = pattern.headers.copy()
        request.headers["Content-Length"] = str(len(body))
        request.headers.update(own)
        request.body = body
        return self._auth(request) if own else request

    def _settings(self, url: str) -> Dict[str, Any]:
        """What the environment says of proxies and certificates; nothing of them to ourselves."""
        if self._loopback and url[:5] == "http:":
            return {"proxies": {}, "stream": True, "verify": self._verify, "cert": None}
        settings: Dict[str, Any] = dict(
            self._session.merge_environment_settings(url, {}, True, self._verify, self._cert)
        )
        if settings["verify"] is True:
            settings["verify"] = openssl_bundle() or True
        if isinstance(settings["verify"], str) and self._context is None:
            check_bundle(settings["verify"])
        if self._loopback:
            settings["proxies"] = {}
        proxy = select_proxy(url, settings["proxies"])
        if proxy:
            check_proxy(proxy, self._parts.scheme)
        return settings

    def _send(
        self,
        link: Link,
        body: Optional[bytes],
        url: Optional[str],
        headers: Optional[Mapping[str, str]],
        method: Optional[str],
    ) -> StreamResponse:
        """Send a request; returns once the headers are here.

        Raises:
            ConnectError: there was no answer.  What it says when `link.stop` has
                been cancelled means nothing.
            ProtocolError: what answered does not speak HTTP.
            ConfigError: the request cannot be sent.
        """
        target = url or self.url
        failure: Optional[AgentStreamError] = None
        current.link = link
        try:
            request = self._request(body, target, headers, method)
            if self._auth.asks:
                request.headers[self._auth.header] = self._auth.ask()
            settings = self._settings(request.url or target)
            # The adapter, not Session.send: that would read a redirect's body to its end.
            adapter: Any = self._session.get_adapter(target)
            response = adapter.send(request, timeout=(None, None), **settings)
        except AgentStreamError:
            raise
        except (FutureTimeout, *LOW_LEVEL) as error:
            failure = connect_error(error, link, target)
        finally:
            current.link = None
        if failure is not None:
            raise failure
        if not isinstance(response, StreamResponse):  # a test's stand-in adapter
            raw, response = response, StreamResponse()
            response.__dict__.update(raw.__dict__)
        response.limits = self.limits
        return response
