"""Watches: threads that wait for what other processes write, one connection each."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, List, Optional, Tuple

from agentstream import threads
from agentstream.errors import LogError
from agentstream.events.redis.server import Link, Server
from agentstream.events.stop_callbacks import StopCallbacks
from agentstream.threads.wakeup import Wakeup

__all__ = ["News", "StopWatch", "Watch"]

logger = logging.getLogger("agentstream.events.redis")

_BLOCK_S = 2.0
_RETRY_S = 0.1
_MOST_TOLD = 10_000  # runs that were stopped
_MOST_RECENT = 500  # entries of the log's own stream


class Watch:
    """Waits for entries of one stream, in a thread; goes on when the server comes back.

    Args:
        server: the log's.
        stream: the stream's name, behind what all keys of the log begin with.
        thread: the thread's name.
    """

    def __init__(self, server: Server, stream: bytes, thread: str) -> None:
        self._server = server
        self._key = server.prefix + stream
        self._name = thread
        self._lock = threading.Lock()
        self._thread: Optional[threading.Thread] = None
        self._link: Optional[Link] = None
        self._ended = False
        self._pause = Wakeup()

    def start(self) -> None:
        """Start the thread, if it is not there."""
        if self._thread is not None or self._ended:
            return
        with self._lock:
            if self._thread is None and not self._ended:
                try:
                    self._thread = threads.start_thread(self._name, self._main)
                except RuntimeError:
                    raise LogError("no thread could be started to watch the log") from None

    def end(self) -> None:
        """End the thread, and wait for that unless it is the caller."""
        self._ended = True
        self._pause.set()
        thread, end = self._thread, time.monotonic() + 5.0
        while thread is not None and thread is not threading.current_thread():
            link = self._link
            if link is not None:
                link.shut()  # what blocks there does not see that we end
            thread.join(0.02)
            if not thread.is_alive() or time.monotonic() > end:
                break

    def _main(self) -> None:
        link = self._link = self._server.new_link(_BLOCK_S)
        try:
            while not self._ended:
                try:
                    self._follow(link)
                except LogError:
                    logger.debug("the log cannot be watched", exc_info=True)
                except Exception:
                    logger.exception("watching the log")
                link.close()
                if not self._ended:
                    self._pause.wait(_RETRY_S)
        finally:
            link.close()

    def _follow(self, link: Link) -> None:
        """Tell of all that comes, until the connection breaks."""
        last = self._begin(link)
        block = int(_BLOCK_S * 1000)
        while not self._ended:
            command = (b"XREAD", b"BLOCK", block, b"STREAMS", self._key, last)
            (answer,) = link.call(command)
            if answer:
                entries = answer[0][1]
                last = entries[-1][0]
                self._tell(entries)

    def _begin(self, link: Link) -> bytes:
        """Look at what came before; returns the stream's newest id."""
        (found,) = link.call((b"XREVRANGE", self._key, b"+", b"-", b"COUNT", 1))
        return found[0][0] if found else b"0-0"

    def _tell(self, entries: List[Any]) -> None:
        """Entries have come."""


class News(Watch):
    """Knows how far the log has come, and what its own stream has told of late.

    Attributes:
        position: the newest that is known; 0 until the server has answered.
    """

    def __init__(self, server: Server) -> None:
        super().__init__(server, b"all", "log-news")
        self.news = threading.Condition(threading.RLock())
        self.position = 0
        self._recent: Deque[Tuple[int, Any]] = deque()  # entries, and the position of each
        self._since: Optional[int] = None  # behind which they are all there

    def wait(self, after: int, timeout: float) -> bool:
        """Wait for a position above `after`; False if there is none in time."""
        self.start()
        end = time.monotonic() + threads.bounded(timeout)
        with self.news:
            while self.position <= after and not self._ended:
                left = end - time.monotonic()
                if left <= 0:
                    break
                self.news.wait(min(left, 0.5))
            return self.position > after

    def after(self, position: int) -> Optional[List[Any]]:
        """The entries that have come after a position; None if not all of them are here."""
        with self.news:
            if self._since is None or position < self._since or self.position <= position:
                return None
            found = []
            for place, entry in reversed(self._recent):
                if place <= position:
                    break
                found.append(entry)
        found.reverse()
        return found or None

    def reach(self, position: int) -> None:
        """The log has come to this position."""
        if position > self.position:
            with self.news:
                self.position = max(self.position, position)
                self.news.notify_all()

    def end(self) -> None:
        self._ended = True
        with self.news:
            self.news.notify_all()
        super().end()

    def _begin(self, link: Link) -> bytes:
        last = super()._begin(link)
        position = _position_of(last)
        with self.news:
            self._recent.clear()
            self._since = position
        self.reach(position)
        return last

    def _tell(self, entries: List[Any]) -> None:
        with self.news:
            self._recent.extend((_position_of(entry[0]), entry) for entry in entries)
            while len(self._recent) > _MOST_RECENT:
                self._since = self._recent.popleft()[0]
            self.reach(self._recent[-1][0])


def _position_of(name: bytes) -> int:
    return int(name.partition(b"-")[0])


class StopWatch(Watch):
    """Tells of requests to stop runs of this process.

    Args:
        server: the log's.
        look: returns the requests there are for runs of this process, (workflow id,
            reason) each; asked whenever some may have been missed.
        is_ours: whether a run is under way here.

    Attributes:
        stops: whom it tells.
    """

    def __init__(
        self,
        server: Server,
        look: Callable[[], List[Tuple[str, str]]],
        is_ours: Callable[[str], bool],
    ) -> None:
        super().__init__(server, b"stops", "log-watch")
        self._look = look
        self._is_ours = is_ours
        self.stops = StopCallbacks(logger)

    def _begin(self, link: Link) -> bytes:
        last = super()._begin(link)
        for workflow_id, reason in self._look():
            self.tell(workflow_id, reason)
        return last

    def _tell(self, entries: List[Any]) -> None:
        for _, (_, name, _, reason) in entries:
            workflow_id = name.decode()
            if self._is_ours(workflow_id):
                self.tell(workflow_id, reason.decode())

    def tell(self, workflow_id: str, reason: str) -> None:
        """Have a run stopped, unless it is being stopped."""
        if workflow_id not in self.stops and len(self.stops) > _MOST_TOLD:
            self.stops.forget_all()
        self.stops.tell(workflow_id, reason)
