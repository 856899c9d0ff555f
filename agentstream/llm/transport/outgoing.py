"""The trace that what is sent belongs to; whoever traces runs says which it is, for a context.

Nothing here knows OpenTelemetry: otel/ does, and sets `outgoing` for each run that it traces.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Callable, ContextManager, Mapping, Optional, Protocol, Tuple

__all__ = ["call_span", "outgoing", "trace_headers"]


if TYPE_CHECKING:
    #: Takes the `error.type` of a call that failed and raises nothing.
    Fail = Callable[[str], object]

    class Outgoing(Protocol):
        """What is to be known of what leaves this process."""

        def headers(self) -> Mapping[str, str]:
            """The headers that tell a server the trace of this moment; none unless asked for."""

        def call(
            self, method: str, name: str, address: Optional[Tuple[str, int]], protocol: str
        ) -> ContextManager[Fail]:
            """A span around a call of an MCP server's; what it gives notes how the call failed."""


#: Of the run that this context is part of; None: nobody traces it.
outgoing: ContextVar[Optional[Outgoing]] = ContextVar("agentstream_outgoing", default=None)


def _note_nothing(error_type: str) -> None:
    pass


def trace_headers() -> Mapping[str, str]:
    """The headers of a request that say which trace it belongs to; most have none."""
    trace = outgoing.get()
    return {} if trace is None else trace.headers()


def call_span(
    method: str, name: str, address: Optional[Tuple[str, int]], protocol: str
) -> ContextManager[Fail]:
    """For a `with` block around a call to an MCP server: its span, where calls are traced.

    What is raised in it is noted; a failure that is no exception is told to what it gives.

    Args:
        method: MCP's, "tools/call" say.
        name: what is called, as the server names it.
        address: the server's host and port; None for one over pipes.
        protocol: the version that is spoken.
    """
    trace = outgoing.get()
    if trace is None:
        return contextlib.nullcontext(_note_nothing)
    return trace.call(method, name, address, protocol)
