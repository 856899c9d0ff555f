"""A store whose process "dies": after so many operations nothing more is kept, and the runs rest."""

from __future__ import annotations

from typing import Any, List, Set, Tuple

from agentstream import LogError, MemoryStore
from agentstream.events.memory_checkpoints import MemoryCheckpoints
from agentstream.events.resting import INTERRUPTED

__all__ = ["Dying"]


class Dying(MemoryStore):
    """Keeps so many events and writes of checkpoints, and then nothing until `revive`.

    Attributes:
        left: operations to go.
        done: the keys of the records that said so of a step or a tool's call.
    """

    def __init__(self) -> None:
        super().__init__(10**6)
        self._checkpoints = _Checkpoints(self)
        self.left = 10**9
        self.done: Set[str] = set()

    @property
    def dead(self) -> bool:
        return self.left < 0

    def count(self) -> None:
        """Do one operation more, or raise LogError."""
        with self._lock:
            self.left -= 1
            if self.dead:
                raise LogError("the process has died")

    def append(self, fields: Tuple[Any, ...]) -> Any:
        """See `EventStore.append`."""
        with self._lock:
            self.count()
            return super().append(fields)

    def revive(self, left: int) -> None:
        """Have the runs rest as those of a process that died; so many operations are left."""
        with self._lock:
            self.left, self._publish = 10**9, None
            for name in self._under_way():
                if name in self.checkpoints._kept:
                    self._rest(name, INTERRUPTED)
                    self.checkpoints.rest(name, INTERRUPTED)
            for name in self._under_way():  # it had not begun to keep anything
                self._cancel(name, "its process died")
            self.left = left

    def _under_way(self) -> List[str]:
        return [name for name in self._states if self._status_of(name) in ("queued", "running")]


class _Checkpoints(MemoryCheckpoints):
    def __init__(self, store: Dying) -> None:
        super().__init__(store)
        self._store = store

    def begin(self, workflow_id: str, **options: Any) -> None:
        self._store.count()
        super().begin(workflow_id, **options)

    def write(self, workflow_id: str, records: Any, **options: Any) -> None:
        if records or options.get("discard"):
            self._store.count()
        super().write(workflow_id, records, **options)
        for key, value in records.items():
            if key.endswith("|done") or ("|call|" in key and b'"done"' in (value or b"")):
                self._store.done.add(key)
