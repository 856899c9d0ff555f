"""Subscribers that lag, close, are suspended or meet a store that does not answer: nothing is lost."""

from __future__ import annotations

import pathlib
import threading
import time
from typing import Any, List, Optional

import pytest

from agentstream import Closed, Event, EventStream, EventType, MemoryStore, SqliteStore
from agentstream.errors import LogError
from agentstream.events.store import Bounds
from agentstream.events.subscribers import Subscribers
from tests.kit.support import Gate, Task, wait_until

CHUNK = EventType.AGENT_LLM_STREAM_CHUNK
END = EventType.WORKFLOW_COMPLETED


def places(events: List[Any]) -> List[Any]:
    return [(event.workflow_id, event.offset) for event in events]


def accounted(events: List[Any], last: int) -> None:
    """Offsets 1 to `last` of one run, each once, in order, had or told to be missed."""
    reached = 0
    for event in events:
        if event.type is EventType.EVENTS_MISSED:
            assert event.data["first"] == reached + 1
            reached = event.data["last"]
        else:
            assert event.offset == reached + 1
            reached = event.offset
    assert reached == last


# --- B01: the tail at close -----------------------------------------------------------------


@pytest.mark.parametrize("durability", ["normal", "full"])
@pytest.mark.parametrize("max_queue", [1, 64, 1024])
@pytest.mark.parametrize("runs", [1, 3])
def test_b01_a_lagging_subscriber_of_all_gets_its_tail_at_close(
    tmp_path: pathlib.Path, durability: str, max_queue: int, runs: int
) -> None:
    count = 300 if durability == "full" else 4000
    stream = EventStream(SqliteStore(tmp_path / "runs.db", durability=durability))
    with Gate() as gate:
        subscription = stream.subscribe(gate, max_queue=max_queue)
        logs = [stream.open_log(f"run-{n}") for n in range(runs)]
        for n in range(count):
            logs[n % runs].append(CHUNK, {"n": n})
        for log in logs:
            log.append(END, {})
        closing = Task(lambda: stream.close(60.0))
    closing.result(60)
    assert len(gate.events) == count + runs
    assert subscription.missed == 0
    for log in logs:
        mine = [event.offset for event in gate.events if event.workflow_id == log.workflow_id]
        assert mine == list(range(1, log.offset + 1))


def test_b01_the_subscription_alone_is_closed_and_read_by_hand(tmp_path: pathlib.Path) -> None:
    with EventStream(SqliteStore(tmp_path / "runs.db")) as stream:
        lagging = stream.subscribe(max_queue=4)
        log = stream.open_log("run")
        for n in range(2000):
            log.append(CHUNK, {"n": n})
        lagging.close()
        assert [event.offset for event in lagging] == list(range(1, 2001))
        with pytest.raises(Closed):
            lagging.get(0)


# --- B02: gaps on the live path -------------------------------------------------------------


@pytest.mark.parametrize("types", [None, [END, CHUNK]])
def test_b02_a_follower_that_was_suspended_is_told_what_retention_took(
    tmp_path: pathlib.Path, types: Any
) -> None:
    path = tmp_path / "runs.db"
    writer = EventStream(SqliteStore(path, max_events=100))
    store = SqliteStore(path)
    asleep, awake = threading.Event(), threading.Event()
    awake.set()
    wait = store.wait

    def suspended(after: int, timeout: float) -> bool:
        found = wait(after, timeout)
        asleep.set()
        awake.wait(30)
        return found

    store.wait = suspended  # type: ignore[method-assign]
    with EventStream(store) as reader:
        of_one = reader.subscribe(workflow_id="run", types=types)
        of_all = reader.subscribe(types=types)
        log = writer.open_log("run")
        for n in range(50):
            log.append(CHUNK, {"n": n})
        first = [of_one.get(10) for _ in range(50)]
        assert [of_all.get(10).offset for _ in range(50)] == list(range(1, 51))  # type: ignore[union-attr]
        awake.clear()
        asleep.clear()
        assert asleep.wait(10)
        for n in range(2000):
            log.append(CHUNK, {"n": n})
        writer.store.flush()
        wait_until(lambda: writer.store.bounds().first > 1500, 20)
        awake.set()
        log.append(END, {})
        rest = list(of_one)
        accounted([*first, *rest], log.offset)
        assert of_one.missed > 1000
        seen: List[Event] = []
        while not seen or seen[-1].type is not END:
            event = of_all.get(10)
            assert event is not None
            seen.append(event)
        accounted([*first, *seen], log.offset)
        assert of_all.missed > 1000
        writer.close()


def test_b02_what_retention_takes_of_ones_own_events_is_no_gap(tmp_path: pathlib.Path) -> None:
    with EventStream(SqliteStore(tmp_path / "runs.db", max_events=50)) as stream:
        heard: List[Event] = []
        subscription = stream.subscribe(heard.append, max_queue=100_000)
        log = stream.open_log("run")
        for n in range(20_000):
            log.append(CHUNK, {"n": n})
        log.append(END, {})
        wait_until(lambda: bool(heard) and heard[-1].type is END, 30)
        assert [event.offset for event in heard] == list(range(1, 20_002))
        assert subscription.missed == 0


# --- a store that does not answer -----------------------------------------------------------


class Silent(MemoryStore):
    """A store that does not answer some questions before it is told to."""

    shared = True

    def __init__(self, question: str) -> None:
        super().__init__()
        self.question = question
        self.asked, self.answers = threading.Event(), threading.Event()
        self.silent = False

    def _listen(self, question: str) -> None:
        if self.silent and question == self.question:
            self.asked.set()
            assert self.answers.wait(30)

    def bounds(self, workflow_id: Optional[str] = None) -> Bounds:
        self._listen("bounds")
        return super().bounds(workflow_id)

    def has_ended(self, workflow_id: str) -> bool:
        self._listen("has_ended")
        return super().has_ended(workflow_id)


@pytest.mark.parametrize("by_hand", [True, False], ids=["iterator", "callback"])
@pytest.mark.parametrize("max_queue", [1, 32, 700])
@pytest.mark.parametrize("kept", [1, 500])
@pytest.mark.parametrize("memory", [True, False], ids=["memory", "sqlite"])
def test_b02_what_it_has_had_is_not_told_as_missed(
    tmp_path: pathlib.Path, by_hand: bool, max_queue: int, kept: int, memory: bool
) -> None:
    store = MemoryStore(kept) if memory else SqliteStore(tmp_path / "runs.db", max_events=kept)
    stream = EventStream(store)
    count = 3000
    with Gate() as gate:
        subscription = stream.subscribe(None if by_hand else gate, max_queue=max_queue)
        log = stream.open_log("run")
        for n in range(count):
            log.append(CHUNK, {"n": n})
        closing = Task(lambda: stream.close(60.0))
    closing.result(60)
    accounted(list(subscription) if by_hand else gate.events, count)
    store.close()


@pytest.mark.parametrize(
    ("question", "workflow_id"), [("bounds", None), ("bounds", "run"), ("has_ended", "run")]
)
def test_a_store_that_does_not_answer_costs_publishers_nothing(
    question: str, workflow_id: Optional[str]
) -> None:
    store = Silent(question)
    with EventStream(store) as stream:
        log = stream.open_log("run")
        log.append(CHUNK, {"n": 0})
        store.silent = True
        subscribing = Task(lambda: stream.subscribe(workflow_id=workflow_id))
        assert store.asked.wait(10)
        took = []
        for n in range(1, 200):
            began = time.perf_counter()
            log.append(CHUNK, {"n": n})
            took.append(time.perf_counter() - began)
        assert sorted(took)[150] < 0.001
        assert max(took) < 2.0  # another thread may have had the processor
        store.answers.set()
        subscription = subscribing.result(10)
        log.append(END, {})
        had = [subscription.get(10)]
        while had[-1] is not None and had[-1].type is not END:
            had.append(subscription.get(10))
        assert places(had) == [("run", n) for n in range(had[0].offset, 202)]  # type: ignore[union-attr]


def test_a_store_that_refuses_and_does_not_answer_costs_others_nothing() -> None:
    class Refusing(Silent):
        def append(self, fields: Any) -> Event:
            if fields[7].get("odd"):
                raise LogError("no")
            return super().append(fields)

    store = Refusing("bounds")
    with EventStream(store) as stream:
        odd, other = stream.open_log("odd"), stream.open_log("other")
        store.silent = True
        refused = Task(lambda: odd.append(CHUNK, {"odd": True}))
        assert store.asked.wait(10)
        began = time.perf_counter()
        other.append(CHUNK, {})
        assert time.perf_counter() - began < 2.0
        store.answers.set()
        assert isinstance(refused.error(), LogError)
        assert odd.append(CHUNK, {}).offset == 1  # type: ignore[union-attr]


def test_what_is_published_while_a_subscriber_comes_in_is_had_once() -> None:
    for _ in range(50):
        with EventStream(MemoryStore()) as stream:
            log = stream.open_log("run")
            publishing = Task(lambda log=log: [log.append(CHUNK, {}) for _ in range(200)])
            fresh, whole = stream.subscribe(), stream.subscribe(after=0)
            publishing.result(10)
            log.append(END, {})
            for subscription in (fresh, whole):
                subscription.close()
                offsets = [event.offset for event in subscription]
                assert offsets == list(range(offsets[0], 202))
            assert offsets[0] == 1


def test_subscribers_know_who_is_left() -> None:
    class Box:
        missed = 0

        def __init__(self, workflow_id: Optional[str]) -> None:
            self.workflow_id = workflow_id

    of_all, of_one, also = Box(None), Box("run"), Box("run")
    subscribers = Subscribers()
    for box in (of_all, of_one, also):
        subscribers.add(box)  # type: ignore[arg-type]
    assert subscribers.everything == (of_all,)
    assert subscribers.by_workflow == {"run": (of_one, also)}
    for box in (of_one, also, also):
        subscribers.remove(box)  # type: ignore[arg-type]
    assert subscribers.by_workflow == {}
    assert len(subscribers) == 1


class Busy(SqliteStore):
    """Runs `hook` once, before the read that its attribute `at` counts down to."""

    at = 0
    hook: Any = None

    def read(self, **arguments: Any) -> List[Event]:
        self.at -= 1
        if self.at == 0:
            self.hook()
        return super().read(**arguments)


def test_i4_what_retention_takes_from_under_a_queue_is_told_and_not_delivered_late(
    tmp_path: pathlib.Path,
) -> None:
    """Events without a position yet, one of them in a queue as the store lets go of it."""
    with Busy(tmp_path / "runs.db", max_events=20) as store, EventStream(store) as stream:
        events = stream.subscribe(max_queue=1)
        run, other = stream.open_log("run"), stream.open_log("other")

        def more() -> None:
            other.append(CHUNK, {})  # goes into the queue
            for _ in range(200):
                run.append(CHUNK, {})
            wait_until(lambda: (store.flush(), store.bounds().first > 10)[1])

        for _ in range(5):
            run.append(CHUNK, {})  # all but one are read back
        store.hook, store.at = more, 2  # as it turns live again
        had = [next(events)]
        while had[-1].offset != 205:
            had.append(next(events))
        other.append(CHUNK, {})
        had.append(next(events))
    assert places(had)[:5] == [("run", offset) for offset in range(1, 6)]
    gap, *rest = had[5:]
    assert gap.type is EventType.EVENTS_MISSED
    assert events.missed == gap.data["last"] - 5
    last = 205 - len(rest[:-1])
    assert places(rest) == [*(("run", offset) for offset in range(last + 1, 206)), ("other", 2)]
    assert events.missed == last - 5 + 1  # and the one of the other run
