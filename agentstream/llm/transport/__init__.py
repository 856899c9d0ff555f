"""The only importer of requests and urllib3: HTTP whose answers stream promptly, and
whose sockets another thread can shut.

    with transport.exchange(body, stop) as exchange:
        for line in exchange.lines(): ...

`session` has one server's session and pool; `exchange` one request and its answer;
`link` ties a request to its socket, `adapter` hands the sockets over; `body` undoes
the framing, `response` cuts lines, `drain` ends a whole answer; `problems` turns
what the libraries raise into our errors; `watching` shows what is sent, when asked to, and
`outgoing` says which trace it belongs to.
"""

from __future__ import annotations

# First, and from here: deeper in the stack of imports CPython 3.11 compiles urllib3's regular
# expressions four times slower, as each call there crosses the end of a chunk of its stack.
import requests  # noqa: F401

from agentstream.llm.transport.exchange import Exchange, Timer
from agentstream.llm.transport.outgoing import call_span, outgoing, trace_headers
from agentstream.llm.transport.session import ApiKey, Cert, Transport, Verify
from agentstream.llm.transport.urls import (
    at_path,
    check_header,
    check_url,
    display_url,
    place_of,
    secrets_in,
)
from agentstream.llm.transport.watching import watching

__all__ = [
    "ApiKey",
    "Cert",
    "Exchange",
    "Timer",
    "Transport",
    "Verify",
    "at_path",
    "call_span",
    "check_header",
    "check_url",
    "display_url",
    "outgoing",
    "place_of",
    "secrets_in",
    "trace_headers",
    "watching",
]
