"""Watch: resumes runs of a log as they become ready, in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from typing import Callable, Dict, List, Mapping, Optional, Tuple

from agentstream import threads
from agentstream.cancel import CancelToken
from agentstream.errors import Busy
from agentstream.events.store import EventStore, RunState
from agentstream.results import PendingSignal
from agentstream.runtime.answers import Pending, answered, key_of, pending
from agentstream.runtime.handle import RunHandle
from agentstream.workflow import Workflow

__all__ = ["Watch"]

logger = logging.getLogger("agentstream.runtime")

#: Looks that a run is left alone for after it could not be resumed.
_LOOKS = 60


class Watch:
    """Resumes what becomes ready; `close` it, or leave its `with` block.

    Args:
        store: the log's.
        workflows: by their names.
        resume: takes a run again: (workflow, id).
        at_most: how many runs that were resumed so are under way at once.
        poll_s: seconds between looks.
    """

    def __init__(
        self,
        store: EventStore,
        workflows: Mapping[str, Workflow],
        resume: Callable[[Workflow, str], RunHandle],
        *,
        at_most: int,
        poll_s: float,
    ) -> None:
        self._store = store
        self._workflows = workflows
        self._resume = resume
        self._at_most = at_most
        self._poll_s = poll_s
        self._stop = CancelToken()
        self._handles: List[RunHandle] = []
        self._left_alone: Dict[str, int] = {}  # looks to go, by the run's id
        # What suspended runs wait for, by their ids and last offsets: it is read once.
        self._asked: Dict[Tuple[str, int], Tuple[Pending, ...]] = {}
        self._thread: Optional[threading.Thread] = None

    def start(self) -> None:
        """Begin; raises RuntimeError if there is no thread for it."""
        self._thread = threads.start_thread("watch", self._main)

    def close(self) -> None:
        """Resume nothing more; runs under way go on.  Idempotent."""
        self._stop.cancel()

    def join(self, timeout: float) -> None:
        """Wait until it has come to its end, up to `timeout` seconds."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.join(5.0)

    def _main(self) -> None:
        while True:
            try:
                self._look()
            except Exception:  # a log that cannot be read now may be later
                logger.exception("a look for runs to resume failed")
            if self._stop.wait(self._poll_s):
                return

    def _look(self) -> None:
        self._handles = [handle for handle in self._handles if not handle.done()]
        self._left_alone = {name: n - 1 for name, n in self._left_alone.items() if n > 1}
        waiting = self._store.need_checkpoints().waiting()
        places = {(state.workflow_id, state.last_offset) for state in waiting}
        self._asked = {place: asked for place, asked in self._asked.items() if place in places}
        for state in waiting:
            if len(self._handles) >= self._at_most or self._stop.cancelled:
                return
            workflow = self._workflows.get(state.name)
            if workflow is None or state.workflow_id in self._left_alone:
                continue
            if self._is_ready(state):
                self._take(workflow, state.workflow_id)

    def _take(self, workflow: Workflow, workflow_id: str) -> None:
        try:
            self._handles.append(self._resume(workflow, workflow_id))
        except Busy:
            pass  # another one was faster
        except Exception as error:  # noqa: BLE001 - whatever it is, the next run may go on
            if not self._stop.cancelled:
                self._left_alone[workflow_id] = _LOOKS
                logger.warning("run %s cannot be resumed: %s", workflow_id, error)

    def _is_ready(self, state: RunState) -> bool:
        if state.status == "interrupted":
            return True
        place = (state.workflow_id, state.last_offset)
        asked = self._asked.get(place)
        if asked is None:
            asked = self._asked[place] = pending(self._store, state.workflow_id)
        known = answered(self._store, state.workflow_id)
        return any(
            key_of("signal" if isinstance(each, PendingSignal) else each.why, each.id) in known
            or (each.expires_at is not None and each.expires_at <= time.time())
            for each in asked
        )
