"""Admission: one attempt of a call at a rate limit, from the wait to what it has cost."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Callable, Mapping, Optional, Type

from agentstream.cancel import CancelToken
from agentstream.errors import AgentStreamError, RateLimited, ServerError, StatusError
from agentstream.llm.deadlines import Deadlines
from agentstream.llm.rate_limit.limit import RateLimit, Share
from agentstream.llm.retry_hints import what_is_left
from agentstream.llm.settings import Retries
from agentstream.results import Usage

__all__ = ["Admission"]


class Admission:
    """A context manager around an attempt; `enter` waits for its share.

    Args:
        limit: the limit.
        body: the request.
        deadlines: the call's.
        retries: the client's, which say how long a server may ask to wait.
        usage: gives what the server has counted; None if nothing.
    """

    def __init__(
        self,
        limit: RateLimit,
        body: Mapping[str, Any],
        deadlines: Deadlines,
        retries: Retries,
        usage: Callable[[], Optional[Usage]],
    ) -> None:
        self._limit = limit
        self._body = body
        self._deadlines = deadlines
        self._retries = retries
        self._usage = usage
        self._share: Optional[Share] = None

    def enter(self, stop: CancelToken) -> None:
        """Wait until the request may go out.

        Raises:
            Cancelled: `stop` was cancelled before.
        """
        if self._limit.within_first_token:
            self._deadlines.begin_first_token()
        self._share = self._limit.take(self._limit.estimator.tokens(self._body), stop)

    def heard(self, headers: Mapping[str, str]) -> None:
        """The answer's headers are here."""
        if self._share is None:
            return  # of a recording: nothing was sent
        left = what_is_left(headers, time.time())
        if left:
            self._limit.note_left(left)

    def __enter__(self) -> Admission:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        share, self._share = self._share, None
        if share is None:
            return
        # An answer that was left before its end, or broke off, stays as it was estimated.
        if error is None:
            self._settle(share)
        elif isinstance(error, AgentStreamError):
            self._failed(share, error)

    def _settle(self, share: Share) -> None:
        usage = self._usage()
        if usage is None or usage.estimated:
            return
        self._limit.estimator.learn(self._body, usage)
        tokens = usage.total_tokens
        if tokens is None and usage.prompt_tokens is not None:
            tokens = usage.prompt_tokens + (usage.completion_tokens or 0)
        if tokens is not None:
            share.correct(tokens)

    def _failed(self, share: Share, error: AgentStreamError) -> None:
        if isinstance(error, StatusError):
            share.give_back(request=False)  # a provider counts what it refuses, too
        elif error.phase in ("", "connect", "tls") and error.outcome == "failed":
            share.give_back(request=True)
        if isinstance(error, (RateLimited, ServerError)):
            asked = error.retry_after
            if asked is None and isinstance(error, RateLimited) and error.retryable:
                asked = self._retries.backoff
            if asked and asked <= self._retries.max_retry_after:
                self._limit.pause(asked)
