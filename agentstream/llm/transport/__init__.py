"""The only importer of requests and urllib3: a session whose answers stream promptly
and whose sockets another thread can shut.

Three extension points carry it: `HTTPAdapter.build_response` gives responses an
`iter_lines` that is right in every framing (response.py); `pool_classes_by_scheme`
gives connections that hand their socket to the call they serve (link.py); and
the exceptions of both libraries end here, as ours (problems.py).
"""

from __future__ import annotations

from agentstream.llm.transport.drain import settle
from agentstream.llm.transport.link import Link
from agentstream.llm.transport.problems import LOW_LEVEL, broken_by, truncated
from agentstream.llm.transport.response import StreamResponse
from agentstream.llm.transport.session import Transport
from agentstream.llm.transport.urls import display_url, secrets_in

__all__ = [
    "LOW_LEVEL",
    "Link",
    "StreamResponse",
    "Transport",
    "broken_by",
    "display_url",
    "secrets_in",
    "settle",
    "truncated",
]
