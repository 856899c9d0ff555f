"""Break: what a stream broke off with, kept while its dialect tries to go on."""

from __future__ import annotations

from typing import NamedTuple, Type

from agentstream.errors import (
    AgentStreamError,
    ConnectError,
    FirstTokenTimeout,
    ProtocolError,
    StatusError,
)

__all__ = ["Break"]

#: What a try at going on fails with, if it brings nothing.
_VAIN = (ConnectError, StatusError, FirstTokenTimeout, ProtocolError)


class Break(NamedTuple):
    """An error's type, its words and whether asking again may help; no traceback is kept."""

    kind: Type[AgentStreamError]
    message: str
    retryable: bool

    @classmethod
    def of(cls, error: AgentStreamError) -> Break:
        """The break that an error of a stream tells of."""
        return cls(type(error), str(error), error.retryable)

    @staticmethod
    def is_vain(error: AgentStreamError) -> bool:
        """True if a try at going on that failed so has brought nothing."""
        return isinstance(error, _VAIN)

    def after(self, error: AgentStreamError) -> AgentStreamError:
        """The break as an error, once going on has failed with `error`."""
        return self.kind(
            f"{self.message}; going on with it failed: {error}",
            phase="stream",
            retryable=self.retryable,
            outcome="unknown",
        )
