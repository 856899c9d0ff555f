"""A way to a llama.cpp server on which answers break off after a number of content deltas."""

from __future__ import annotations

import re
import ssl
import urllib.parse
from collections import deque
from typing import Deque, Optional

from agentstream.testing import TCPProxy

_DELTA = re.compile(rb'"delta":\{"content":"(?:[^"\\]|\\.)*"\}[^\n]*\n\n')


class DeltaCuts:
    """A proxy to the server at a URL, for one request at a time; a context manager.

    It looks at the bytes of a stream, in whatever framing.  With `context` it speaks TLS to
    clients, for a server that was built without.

    Attributes:
        url: where clients connect.
        plans: for each request to come, after how many content deltas its connection is
            cut; None or nothing for never.
    """

    def __init__(self, url: str, context: Optional[ssl.SSLContext] = None) -> None:
        port = urllib.parse.urlsplit(url).port
        assert port is not None
        self._proxy = TCPProxy(port, context=context)
        self._proxy.cut_after_request = self._see
        self._proxy.cut_reply = self._cut
        self.url = f"{'http' if context is None else 'https'}://127.0.0.1:{self._proxy.port}"
        self.plans: Deque[Optional[int]] = deque()
        self._answered = True
        self._left: Optional[int] = None
        self._tail = b""  # of the answer, from the last whole delta on

    @property
    def cuts(self) -> int:
        """How many were carried out."""
        return self._proxy.cuts

    def _see(self, sent: bytes) -> bool:
        if sent.startswith(b"POST"):
            self._answered = False
        return False

    def _cut(self, data: bytes) -> Optional[int]:
        if not self._answered:  # not before: on a stale connection the client comes again
            self._answered = True
            self._left, self._tail = (self.plans.popleft() if self.plans else None), b""
        before, text = len(self._tail), self._tail + data
        end = 0
        for match in _DELTA.finditer(text):
            end = match.end()
            if self._left is not None:
                self._left -= 1
                if not self._left:
                    return end - before
        self._tail = text[end:]
        return None

    def close(self) -> None:
        self._proxy.close()

    def __enter__(self) -> DeltaCuts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
