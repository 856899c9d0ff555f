"""WorkLoop: takes runs as they become due and executes some at once; a worker without a queue."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import threading
from typing import Any, Callable, Dict, Iterator, List

from agentstream import threads
from agentstream.errors import AgentStreamError, Busy, LogError
from agentstream.runtime.handle import RunHandle

__all__ = ["WorkLoop"]

logger = logging.getLogger("agentstream.jobs")

_POLL_S = 0.2


class WorkLoop:
    """Runs in the thread that calls `run`, until `stop`.

    Args:
        due: the ids of so many runs that somebody is to take; may raise LogError.
        enter: takes one, and begins to execute it.
        is_over: true once nothing more can be taken; asked before each look.
        at_most: how many are under way at once.
        grace: seconds that runs which are left may take to end.
    """

    def __init__(
        self,
        due: Callable[[int], Iterator[str]],
        enter: Callable[[str], RunHandle],
        *,
        is_over: Callable[[], bool],
        at_most: int,
        grace: float,
    ) -> None:
        self._due = due
        self._enter = enter
        self._is_over = is_over
        self._at_most = at_most
        self._grace = grace
        self._wakeup = threads.Wakeup()
        self._stopped = False
        self._handles: List[RunHandle] = []

    def stop(self) -> None:
        """Take no more, and leave what is under way; a signal handler may call it."""
        self._stopped = True
        self._wakeup.set()

    def run(self) -> None:
        """Work until `stop`, the end of all, or what the main thread is interrupted by."""
        try:
            with _stopped_by_signals(self.stop):
                while not (self._stopped or self._is_over()):
                    self._take()
                    self._wakeup.wait(_POLL_S)
        finally:
            for handle in self._handles:
                handle.interrupt("its worker stops")
            concurrent.futures.wait(self._handles, timeout=self._grace)

    def _take(self) -> None:
        """Take as many runs as there is room for."""
        self._handles = [handle for handle in self._handles if not handle.done()]
        free = self._at_most - len(self._handles)
        if not free:
            return
        try:
            for name in self._due(free):
                self._begin(name)
        except LogError:
            logger.debug("no look for runs to take", exc_info=True)

    def _begin(self, workflow_id: str) -> None:
        try:
            handle = self._enter(workflow_id)
        except Busy:
            return  # another worker was faster
        except (AgentStreamError, RuntimeError) as error:
            logger.warning("run %s could not be taken: %s", workflow_id, error)
            return
        except Exception:  # of a codec, say: the next run may go on
            logger.exception("run %s could not be taken", workflow_id)
            return
        self._handles.append(handle)
        handle.add_done_callback(lambda _: self._wakeup.set())


@contextlib.contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """In the main thread the first SIGTERM or SIGINT calls `stop`; the next does what it did."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    import signal  # noqa: PLC0415 - a millisecond that only who wants this pays

    before: Dict[Any, Any] = {}

    def restore() -> None:
        while before:
            number, handler = before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def leave(*_: object) -> None:
        restore()
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        restore()
