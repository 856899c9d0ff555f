"""The one error tree.

Every failure a caller can meet is a class here, so that `except` clauses read
like the manual: what broke, whether it is worth another try, and what had
arrived before it did.  Nothing here knows how an error comes about; no message
built from these classes may carry a key, a prompt or a header.
"""

from __future__ import annotations

from concurrent.futures import CancelledError as _FutureCancelled
from typing import Any, Optional, Tuple, Union

from agentstream.results import ChatResponse, PendingCall, PendingSignal, Usage, WorkflowRun

__all__ = [
    "AgentStreamError",
    "AuthError",
    "BadRequest",
    "Busy",
    "Cancelled",
    "Closed",
    "ConfigError",
    "ConnectError",
    "ConnectTimeout",
    "DeadlineExceeded",
    "FirstTokenTimeout",
    "LimitExceeded",
    "LogError",
    "NotDone",
    "OffsetGone",
    "OutputInvalid",
    "ProtocolError",
    "ProviderStreamError",
    "RateLimited",
    "ServerError",
    "StallTimeout",
    "StatusError",
    "StreamError",
    "StreamTruncated",
    "Suspended",
    "ToolError",
    "ToolTimeout",
    "WorkflowFailed",
]


class AgentStreamError(Exception):
    """Base of every error this library raises, but for misuse (a RuntimeError).

    Attributes:
        partial: the `ChatResponse` summed up to the failure; None where no
            call to a model was under way (a configuration error, say).
        phase: "connect", "tls", "headers", "stream", "tool" or "log"; "" when
            none of them applies.
        retryable: True where the same request may succeed later.
        request_id: the server's id for the request, when it sent one.
        outcome: "failed" when the request certainly had no effect or ended in
            an error, "unknown" when the server may have carried it out.
        earlier: of a `FallbackClient` all of whose clients failed: the errors of the
            others, in the order in which they were asked.
    """

    partial: Optional[ChatResponse]
    earlier: Tuple[AgentStreamError, ...] = ()

    def __init__(
        self,
        message: str = "",
        *,
        partial: Optional[ChatResponse] = None,
        phase: str = "",
        retryable: bool = False,
        request_id: Optional[str] = None,
        outcome: str = "failed",
    ) -> None:
        super().__init__(message)
        self.partial = partial
        self.phase = phase
        self.retryable = retryable
        self.request_id = request_id
        self.outcome = outcome


class ConfigError(AgentStreamError, ValueError):
    """A setting is missing or wrong; nothing was sent.

    Attributes:
        setting: its name; "" where the trouble is none of a single setting's.
        reason: what is wrong with it, without the name ("must be 0 or more, not -1").
    """

    def __init__(
        self, message: str = "", *, setting: str = "", reason: str = "", **common: Any
    ) -> None:
        super().__init__(message, **common)
        self.setting = setting
        self.reason = reason or message

    @classmethod
    def about(cls, setting: str, reason: str, of: str = "") -> ConfigError:
        """The error whose message is the setting's name and the reason, after its owner's, `of`."""
        owner = f"{of}: " if of else ""
        return cls(f"{owner}{setting} {reason}", setting=setting, reason=reason)


class ConnectError(AgentStreamError):
    """No usable connection: name, refusal, certificate, proxy, or a server that hung up."""


class ConnectTimeout(ConnectError, TimeoutError):
    """`Timeouts.connect` passed before the connection (TLS included) stood."""


class FirstTokenTimeout(AgentStreamError, TimeoutError):
    """`Timeouts.first_token` passed before the first text, reasoning or tool-call delta."""


class StallTimeout(AgentStreamError, TimeoutError):
    """`Timeouts.stall` passed without a byte of a data line, in mid-stream."""


class DeadlineExceeded(AgentStreamError, TimeoutError):
    """`Timeouts.total` passed."""


class StatusError(AgentStreamError):
    """The server answered with an HTTP status that is not a success.

    Attributes:
        status: the HTTP status code.
        body: the answer's body, cut to 1 KiB of text.
        location: where a redirect pointed; None otherwise.  It was not followed.
        url: where the request went, without user, password and query; "" if unknown.
    """

    url: str = ""

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 0,
        body: str = "",
        location: Optional[str] = None,
        **common: Any,
    ) -> None:
        super().__init__(message, **common)
        self.status = status
        self.body = body
        self.location = location


class BadRequest(StatusError):
    """3xx and 4xx: the request itself is at fault, and will be again."""


class AuthError(StatusError):
    """401 and 403: the key is missing, wrong or not allowed to do this.

    Attributes:
        key_source: of a 401, where the key came from: "OPENAI_API_KEY", "api_key=" ...;
            None if none was sent.
    """

    key_source: Optional[str] = None


class RateLimited(StatusError):
    """429.

    Attributes:
        retry_after: seconds the server asked to wait; None when it said nothing.
    """

    def __init__(
        self, message: str = "", *, retry_after: Optional[float] = None, **common: Any
    ) -> None:
        super().__init__(message, **common)
        self.retry_after = retry_after


class ServerError(StatusError):
    """5xx, and 408 and 409, which ask for another try just the same.

    Attributes:
        retry_after: seconds the server asked to wait; None when it said nothing.
    """

    def __init__(
        self, message: str = "", *, retry_after: Optional[float] = None, **common: Any
    ) -> None:
        super().__init__(message, **common)
        self.retry_after = retry_after


class StreamError(AgentStreamError):
    """The answer began and then went wrong."""


class StreamTruncated(StreamError):
    """The stream ended without `[DONE]` and without a finish_reason."""


class ProtocolError(StreamError):
    """What arrived is not a chat-completions stream.

    Attributes:
        raw: the offending text, cut to 1 KiB.
        content_type: the answer's Content-Type, where that was the trouble.
    """

    def __init__(
        self,
        message: str = "",
        *,
        raw: str = "",
        content_type: Optional[str] = None,
        **common: Any,
    ) -> None:
        super().__init__(message, **common)
        self.raw = raw
        self.content_type = content_type


class ProviderStreamError(StreamError):
    """The server reported an error in mid-stream.

    Attributes:
        code: the provider's own code or type, as text; None when it gave none.
        body: the payload as it came, cut to 1 KiB.
    """

    def __init__(
        self, message: str = "", *, code: Optional[str] = None, body: str = "", **common: Any
    ) -> None:
        super().__init__(message, **common)
        self.code = code
        self.body = body


class LimitExceeded(AgentStreamError):
    """A bound of `Limits`, or an agent's `max_rounds` or `repeat_limit`, was reached.

    So was that of an answer's tokens, or a filter, where `on_cut` is "fail".  Or a request
    would have passed a `Budget`, and was not made.

    Attributes:
        limit: the name of the bound: "line", "max_rounds", "max_tokens", "budget_tokens",
            "budget_cost" ...
        spent: of a budget what its requests have used so far; None otherwise.
        most: of a budget the bound: tokens, or money.
        needed: of a budget what the next request may take, about.
    """

    def __init__(
        self,
        message: str = "",
        *,
        limit: str = "",
        spent: Optional[Usage] = None,
        most: Optional[float] = None,
        needed: Optional[float] = None,
        **common: Any,
    ) -> None:
        super().__init__(message, **common)
        self.limit = limit
        self.spent = spent
        self.most = most
        self.needed = needed


class OutputInvalid(AgentStreamError):
    """An answer is not what `output` asked for, after all its retries.

    Attributes:
        value: the answer's JSON value as it came, of a cut one as far as it got; None
            if it held none.
        problems: what is wrong with it, each with its `path` (keys and places) and `text`.
        cut: True if the answer broke off before its end, at `max_tokens` say.
    """

    def __init__(
        self,
        message: str = "",
        *,
        value: Any = None,
        problems: Tuple[Any, ...] = (),
        cut: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(message, **common)
        self.value = value
        self.problems = problems
        self.cut = cut


class ToolError(AgentStreamError):
    """A tool call went wrong: unknown name, bad arguments, or the tool raised.

    Attributes:
        tool: the name the model asked for.
    """

    def __init__(self, message: str = "", *, tool: str = "", **common: Any) -> None:
        common.setdefault("phase", "tool")
        super().__init__(message, **common)
        self.tool = tool


class ToolTimeout(ToolError, TimeoutError):
    """A tool did not come back within its time."""


class WorkflowFailed(AgentStreamError):
    """A run ended in failure; `__cause__` is the typed error that ended it.

    Attributes:
        run: the `WorkflowRun`, with every word that had arrived.
    """

    def __init__(
        self, message: str = "", *, run: Optional[WorkflowRun] = None, **common: Any
    ) -> None:
        super().__init__(message, **common)
        self.run = run


class LogError(AgentStreamError):
    """The event log refused or failed: full, locked, damaged, or written by another owner."""

    def __init__(self, message: str = "", **common: Any) -> None:
        common.setdefault("phase", "log")
        super().__init__(message, **common)


class Busy(AgentStreamError):
    """Somebody else has it: a lock by name, or a run that is to be made once and is under way."""

    def __init__(self, message: str = "", **common: Any) -> None:
        common.setdefault("retryable", True)
        super().__init__(message, **common)


class NotDone(AgentStreamError, TimeoutError):
    """A run that another process may be executing has not ended in time; it goes on.

    Attributes:
        status: the run's, as `RunState.status`.
    """

    def __init__(self, message: str = "", *, status: str = "", **common: Any) -> None:
        common.setdefault("retryable", True)
        super().__init__(message, **common)
        self.status = status


class OffsetGone(LogError):
    """The history asked for is not there.

    Attributes:
        first: the first offset that can be read; 0 when none can.
        last: the last one.
    """

    def __init__(self, message: str = "", *, first: int = 0, last: int = 0, **common: Any) -> None:
        super().__init__(message, **common)
        self.first = first
        self.last = last


class Suspended(AgentStreamError):
    """A run cannot go on before somebody has answered; its process is done with it.

    Raised by `RunContext.run`, for a function or tool to let pass; a run that was
    submitted gives a `WorkflowRun` whose status is "suspended".

    Attributes:
        pending: what is asked, as `WorkflowRun.pending` has it.
    """

    def __init__(
        self,
        message: str = "",
        *,
        pending: Tuple[Union[PendingCall, PendingSignal], ...] = (),
        **common: Any,
    ) -> None:
        super().__init__(message, **common)
        self.pending = pending


class Closed(AgentStreamError):
    """A subscription has no more events: the run has ended, or it was closed."""


class Cancelled(AgentStreamError, _FutureCancelled):
    """The work was stopped on request.

    Attributes:
        run: the `WorkflowRun` when a run was stopped; None for a single call.
    """

    def __init__(
        self, message: str = "", *, run: Optional[WorkflowRun] = None, **common: Any
    ) -> None:
        super().__init__(message, **common)
        self.run = run
