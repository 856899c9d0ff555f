"""B18: a time that Python's waits do not take is a long time, wherever one can be given."""

from __future__ import annotations

import pathlib
import sys
import threading
from typing import Any, Callable, Dict, Iterator

import pytest

from agentstream import (
    CancelToken,
    Closed,
    EventStream,
    MemoryStore,
    Runtime,
    SqliteStore,
    Workflow,
)
from agentstream.events.tail import LogTail
from agentstream.local import find_llama_server
from agentstream.testing import ScriptedServer
from tests.kit.support import Task

TIMES = [1e10, 1e19, 1e300, sys.float_info.max, float("inf"), 10**10, 10**400]


@pytest.fixture(params=["memory", "sqlite"])
def stream(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[EventStream]:
    memory = request.param == "memory"
    with EventStream(MemoryStore() if memory else SqliteStore(tmp_path / "runs.db")) as stream:
        yield stream


def add(stream: EventStream, run: str = "run") -> None:
    stream.append("system_warning", run, {})


@pytest.mark.parametrize("seconds", TIMES, ids=repr)
def test_b18_waits_of_an_event_stream(stream: EventStream, seconds: Any) -> None:
    heard = stream.subscribe(lambda event: None)
    by_hand, late = stream.subscribe(), stream.subscribe()
    add(stream)
    assert by_hand.get(seconds).workflow_id == "run"  # type: ignore[union-attr]
    waiting = Task(lambda: stream.store.wait(1, seconds))
    tail = LogTail(stream.store, lambda: stream.closed)
    reader = tail.open(1)
    reading = Task(lambda: reader.get(seconds))
    add(stream)
    assert waiting.result() is True
    assert reading.result().offset == 2
    reader.close(seconds)
    assert heard.close(seconds) is True
    assert by_hand.close(seconds) is True
    ending = Task(lambda: [late.get(seconds) for _ in range(3)])
    stream.close(seconds)
    assert isinstance(ending.error(), Closed)
    assert stream.store.wait(9, 0) is False


@pytest.mark.parametrize("seconds", TIMES, ids=repr)
def test_b18_waits_for_runs(stream: EventStream, seconds: Any) -> None:
    go = threading.Event()
    runtime = Runtime(event_stream=stream)
    handle = runtime.submit(Workflow("w", [lambda _: go.wait(30)]), 1)
    tasks = [
        Task(lambda: handle.result(seconds).output),
        Task(lambda: handle.exception(seconds)),
        Task(lambda: runtime.shutdown(timeout=seconds)),
    ]
    go.set()
    assert [task.result() for task in tasks] == [True, None, True]


@pytest.mark.parametrize("seconds", TIMES, ids=repr)
def test_b18_waits_for_a_token(seconds: Any) -> None:
    token = CancelToken()
    waiting = Task(lambda: token.wait(seconds))
    token.cancel()
    assert waiting.result() is True


@pytest.mark.parametrize("seconds", TIMES, ids=repr)
def test_b18_waits_of_a_script(seconds: Any) -> None:
    with ScriptedServer() as server:
        waits: Dict[str, Callable[[], bool]] = {
            "connections": lambda: server.wait_connections(0, timeout=seconds),
            "requests": lambda: server.wait_requests(0, timeout=seconds),
            "idle": lambda: server.wait_idle(timeout=seconds),
        }
        for name, wait in waits.items():
            assert wait() is True, name


@pytest.mark.parametrize("seconds", TIMES, ids=repr)
def test_b18_a_server_that_is_not_there(seconds: Any) -> None:
    assert find_llama_server("http://127.0.0.1:9", connect=seconds, answer=seconds) is None
