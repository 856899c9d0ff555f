"""Transport: one server's requests session, shared by all threads."""

from __future__ import annotations

import http.cookiejar
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Dict, Mapping, Optional, Union

import requests
import requests.auth
from requests.models import PreparedRequest

from agentstream import threads
from agentstream.cancel import CancelToken
from agentstream.errors import AgentStreamError
from agentstream.llm.settings import Limits
from agentstream.llm.transport.adapter import Adapter
from agentstream.llm.transport.exchange import Exchange, Timer
from agentstream.llm.transport.link import Link, current
from agentstream.llm.transport.problems import LOW_LEVEL, connect_error
from agentstream.llm.transport.response import StreamResponse
from agentstream.llm.transport.semaphore import FairSemaphore
from agentstream.llm.transport.urls import authorization, check_header, check_url, is_loopback

__all__ = ["Transport"]


class _Auth(requests.auth.AuthBase):
    """Sets our Authorization and, by being there, keeps netrc's out."""

    def __init__(self, value: Optional[str]) -> None:
        self._value = value

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        if self._value is not None:
            request.headers["Authorization"] = self._value
        return request


class Transport:
    """Sends requests to one server.  Any number of threads may use one.

    Args:
        url: where requests are posted.
        api_key: sent as a bearer token; None for none.
        headers: further headers of every request.
        verify: True, False, or the path of a CA bundle, which then wins over
            REQUESTS_CA_BUNDLE.
        limits: `Limits`.

    Raises:
        ConfigError: the URL, the key or a header cannot be sent.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: Optional[str],
        headers: Mapping[str, str],
        verify: Union[bool, str],
        limits: Limits,
    ) -> None:
        self.url = url
        self.limits = limits
        self._verify = verify
        parts = check_url(url)
        self._loopback = is_loopback(parts.hostname or "")
        self._auth = _Auth(authorization(api_key, parts))
        self._headers = {
            "Accept": "text/event-stream, application/json",
            "Accept-Encoding": "identity",  # unflushed gzip would hold tokens back
            "Content-Type": "application/json",
            "User-Agent": "agentstream",
        }
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
        adapter = Adapter(pool_connections=2, pool_maxsize=self.limits.pool_size)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)
        # No server of ours sets cookies to good ends, and a jar is shared by all threads.
        self._session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        self.places = FairSemaphore(self.limits.pool_size)

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
    ) -> Exchange:
        """A request and its answer, to be used in a `with` block.

        Redirects are not followed.

        Args:
            body: what is posted; None for a GET.
            stop: ends the exchange, from any thread.
            url: default: the transport's own.
            headers: of this request, over those of every request.
            timer, resend: see `Exchange`, which says what is raised, too.
        """

        def send(link: Link) -> StreamResponse:
            return self._send(link, body, url, headers)

        return Exchange(send, self.places, stop, timer=timer, resend=resend)

    def _prepare(
        self, method: str, url: str, body: Optional[bytes], headers: Mapping[str, str]
    ) -> PreparedRequest:
        return self._session.prepare_request(
            requests.Request(method, url, data=body, headers=headers, auth=self._auth)
        )

    def _request(
        self, body: Optional[bytes], url: str, headers: Optional[Mapping[str, str]]
    ) -> PreparedRequest:
        """The request: for a post as the last one's, at a tenth of the cost.

        Two of them differ in nothing but the body and its length.
        """
        if body is None or headers:
            return self._prepare(
                "GET" if body is None else "POST", url, body, {**self._headers, **(headers or {})}
            )
        pattern = self._prepared
        if pattern is None or self._prepared_for != url:
            pattern = self._prepared = self._prepare("POST", url, b"{}", self._headers)
            self._prepared_for = url
        request = PreparedRequest()
        request.__dict__.update(pattern.__dict__)
        request.headers = pattern.headers.copy()
        request.headers["Content-Length"] = str(len(body))
        request.body = body
        return request

    def _settings(self, url: str) -> Dict[str, Any]:
        """What the environment says of proxies and certificates; nothing of them to ourselves."""
        if self._loopback and url[:5] == "http:":
            return {"proxies": {}, "stream": True, "verify": self._verify, "cert": None}
        settings: Dict[str, Any] = dict(
            self._session.merge_environment_settings(url, {}, True, self._verify, None)
        )
        if self._loopback:
            settings["proxies"] = {}
        return settings

    def _send(
        self,
        link: Link,
        body: Optional[bytes],
        url: Optional[str],
        headers: Optional[Mapping[str, str]],
    ) -> StreamResponse:
        """Send a request; returns once the headers are here.

        Raises:
            ConnectError: there was no answer.  What it says when `link.stop` has
                been cancelled means nothing.
            ProtocolError: what answered does not speak HTTP.
        """
        target = url or self.url
        failure: Optional[AgentStreamError] = None
        current.link = link
        try:
            request = self._request(body, target, headers)
            settings = self._settings(request.url or target)
            # The adapter, not Session.send: that would read a redirect's body to its end.
            adapter: Any = self._session.get_adapter(target)
            response = adapter.send(request, timeout=(None, None), **settings)
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
