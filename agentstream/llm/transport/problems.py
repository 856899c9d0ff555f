"""What requests, urllib3, ssl and socket raise -> our errors, in our words."""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.parse
from typing import TYPE_CHECKING, Any, Dict, Iterable, Iterator, List, Optional

import requests
import urllib3.exceptions

from agentstream.errors import AgentStreamError, ConnectError, ProtocolError
from agentstream.llm.transport.head import CutHead, NotHTTP, Unasked, UnclearHead
from agentstream.llm.transport.socks import SocksError

if TYPE_CHECKING:
    from agentstream.llm.transport.link import Link

__all__ = ["LOW_LEVEL", "broken_by", "connect_error"]

#: Whatever urllib3, http.client, ssl or socket may raise under a read, and what
#: their objects raise when a socket is shut under them.
LOW_LEVEL = (
    OSError,
    http.client.HTTPException,
    urllib3.exceptions.HTTPError,
    requests.RequestException,
    AttributeError,
    ValueError,
)

#: What ssl says of a server that left in the handshake; which of them, OpenSSL's version decides.
_HUNG_UP = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)

#: ... and of one that answers a handshake with something else, in plain HTTP perhaps.
_NO_TLS = (
    *("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "UNKNOWN_PROTOCOL"),
    *("RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "RECORD_TOO_SMALL"),
)


def connect_error(error: BaseException, link: Link, url: str) -> AgentStreamError:
    """What an exception before the headers means, in our words.

    To be raised where that exception is no more: it holds the request, and that
    holds the key; its traceback holds the socket.
    """
    chain = list(_chain(error))
    parts = urllib.parse.urlsplit(url)
    place = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    common: Dict[str, Any] = {"phase": link.phase, "retryable": True}
    certificate = _find(chain, ssl.SSLCertVerificationError)
    if certificate is not None:
        reason = getattr(certificate, "verify_message", "") or "it cannot be verified"
        return ConnectError(
            f"the certificate of {place} was refused: {reason}"
            " (verify= takes the path of a CA bundle)",
            phase="tls",
        )
    for item in chain:
        if "Tunnel connection failed" in str(item):
            text = str(item).split("Tunnel connection failed:", 1)[1].strip(" '\")")[:1024]
            return ConnectError(
                f"the proxy refused to connect to {place}: {text}",
                phase="connect",
                retryable=text[:1] == "5",
            )
    problem = _os_error(chain)
    if isinstance(problem, SocksError):
        reason = f"the proxy did not connect to {place}: {problem}"
        return ConnectError(reason, phase="connect", retryable=problem.retryable)
    if isinstance(problem, socket.gaierror):
        return ConnectError(f"cannot resolve {place}: {_reason(problem)}", **common)
    if isinstance(problem, ssl.SSLError) and not isinstance(problem, _HUNG_UP):
        common["retryable"] = False
        reason = getattr(problem, "reason", None) or "unknown reason"
        hint = f"; it speaks no TLS there: http://{place}?" if reason in _NO_TLS else ""
        return ConnectError(f"TLS with {place} failed: {reason}{hint}", **common)
    if link.sent:
        return _unanswered(chain, link, place)
    link.foreign = _find(chain, Unasked) is not None
    reason = _reason(problem) if problem is not None else type(chain[-1]).__name__
    return ConnectError(f"cannot connect to {place}: {reason}", **common)


def _unanswered(chain: List[BaseException], link: Link, place: str) -> AgentStreamError:
    """The request was sent, and no status line came back."""
    trouble = _find(chain, http.client.HTTPException)
    link.answered = isinstance(trouble, (CutHead, UnclearHead))
    link.foreign = isinstance(trouble, NotHTTP)
    if isinstance(trouble, UnclearHead):
        return ProtocolError(f"the answer of {place} is unclear: {trouble}", phase="headers")
    if trouble is not None and not isinstance(trouble, (CutHead, ConnectionError)):
        return ProtocolError(
            f"{place} answered something that is not HTTP ({trouble})", phase="headers"
        )
    return ConnectError(
        f"{place} took the request and hung up without an answer",
        phase=link.phase,
        retryable=True,
        outcome="unknown",
    )


def _reason(problem: OSError) -> str:
    return problem.strerror or str(problem) or type(problem).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and all that it wraps, in whichever way."""
    seen = set()
    queue: List[Any] = [error]
    while queue:
        item = queue.pop(0)
        if not isinstance(item, BaseException) or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        queue += [*item.args, getattr(item, "reason", None), item.__cause__, item.__context__]


def _find(chain: List[BaseException], kind: type) -> Optional[BaseException]:
    return next((item for item in chain if isinstance(item, kind)), None)


def _os_error(chain: Iterable[BaseException]) -> Optional[OSError]:
    """What the system said.  requests' exceptions are OSErrors too, and only wrap it."""
    for item in chain:
        if isinstance(item, OSError) and item.args:
            if not isinstance(item, requests.RequestException):
                return item
    return None


def broken_by(error: BaseException) -> str:
    """What an exception under a read says, in words of ours: "Connection reset by peer"."""
    problem = _os_error(_chain(error))
    return _reason(problem) if problem is not None else "the connection broke"
