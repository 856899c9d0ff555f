"""What comes in from outside: ids, types, data; and what is kept of it."""

from __future__ import annotations

import contextlib
import gc
import pathlib
import tracemalloc
import uuid
from typing import Any, Iterator

import pytest

from agentstream import (
    Agent,
    Cancelled,
    Closed,
    ConfigError,
    Event,
    EventStream,
    EventType,
    LogError,
    MemoryStore,
    Runtime,
    SqliteStore,
    Workflow,
)
from agentstream.events import entry
from agentstream.events.stream import RunLog
from agentstream.testing import ScriptedClient

ODD_IDS = ["", "\ud800", "run \udfff", b"run", None, 7, uuid.UUID(int=7), "x" * 257, ["run"]]
GOOD_IDS = ["run", "a/b", "é\U0001f600", "x" * 256, " ", "a\nb", str(uuid.UUID(int=7))]


@pytest.fixture(params=["memory", "sqlite"])
def stream(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[EventStream]:
    memory = request.param == "memory"
    with EventStream(MemoryStore() if memory else SqliteStore(tmp_path / "runs.db")) as stream:
        yield stream


@pytest.mark.parametrize("odd", ODD_IDS, ids=repr)
def test_b07_an_id_that_cannot_be_kept_is_refused_at_the_call(
    stream: EventStream, odd: Any
) -> None:
    for refused in (
        lambda: stream.open_log(odd),
        lambda: stream.append("system_warning", odd, {}),
        lambda: stream.subscribe(workflow_id=odd) if odd is not None else stream.open_log(odd),
        lambda: stream.open_log("child", odd) if odd is not None else stream.open_log(odd),
        lambda: stream.append(odd or "none", "run", {}),
    ):
        with pytest.raises((ConfigError, LogError)):
            refused()
    for n in range(20):
        assert stream.append("system_warning", "other", {"n": n}).offset == n + 1
    stream.store.flush()
    assert len(stream.store.read()) == 20


@pytest.mark.parametrize("good", GOOD_IDS, ids=repr)
def test_b07_any_other_text_is_an_id(stream: EventStream, good: str) -> None:
    stream.append("system_warning", good, {"n": 1})
    assert stream.append("workflow_completed", good, {"n": 2}).offset == 2
    assert [e.offset for e in stream.subscribe(workflow_id=good, after=0)] == [1, 2]


ODD_REASONS = ["\ud800", b"why", None, 7, uuid.UUID(int=7), "x" * 100_001, ["why"]]


@pytest.mark.parametrize("odd", ODD_REASONS, ids=lambda odd: repr(odd)[:20])
def test_b07_a_reason_that_cannot_be_kept_is_refused_at_the_call(
    stream: EventStream, odd: Any
) -> None:
    with Runtime(event_stream=stream) as runtime:
        handle = runtime.submit(Workflow("slow", [_until_stopped]), 1, workflow_id="run")
        for refused in (
            lambda: runtime.stop_generation("run", odd),
            lambda: runtime.stop_generation("nobody", odd),
            lambda: handle.cancel(odd),
            lambda: stream.store.request_stop("run", odd),
        ):
            with pytest.raises(ConfigError, match="reason"):
                refused()
        assert not handle.done()
        assert runtime.stop_generation("run", "x" * 100_000) is True
        with pytest.raises(Cancelled):
            handle.result(10)
    assert stream.store.run("run").status == "cancelled"  # type: ignore[union-attr]


def _until_stopped(_: Any, context: Any) -> None:
    context.cancel.wait(30)


@pytest.mark.parametrize("odd", ODD_IDS, ids=repr)
def test_b07_an_id_that_cannot_be_is_stopped_by_nobody(stream: EventStream, odd: Any) -> None:
    with Runtime(event_stream=stream) as runtime, pytest.raises(ConfigError):
        runtime.stop_generation(odd, "why")


BIG = "x" * 600
TOO_LARGE = [
    {"text": BIG + BIG},
    {"a": BIG, "b": BIG},
    {BIG: BIG},
    {"text": "\u00e9" * 600},
    {"text": "\x00" * 200},
    {"list": ["y" * 60] * 20},
    {"list": [0.5] * 400},
    {"deep": {"deeper": {"text": BIG + BIG}}},
    {"bytes": b"x" * 1000},
]


@pytest.mark.parametrize("data", TOO_LARGE, ids=lambda data: repr(data)[:20])
def test_b07_an_event_that_is_too_large_is_refused_at_the_call(
    stream: EventStream, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "_MOST_BYTES", 1000)
    monkeypatch.setattr(entry, "_SURELY_SMALL", 1000 // 6)
    log = stream.open_log("run")
    for append in (
        lambda: log.append(EventType.SYSTEM_WARNING, data),
        lambda: stream.append("system_warning", "own", data),
        lambda: stream.store.append(("s:1", 1, None, EventType.SYSTEM_WARNING, "s", None, 0, data)),
    ):
        with pytest.raises(LogError, match="more than 1,000 bytes"):
            append()
    assert log.append(EventType.SYSTEM_WARNING, {"n": 1}).offset == 1  # type: ignore[union-attr]
    assert stream.append("system_warning", "own", {"n": 1}).offset == 1
    assert stream.append("system_warning", "other", {"n": 1}).offset == 1


@pytest.mark.parametrize("odd", [7, "text", [1], True, 0, None, {"completion_tokens": "x"}])
def test_b08_usage_that_is_no_object_is_ignored(stream: EventStream, odd: Any) -> None:
    stream.append("workflow_started", "run", {"workflow": odd})
    stream.append("workflow_completed", "run", {"usage": odd})
    stream.append("workflow_completed", "whole", {"usage": {"total_tokens": 3}})
    states = {run.workflow_id: run for run in stream.store.runs()}
    assert states["run"].status == "completed"
    assert states["run"].usage == (odd if isinstance(odd, dict) else None)
    assert states["whole"].usage == {"total_tokens": 3}


def test_nothing_is_kept_of_runs_that_never_end() -> None:
    with EventStream(MemoryStore(capacity=100)) as stream:
        gc.collect()
        before = sum(isinstance(thing, RunLog) for thing in gc.get_objects())
        for n in range(1000):
            stream.append("system_warning", f"run-{n}", {})
        gc.collect()
        after = sum(isinstance(thing, RunLog) for thing in gc.get_objects())
        assert after - before <= 16
        # A log that is not at hand goes on where the store says.
        assert stream.append("system_warning", "run-999", {}).offset == 2
        assert stream.append("system_warning", "run-950", {}).offset == 2
        assert stream.append("workflow_completed", "run-950", {}).offset == 3
        with pytest.raises(LogError):
            stream.append("system_warning", "run-950", {})


def test_a_log_has_one_owner_while_it_lives(stream: EventStream) -> None:
    log = stream.open_log("run")
    for _ in range(2):
        with pytest.raises(LogError, match="owner"):
            stream.append("system_warning", "run", {})
        log.append(EventType.SYSTEM_WARNING, {})
    log.append(EventType.WORKFLOW_COMPLETED, {})
    with pytest.raises(LogError, match="ended"):
        stream.append("system_warning", "run", {})


def test_b16_what_a_memory_store_keeps_is_bounded() -> None:
    store = MemoryStore(capacity=10)
    with EventStream(store) as stream:
        for n in range(100):
            output = f"{n}" * 1000
            stream.append("workflow_completed", f"run-{n}", {"output": output, "usage": {}})
        gc.collect()
        kept = [
            thing
            for thing in gc.get_referrers(Event)
            if isinstance(thing, Event) and thing.workflow_id.startswith("run-")
        ]
        assert len(kept) == 10
        assert len(store.runs(limit=1000)) == 10
        assert {run.status for run in store.runs()} == {"completed"}


@pytest.mark.parametrize("piece", [{}, [], "", (), [{}]], ids=repr)
def test_b16_a_list_of_empty_values_is_kept_in_proportion(stream: EventStream, piece: Any) -> None:
    count = 50_000
    data = {"list": [piece] * count}
    log = stream.open_log("run")
    tracemalloc.start()
    try:
        log.append(EventType.SYSTEM_WARNING, data)
        stream.store.flush()
        (event,) = stream.store.read(workflow_id="run")
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(event.data["list"]) == count
    assert event.data["list"][7] == (tuple(piece) if isinstance(piece, list) else piece)
    assert most < count * (40 if piece == {} else 180)
    assert kept <= most


def test_get_ends_with_an_exception_that_a_generator_may_let_out(stream: EventStream) -> None:
    stream.append("workflow_completed", "run", {})

    def generator() -> Iterator[Any]:
        subscription = stream.subscribe(workflow_id="run", after=0)
        while True:
            yield subscription.get(10)

    events = generator()
    assert next(events).offset == 1
    with pytest.raises(Closed):
        next(events)


@pytest.mark.parametrize(
    "odd", ["unknown", "\ud800", None, 5, b"x", ["x"], "events_missed"], ids=repr
)
def test_b07_a_run_log_takes_known_types_only(stream: EventStream, odd: Any) -> None:
    log = stream.open_log("run")
    log.append(EventType.SYSTEM_WARNING, {"n": 1})
    with pytest.raises(ConfigError):
        log.append(odd, {"n": 2})
    log.append("workflow_completed", {"n": 3})  # type: ignore[arg-type]
    assert log.ended
    stream.store.flush()
    assert [(e.offset, e.data["n"]) for e in stream.store.read(workflow_id="run")] == [
        (1, 1),
        (2, 3),
    ]


class _Unruly(str):
    """A text with methods of its own."""

    def __str__(self) -> str:
        raise RuntimeError("as planned")

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("as planned")


def test_b07_an_id_of_a_class_of_ones_own_is_the_text_it_holds(stream: EventStream) -> None:
    with Runtime(event_stream=stream) as runtime:
        runtime.run(Workflow("w", [str]), 1, workflow_id=_Unruly("run"))
        events = list(runtime.stream(Workflow("w", [str]), 1, workflow_id=_Unruly("other")))
        assert stream.append("system_warning", _Unruly("third"), {}).id == "third:1"
        stream.store.flush()
        assert {type(e.workflow_id) for e in events} == {str}
        assert {e.workflow_id for e in stream.store.read()} == {"run", "other", "third"}


def test_b07_an_empty_id_is_refused_and_not_replaced(stream: EventStream) -> None:
    agent = Agent("a", client=ScriptedClient("hi"))
    with Runtime(event_stream=stream) as runtime:
        for refused in (
            lambda: runtime.run(agent, "x", workflow_id=""),
            lambda: next(runtime.stream(agent, "x", workflow_id="")),
            lambda: agent.execute_with_events("x", stream, workflow_id=""),
        ):
            with pytest.raises(ConfigError):
                refused()


def _raising(*_: object) -> Any:
    raise RuntimeError("as planned")


_UNRULY = {
    name: type(name, (base,), {method: _raising})
    for name, base, method in [
        ("List", list, "__iter__"),
        ("Dict", dict, "keys"),
        ("Int", int, "__int__"),
        ("Float", float, "__float__"),
        ("Repr", object, "__repr__"),
    ]
}


def _exits() -> Any:
    class Exits:
        def __repr__(self) -> str:
            raise SystemExit(1)

    return Exits()


def test_d11_b07_what_a_value_raises_costs_its_event_at_most(stream: EventStream) -> None:
    odd = [cls() for cls in _UNRULY.values()]
    odd += [_exits(), {_UNRULY["Repr"](): 1}, [("not", "a mapping")], "text", 5, b"x"]
    for number, value in enumerate(odd):
        for data in (value, {"value": value}, {"deep": [{"er": value}]}):
            with contextlib.suppress(LogError):
                stream.append("system_warning", f"run-{number}", data)
        stream.append("system_warning", "innocent", {"n": number})
    stream.store.flush()
    assert stream.store.bounds("innocent") == (1, len(odd))
