"""A state machine over the bus: whatever happens, each event is had once, in order, or told of.

Bounded for the suite; stress/subscribers.py runs the same by the thousand.
"""

from __future__ import annotations

import pathlib
import shutil
import tempfile
import threading
from typing import Any, Dict, List, Optional

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    multiple,
    rule,
    run_state_machine_as_test,
)

from agentstream import EventStream, EventType, MemoryStore, SqliteStore
from agentstream.events.store import EventStore
from tests.kit.profiles import SUITE

CHUNK = EventType.AGENT_LLM_STREAM_CHUNK
END = EventType.WORKFLOW_COMPLETED
MISSED = EventType.EVENTS_MISSED


class Reader:
    """A subscriber, what it had, and what it must have in the end."""

    def __init__(self, stream: EventStream, workflow_id: Optional[str], after: Optional[int],
                 max_queue: int, *, suspended: bool) -> None:  # fmt: skip
        self.had: List[Any] = []
        self.workflow_id = workflow_id
        self.gate = threading.Event()
        if not suspended:
            self.gate.set()

        def take(event: Any) -> None:
            self.gate.wait(30)
            self.had.append(event)

        self.subscription = stream.subscribe(
            take, workflow_id=workflow_id, after=after, max_queue=max_queue
        )


class Bus(RuleBasedStateMachine):
    """Runs append, subscribers come, lag, are suspended and leave, the store trims."""

    readers = Bundle("readers")
    make_store: Any = None
    keeps_all = True

    def __init__(self) -> None:
        super().__init__()
        self.store: EventStore = self.make_store()
        self.stream = EventStream(self.store)
        self.logs: Dict[str, Any] = {}
        self.written: List[Any] = []  # (workflow id, offset), in the order of the log
        self.all: List[Any] = []  # (reader, from where in `written`)
        self.closed: List[Any] = []

    @rule(name=st.sampled_from("abc"), count=st.integers(1, 60))
    def append(self, name: str, count: int) -> None:
        log = self.logs.get(name)
        if log is None:
            log = self.logs[name] = self.stream.open_log(f"{name}-{len(self.written)}")
        for _ in range(count):
            event = log.append(CHUNK, {"chunk": "x"})
            self.written.append((event.workflow_id, event.offset))

    @rule(name=st.sampled_from("abc"))
    def end(self, name: str) -> None:
        log = self.logs.pop(name, None)
        if log is not None:
            event = log.append(END, {})
            self.written.append((event.workflow_id, event.offset))

    @rule(target=readers, max_queue=st.sampled_from([1, 3, 1000]), suspended=st.booleans())
    def subscribe(self, max_queue: int, suspended: bool) -> Any:
        if len(self.all) > 8:
            return multiple()
        reader = Reader(self.stream, None, None, max_queue, suspended=suspended)
        self.all.append((reader, len(self.written)))
        return reader

    @rule(target=readers, name=st.sampled_from("abc"), suspended=st.booleans())
    def subscribe_to_one(self, name: str, suspended: bool) -> Any:
        log = self.logs.get(name)
        if log is None or len(self.all) > 8:
            return multiple()
        reader = Reader(self.stream, log.workflow_id, None, 2, suspended=suspended)
        self.all.append((reader, len(self.written)))
        return reader

    @rule(reader=readers)
    def suspend(self, reader: Reader) -> None:
        reader.gate.clear()

    @rule(reader=readers)
    def resume(self, reader: Reader) -> None:
        reader.gate.set()

    @rule(reader=consumes(readers))
    def close(self, reader: Reader) -> None:
        reader.subscription.close(0)
        self.closed.append((reader, len(self.written)))

    def teardown(self) -> None:
        for reader, _ in self.all:
            reader.gate.set()
        self.stream.close(30)
        ends = {id(reader): end for reader, end in self.closed}
        for reader, begin in self.all:
            assert reader.subscription.close(30)
            self.check(reader, self.written[begin : ends.get(id(reader))])

    def check(self, reader: Reader, wanted: List[Any]) -> None:
        """It had what was wanted, in order; where it had not, it was told how many are gone."""
        if reader.workflow_id is not None:
            wanted = [place for place in wanted if place[0] == reader.workflow_id]
        had = [(e.workflow_id, e.offset) for e in reader.had if e.type is not MISSED]
        later = set(had) - set(wanted)
        assert not later or had[-len(later) :] == sorted(later, key=had.index)  # after its close
        had = [place for place in had if place in set(wanted)]
        assert had == [place for place in wanted if place in set(had)]
        missing = len(wanted) - len(had)
        assert missing <= reader.subscription.missed, (missing, len(wanted))
        if self.keeps_all:
            assert missing == reader.subscription.missed == 0


SETTINGS = settings(SUITE, max_examples=12)


def run(make_store: Any, *, keeps_all: bool, bounded: settings = SETTINGS) -> None:
    """Run the machine over stores that `make_store` makes."""
    members = {"make_store": staticmethod(make_store), "keeps_all": keeps_all}
    machine = type("Machine", (Bus,), members)
    run_state_machine_as_test(machine, settings=bounded)


@pytest.mark.parametrize("kind", ["memory", "small memory", "sqlite", "trimming sqlite"])
def test_each_event_is_had_once_in_order_or_told_of(kind: str) -> None:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="agentstream-machine-"))
    number = iter(range(10**6))

    def make_store() -> EventStore:
        if "memory" in kind:
            return MemoryStore(capacity=20 if "small" in kind else 10_000)
        most = 20 if "trimming" in kind else None
        return SqliteStore(folder / f"{next(number)}.db", max_events=most)

    try:
        run(make_store, keeps_all=kind in ("memory", "sqlite"))
    finally:
        shutil.rmtree(folder)
