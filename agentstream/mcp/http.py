"""An MCP server over HTTP: which version it speaks, and the sessions of those before 2026-07-28.

Each request is tried as 2026-07-28 has it.  A 4xx that such a server would not give
makes it an older one, which is opened with `initialize` (MCP 2026-07-28, "Streamable
HTTP", section "Backward Compatibility").
"""

from __future__ import annotations

import http
import itertools
import logging
import time
import urllib.parse
from typing import Any, Dict, Mapping, NamedTuple, Optional, Set, Tuple

from agentstream import threads
from agentstream.cancel import CancelToken
from agentstream.errors import AgentStreamError, Cancelled, ConnectError, ProtocolError, StatusError
from agentstream.llm.transport import display_url
from agentstream.llm.transport.semaphore import FairSemaphore
from agentstream.mcp.headers import standard_headers
from agentstream.mcp.messages import (
    LEGACY,
    METHOD_NOT_FOUND,
    MODERN,
    MODERN_ERRORS,
    STANDARD_ERRORS,
    UNSUPPORTED_VERSION,
    Asked,
    MCPError,
    encode,
    encode_answer,
    error_of,
    initialize_params,
    is_answer,
    is_request,
    legacy_version,
    messages_in,
    mutual_version,
    result_of,
    with_meta,
)
from agentstream.mcp.posting import Answer, Poster

__all__ = ["HttpConnection"]

logger = logging.getLogger("agentstream.mcp")

#: Statuses that say nothing of the version.
_OF_NO_VERSION = (401, 403, 407, 408, 425, 429)
#: Seconds for what nobody shall wait for: to say that a call was cancelled, to end a session.
_BRIEF_S = 0.5
#: Waits before an older server's broken stream is asked for again, and how often.
_RETRY_MS, _MOST_RETRY_MS, _MOST_RESUMES = 1000, 60_000, 100

#: Origins whose servers were found to speak an older version.
_older: Set[Tuple[str, str]] = set()


class Session(NamedTuple):
    """What `initialize` settled; `id` is "" where the server keeps no session."""

    id: str
    version: str

    def headers(self) -> Dict[str, str]:
        """The headers of each request within it."""
        headers = {"MCP-Protocol-Version": self.version}
        return {**headers, "Mcp-Session-Id": self.id} if self.id else headers


class _Older(Exception):
    """The server does not speak a modern version; `error` is what it said instead."""

    def __init__(self, error: AgentStreamError) -> None:
        super().__init__(str(error))
        self.error = error


class _SessionGone(Exception):
    """404: the server has ended the session."""


class HttpConnection:
    """The server at one URL.  Any number of threads may use it.

    Attributes:
        mirrors: arguments that a schema marks go into headers.
    """

    mirrors = True

    def __init__(self, poster: Poster) -> None:
        self._poster = poster
        self._origin = urllib.parse.urlsplit(poster.url)[:2]
        self._ids = itertools.count(1)
        self._version = MODERN[0]
        self._is_modern = False
        self._closed = False
        self._after_fork()
        threads.after_fork(self)

    def _after_fork(self) -> None:
        self._session: Optional[Session] = None  # in a child: the session is the parent's
        self._about: Optional[Dict[str, Any]] = None  # of an older server
        self._turn = FairSemaphore(1)  # who opens a session

    def __repr__(self) -> str:
        return f"<HttpConnection {display_url(self._poster.url)}>"

    @property
    def protocol(self) -> str:
        """The version that is spoken."""
        session = self._session
        return self._version if session is None else session.version

    @property
    def address(self) -> Tuple[str, int]:
        """The server's host and port."""
        return self._poster.address

    def about(self, cancel: CancelToken) -> Dict[str, Any]:
        """What the server says of itself, asked now unless it has a session."""
        if self._session is None:
            try:
                return self.request(Asked("server/discover", {}), cancel)
            except MCPError:
                if self._about is None:  # else it is an older server, and was opened by that
                    raise
        return self._about or {}

    def request(self, asked: Asked, cancel: CancelToken) -> Dict[str, Any]:
        """The result of a request.

        Raises:
            MCPError: the server answered with an error.
            AgentStreamError: it did not answer; `outcome` tells whether it may have acted.
        """
        if self._closed:
            raise ConnectError("the connection to the MCP server was closed")
        session = self._session
        if session is None and self._origin in _older and not self._is_modern:
            try:
                session = self._open(None, cancel)
            except (StatusError, MCPError, ProtocolError):
                _older.discard(self._origin)  # it was another server that was
        if session is None:
            try:
                return self._ask_modern(asked, cancel)
            except _Older as older:
                logger.debug("%r speaks an older version: %s", self, older)
                session = self._open(None, cancel)
                _older.add(self._origin)
        try:
            return self._ask_in(session, asked, cancel)
        except _SessionGone:
            session = self._open(session, cancel)
            try:
                return self._ask_in(session, asked, cancel)
            except _SessionGone as gone:
                raise ProtocolError(f"{asked.method}: {gone}", phase="headers") from None

    def close(self, *, hurry: bool = False) -> None:
        """End the session, if there is one, and close the idle connections.  Idempotent.

        Takes half a second at most, whatever `hurry` says.
        """
        self._closed = True
        session, self._session = self._session, None
        if session is not None and session.id:
            try:
                with self._poster.exchange(
                    None, session.headers(), CancelToken(), timeout=_BRIEF_S, method="DELETE"
                ) as answer:
                    answer.error_text()
            except AgentStreamError as error:
                logger.debug("%r: the session could not be ended: %s", self, error)
        self._poster.close()

    # --- 2026-07-28 -------------------------------------------------------------------------

    def _ask_modern(self, asked: Asked, cancel: CancelToken) -> Dict[str, Any]:
        try:
            return self._try_modern(asked, cancel)
        except MCPError as error:
            if error.code != UNSUPPORTED_VERSION:
                raise
            self._agree_on_version(error)
        return self._try_modern(asked, cancel)

    def _try_modern(self, asked: Asked, cancel: CancelToken) -> Dict[str, Any]:
        number = next(self._ids)
        body = encode(asked.method, with_meta(asked.params, self._version), number)
        headers = {
            **standard_headers(asked.method, asked.params, self._version),
            **asked.headers,
            **asked.key_header(),
        }
        with self._poster.exchange(
            body, headers, cancel, timeout=asked.timeout, resend=asked.repeatable
        ) as answer:
            if not answer.ok:
                raise self._refusal(answer, asked, cancel)
            message = self._answer_to(number, answer, None, asked.method)
            if message is None:
                raise answer.broken()
        result = result_of(message, asked.method)
        self._is_modern = self._is_modern or "resultType" in result
        return result

    def _refusal(self, answer: Answer, asked: Asked, cancel: CancelToken) -> Exception:
        """What an HTTP error means: an error of the server's, or that it is an older one."""
        text = answer.error_text()
        said = _error_in(text, asked.method)
        not_found = answer.status == http.HTTPStatus.NOT_FOUND
        telling = (*MODERN_ERRORS, METHOD_NOT_FOUND) if not_found else MODERN_ERRORS
        if said is not None and said.code in telling:
            self._is_modern = True
            return said
        error: AgentStreamError = answer.failure(text)
        if not 400 <= answer.status < 500 or answer.status in _OF_NO_VERSION:
            return error
        if said is not None and (self._is_modern or self._discovers(said, cancel)):
            return said
        return error if self._is_modern else _Older(error)

    def _discovers(self, said: MCPError, cancel: CancelToken) -> bool:
        """True if the server answers `server/discover`, so that `said` is no word on versions."""
        if said.code not in STANDARD_ERRORS or said.method == "server/discover":
            return False
        try:
            found = self._try_modern(Asked("server/discover", {}), cancel)
            self._is_modern = "supportedVersions" in found
        except (_Older, MCPError):
            pass
        return self._is_modern

    def _agree_on_version(self, error: MCPError) -> None:
        """Take a version that the server says it has; raises `_Older`, or `error` for none."""
        supported = error.data.get("supported") if isinstance(error.data, dict) else None
        version = mutual_version(supported)
        if version is not None:
            self._version = version
        elif mutual_version(supported, LEGACY) is not None:
            raise _Older(error)
        else:
            raise error

    # --- before -----------------------------------------------------------------------------

    def _open(self, stale: Optional[Session], cancel: CancelToken) -> Session:
        """The session, a new one unless another thread has replaced the `stale` one."""
        if not self._turn.acquire(cancel):
            raise Cancelled(f"the call was stopped: {cancel.reason}", phase="connect")
        try:
            session = self._session
            if session is None or session is stale:
                session = self._initialize(cancel)
                self._session = session
            return session
        finally:
            self._turn.release()

    def _initialize(self, cancel: CancelToken) -> Session:
        number = next(self._ids)
        body = encode("initialize", initialize_params(), number)
        with self._poster.exchange(body, {}, cancel, resend=True) as answer:
            if not answer.ok:
                text = answer.error_text()
                raise _error_in(text, "initialize") or answer.failure(text)
            message = self._answer_to(number, answer, None, "initialize")
            if message is None:
                raise answer.broken()
            result = result_of(message, "initialize")
            session = Session(answer.headers.get("mcp-session-id", ""), legacy_version(result))
        self._about = result
        body = encode("notifications/initialized", {})
        with self._poster.exchange(body, session.headers(), cancel, resend=True) as answer:
            if not answer.ok:
                raise answer.failure(answer.error_text())
        return session

    def _ask_in(self, session: Session, asked: Asked, cancel: CancelToken) -> Dict[str, Any]:
        number = next(self._ids)
        body = encode(asked.method, asked.params, number)
        headers = {**session.headers(), **asked.key_header()}
        try:
            with self._poster.exchange(
                body, headers, cancel, timeout=asked.timeout, resend=asked.repeatable
            ) as answer:
                if answer.status == http.HTTPStatus.NOT_FOUND and session.id:
                    raise _SessionGone("the server knows its own session no more (HTTP 404)")
                if not answer.ok:
                    text = answer.error_text()
                    raise _error_in(text, asked.method) or answer.failure(text)
                message = self._answer_to(number, answer, session, asked.method)
            if message is None:
                message = self._resume(answer, number, session, asked, cancel)
        except (Cancelled, TimeoutError, KeyboardInterrupt):
            self._tell_cancelled(session, number, cancel.reason)
            raise
        return result_of(message, asked.method)

    def _resume(
        self, broken: Answer, number: int, session: Session, asked: Asked, cancel: CancelToken
    ) -> Mapping[str, Any]:
        """The answer that a stream still owes: it is asked for again from its last event on."""
        due = threads.NEVER if asked.timeout is None else time.monotonic() + asked.timeout
        last_id = broken.last_id
        for _ in range(_MOST_RESUMES if last_id else 0):
            wait = _RETRY_MS if broken.retry is None else min(broken.retry, _MOST_RETRY_MS)
            cancel.wait(min(wait / 1000, due - time.monotonic()))
            left = None if due == threads.NEVER else max(due - time.monotonic(), 0.001)
            headers = {"Last-Event-ID": last_id, "Accept": "text/event-stream"}
            with self._poster.exchange(
                None, {**session.headers(), **headers}, cancel, timeout=left, resend=True
            ) as answer:
                broken = answer
                if not answer.ok:
                    break
                message = self._answer_to(number, answer, session, asked.method)
            if message is not None:
                return message
            last_id = answer.last_id or last_id
        raise broken.broken()

    def _tell_cancelled(self, session: Session, number: int, reason: str) -> None:
        """An older server does not take a closed connection for a cancel: say it."""
        params = {"requestId": number, "reason": reason or "the call is given up"}
        self._say(encode("notifications/cancelled", params), session, CancelToken())

    def _say(self, body: bytes, session: Session, cancel: CancelToken) -> None:
        try:
            with self._poster.exchange(
                body, session.headers(), cancel, timeout=_BRIEF_S, resend=True
            ) as answer:
                if not answer.ok:
                    logger.debug("%r: HTTP %d for a message of ours", self, answer.status)
        except AgentStreamError as error:
            logger.debug("%r: a message could not be sent: %s", self, error)

    # --- both -------------------------------------------------------------------------------

    def _answer_to(
        self, number: int, answer: Answer, session: Optional[Session], method: str
    ) -> Optional[Mapping[str, Any]]:
        """The message that answers a request; None if a stream ends without it.

        What else an older server asks on the way is answered; notifications are passed over.

        Raises:
            ProtocolError: the body is JSON, and answers something else.
        """
        for message in answer.messages():
            if is_answer(message) and message["id"] == number:
                return message
            if session is not None and is_request(message):
                self._say(encode_answer(message), session, CancelToken())
            elif "method" not in message:
                logger.warning("%r: an answer to what was not asked is dropped", self)
        if not answer.streamed:
            raise ProtocolError(
                f"{method}: the server answered another request", phase="stream", outcome="unknown"
            )
        return None


def _error_in(text: str, method: str) -> Optional[MCPError]:
    """The JSON-RPC error that the body of an HTTP error holds; None for none."""
    try:
        return next((error_of(message, method) for message in messages_in(text)), None)
    except ValueError:
        return None
