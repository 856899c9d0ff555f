"""The end of a whole answer: its connection is made fit for the next request, or closed."""

from __future__ import annotations

import socket
import time

from agentstream import threads
from agentstream.llm.transport.body import Body
from agentstream.llm.transport.link import Link
from agentstream.llm.transport.poll import has_bytes, readable
from agentstream.llm.transport.problems import LOW_LEVEL
from agentstream.llm.transport.response import StreamResponse

__all__ = ["drain"]

#: What a body's end may cost: seconds the caller waits for a byte and in all, seconds
#: altogether, bytes.
_GAP_S, _AT_ONCE_S = 0.001, 0.01
_MOST_S = 0.1
_MOST = 65536


def drain(response: StreamResponse, link: Link) -> None:
    """End a whole answer: leave its connection fit for the next request, or close it.

    What a server sends after the last event is at most the end of the body.  If
    that is not here within a millisecond, a thread waits for it and the caller
    goes on; after 100 ms or 64 KiB the connection is closed, whatever comes.
    """
    body = response.body
    sock = getattr(getattr(response.raw, "connection", None), "sock", None)
    if not link.release() or body is None or body.over or sock is None:
        response.close()  # of a body that is over, urllib3 has the connection back
        return
    rest = _Rest(response, body, sock)
    if rest.skip(_GAP_S, _AT_ONCE_S):
        response.close()
        return
    try:
        threads.start_thread("drain", rest.skip_and_close)
    except RuntimeError:
        response.close()


class _Rest:
    """What is still to come of a body."""

    def __init__(self, response: StreamResponse, body: Body, sock: socket.socket) -> None:
        self._response = response
        self._body = body
        self._sock = sock
        self._until = time.monotonic() + _MOST_S
        self._left = _MOST

    def skip(self, gap: float, most: float) -> bool:
        """Skip while bytes come, no more than `gap` seconds apart, for `most` seconds.

        False if there is still time and room to wait for more.
        """
        until = min(time.monotonic() + most, self._until)
        try:
            while not self._body.over:
                if not self._wait(min(time.monotonic() + gap, until)):
                    break
                self._left -= self._body.skip()
                if self._left <= 0 or time.monotonic() >= until:
                    break
        except LOW_LEVEL:
            return True
        return self._body.over or self._left <= 0 or time.monotonic() >= self._until

    def skip_and_close(self) -> None:
        """Skip as much as there may be, and end the response."""
        try:
            self.skip(_MOST_S, _MOST_S)
        finally:
            self._response.close()

    def _wait(self, until: float) -> bool:
        """True once there is a byte; False if there is none by `until`.

        Raises:
            OSError: the connection is broken or at its end.
        """
        reader = self._body.reader
        if reader is None:
            return False
        while True:
            there = has_bytes(reader, self._sock)
            if there:
                return True
            if there is None:
                raise ConnectionError("at its end")
            left = until - time.monotonic()
            if left <= 0 or not readable(self._sock, left):
                return False
