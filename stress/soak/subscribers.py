"""The soak's subscribers: one that checks all, one over HTTP, and three of bad manners."""

from __future__ import annotations

import os
import random
import threading
import time
from typing import Any, Dict, List, Optional, Tuple

from agentstream import (
    Cancelled,
    CancelToken,
    EventType,
)
from agentstream.web import create_app, follow
from agentstream.web.server import Server, listen
from stress.soak.record import (
    ENDS,
    MAIN,
    MAIN_PREFIX,
    Record,
    hunt,
)


class Seen:
    """What the checking subscriber saw of one workflow."""

    __slots__ = ("chunks", "end", "ids", "last", "retries", "runs")

    def __init__(self) -> None:
        self.last = 0
        self.end = ""
        self.chunks: Dict[str, List[str]] = {}
        self.ids: List[Any] = []
        self.retries = 0
        self.runs: List[str] = []


class Checker:
    """Sees all events, in order, each once: I1, I4, I7."""

    def __init__(self, record: Record, by_run: bool, prefix: str) -> None:
        self.record = record
        self.by_run = by_run
        self.prefix = prefix  # of this process's runs
        self.changed = threading.Condition()
        self.seen: Dict[str, Seen] = {}
        self.over: Dict[str, None] = {}
        self.ended: Dict[str, Tuple[int, str]] = {}  # each run's last offset, and how it ended
        self.family: Dict[str, bool] = {}  # is a run, or the one it is within, of this process?
        self.position = 0
        self.events = 0

    def __call__(self, event: Any) -> None:
        if os.getpid() != MAIN:
            return
        self.events += 1
        if self.events % 7 == 0 or event.type is not EventType.AGENT_LLM_STREAM_CHUNK:
            hunt(self.record, event.to_json(), f"event {event.type}")
        if event.type is EventType.EVENTS_MISSED:
            self.position = event.data["last"]
            self.record.count("checker missed events")
            with self.changed:
                self.seen.clear()  # what is known of them has holes
            return
        if not self.by_run:  # else a position comes with the commit
            if event.position != self.position + 1:
                where = f"{event.id}: {self.position} -> {event.position}"
                self.record.break_("I4 position", where)
            self.position = event.position
        with self.changed:
            self._take(event)
            self.changed.notify_all()

    def _take(self, event: Any) -> None:
        name = event.workflow_id
        if name in self.over:
            self.record.break_("I1 after the end", f"{event.id} {event.type}")
            return
        mine = self.family.get(name)
        if mine is None:
            mine = name.startswith(self.prefix) or self.family.get(event.parent_workflow_id, False)
            self.family[name] = mine
        if not mine and self.prefix != MAIN_PREFIX:
            return  # a worker comes in when others are in the middle of their runs
        seen = self.seen.get(name)
        if seen is None:
            seen = self.seen[name] = Seen()
        if event.offset != seen.last + 1:
            self.record.break_("I4 offset", f"{event.id}: {seen.last} -> {event.offset}")
        seen.last = event.offset
        seen.ids.append(event.id)
        if event.type is EventType.AGENT_LLM_STREAM_CHUNK:
            seen.chunks.setdefault(event.data["step"], []).append(event.data["chunk"])
        elif event.type is EventType.AGENT_LLM_REQUEST_RETRIED:
            seen.retries += 1
        elif event.type is EventType.WORKFLOW_STEP_STARTED and "run" in event.data:
            seen.runs.append(event.data["run"])
        elif event.type.value in ENDS:
            seen.end = event.type.value
            self.ended[name] = seen.last, seen.end
            self.over[name] = None
            if len(self.over) > 4000:
                del self.over[next(iter(self.over))]
            if not mine:
                del self.seen[name]  # nobody here waits for it

    def wait_end(self, name: str, seconds: float = 15.0) -> Optional[Seen]:
        """What was seen of a workflow, once its terminal event is among it; forgotten here."""
        with self.changed:
            self.changed.wait_for(lambda: name in self.over, seconds)
            return self.seen.pop(name, None)

    def pop(self, name: str, last: str, seconds: float = 15.0) -> Optional[Seen]:
        """The same for a log of an agent alone, whose last event has offset or id `last`."""
        with self.changed:
            self.changed.wait_for(lambda: last in self.seen.get(name, Seen()).ids, seconds)
            return self.seen.pop(name, None)


class Remote:
    """Follows all runs over HTTP, as another machine would: I4 once more."""

    def __init__(self, record: Record, store: Any) -> None:
        self.record = record
        self.last: Dict[str, int] = {}
        self.ended: Dict[str, Tuple[int, str]] = {}
        self.cancel = CancelToken()
        self.server = Server(create_app(store), listen("127.0.0.1", 0)).start()
        self.thread = threading.Thread(target=self._read, name="soak-remote", daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            for event in follow(self.server.url, after=0, cancel=self.cancel):
                self._take(event)
        except Cancelled:
            pass

    def _take(self, event: Any) -> None:
        if event.type is EventType.EVENTS_MISSED:
            self.record.break_("I4 remote", f"missed {dict(event.data)}")
            return
        name = event.workflow_id
        if event.offset != self.last.get(name, 0) + 1:
            self.record.break_("I4 remote", f"{event.id}: {self.last.get(name, 0)}")
        self.last[name] = event.offset
        if event.type.value in ENDS:
            self.ended[name] = event.offset, event.type.value

    def close(self, wanted: Dict[str, Tuple[int, str]]) -> None:
        """Wait for what is still to come, compare, stop."""
        until = time.monotonic() + 20.0
        while time.monotonic() < until and set(wanted) - set(self.ended):
            threading.Event().wait(0.05)
        for name, end in wanted.items():
            if self.ended.get(name) != end:
                self.record.break_("I4 remote", f"{name}: {self.ended.get(name)}, not {end}")
        self.record.count("runs followed over HTTP", len(self.ended))
        self.cancel.cancel("the soak is over")
        self.thread.join(10.0)
        self.server.stop()


class Rough:
    """A subscriber that is slow, raises or is stuck; it checks order and what it missed."""

    def __init__(
        self, record: Record, name: str, seed: str, halt: threading.Event, by_run: bool
    ) -> None:
        self.record = record
        self.by_run = by_run
        self.last: Dict[str, int] = {}
        self.name = name
        self.rng = random.Random(f"{seed}:{name}")
        self.halt = halt
        self.position: Optional[int] = None
        self.missed = 0
        self.raised = 0
        self.taken = 0

    def __call__(self, event: Any) -> None:
        if os.getpid() != MAIN:
            return
        self.taken += 1
        if event.type is EventType.EVENTS_MISSED:
            first, last = event.data["first"], event.data["last"]
            if self.position is not None and first != self.position + 1:
                self.record.break_("I4 missed", f"{self.name}: {self.position}, then {event.data}")
            self.missed += last - first + 1
            self.position = last
            return
        self._check_order(event)
        if self.name == "slow":
            self.halt.wait(0.004)
        elif self.name == "stuck" and self.rng.random() < 0.0005:
            self.record.count("subscriber stuck")
            self.halt.wait(self.rng.uniform(3.0, 12.0))
        elif self.name == "raising" and self.rng.random() < 0.02:
            self.raised += 1
            raise RuntimeError("soak means to")

    def _check_order(self, event: Any) -> None:
        if self.by_run:  # of a log that is committed later, positions come with what is read back
            last = self.last.get(event.workflow_id)
            if last is not None and event.offset != last + 1:
                self.record.break_("I4 order", f"{self.name}: {event.id} after {last}")
            self.last[event.workflow_id] = event.offset
            return
        if self.position is not None and event.position != self.position + 1:
            self.record.break_("I4 order", f"{self.name}: {self.position} -> {event.position}")
        self.position = event.position
