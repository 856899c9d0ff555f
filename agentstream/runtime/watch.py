"""Watch: resumes runs of a log as they become ready, in a thread of its own."""

from __future__ import annotations

import logging
from typing import Callable, Dict, List, Mapping, Tuple

from agentstream import threads
from agentstream.errors import Busy
from agentstream.events.store import EventStore, RunState
from agentstream.runtime.answers import Pending, is_ready, pending
from agentstream.runtime.handle import RunHandle
from agentstream.workflow import Workflow

__all__ = ["Watch"]

logger = logging.getLogger("agentstream.runtime")

#: Looks that a run is left alone for after it could not be resumed.
_LOOKS = 60


class Watch(threads.Poller):
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
        super().__init__("watch", self._look_around, poll_s)
        self._handles: List[RunHandle] = []
        self._left_alone: Dict[str, int] = {}  # looks to go, by the run's id
        # What suspended runs wait for, by their ids and last offsets: it is read once.
        self._asked: Dict[Tuple[str, int], Tuple[Pending, ...]] = {}

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.join(5.0)

    def _look_around(self) -> None:
        self._handles = [handle for handle in self._handles if not handle.done()]
        self._left_alone = {name: n - 1 for name, n in self._left_alone.items() if n > 1}
        waiting = self._store.need_checkpoints().waiting()
        places = {(state.workflow_id, state.last_offset) for state in waiting}
        self._asked = {place: asked for place, asked in self._asked.items() if place in places}
        for state in waiting:
            if len(self._handles) >= self._at_most or self.closed:
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
            if not self.closed:
                self._left_alone[workflow_id] = _LOOKS
                logger.warning("run %s cannot be resumed: %s", workflow_id, error)

    def _is_ready(self, state: RunState) -> bool:
        if state.status == "interrupted":
            return True
        place = (state.workflow_id, state.last_offset)
        asked = self._asked.get(place)
        if asked is None:
            asked = self._asked[place] = pending(self._store, state.workflow_id)
        return is_ready(self._store, state.workflow_id, asked)
