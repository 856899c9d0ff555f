"""once=True: an id that has been completed gives its output; what has not is made again."""

from __future__ import annotations

import sys
import threading
from typing import Any, Iterator, List

import pytest

from agentstream import (
    Agent,
    Busy,
    Cancelled,
    ConfigError,
    Delta,
    EventStream,
    LogError,
    MemoryStore,
    Runtime,
    SqliteStore,
    Usage,
    Workflow,
    WorkflowFailed,
)
from agentstream.runtime.once import is_of
from tests.kit.programs import Program
from tests.kit.support import FunctionClient, saying
from tests.kit.work import Holding


@pytest.fixture(params=["memory", "sqlite"])
def both(request: Any, tmp_path: Any) -> Iterator[Runtime]:
    """A runtime over either store."""
    store: Any = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "log.db")
    with Runtime(event_stream=EventStream(store)) as runtime:
        yield runtime


def counting(calls: List[Any], *fails: Any) -> Workflow:
    """A workflow that counts its runs, and fails in those numbered so."""

    def work(input: Any) -> Any:
        calls.append(input)
        if len(calls) in fails:
            raise ValueError("not this time")
        return {"made": [len(calls)], "of": input}

    return Workflow("w", [work])


def test_a_run_that_was_completed_is_not_made_again(both: Runtime) -> None:
    calls: List[Any] = []
    work = counting(calls)
    first = both.run(work, "x", workflow_id="day/1", once=True)
    again = both.run(work, "y", workflow_id="day/1", once=True)
    assert calls == ["x"]
    assert (again.workflow_id, again.status) == ("day/1", "completed")
    assert again.output == first.output == {"made": [1], "of": "x"}
    handle = both.submit(work, "z", workflow_id="day/1", once=True)
    assert handle.done()
    assert handle.result() == again
    assert handle.cancel() is False
    with pytest.raises(LogError):
        both.run(work, "x", workflow_id="day/1")


def test_its_usage_is_that_of_the_log_and_its_events_can_be_read(both: Runtime) -> None:
    agent = Agent("a", client=saying("Hel", "lo"))
    first = both.run(agent, "x", workflow_id="w", once=True)
    again = both.run(agent, "x", workflow_id="w", once=True)
    assert again.usage == first.usage != Usage()
    assert (again.finish_reason, again.steps) == (first.finish_reason, ()) == ("stop", ())
    assert again.duration_s > 0
    live = list(both.stream(agent, "x", workflow_id="v", once=True))
    kept = list(both.stream(agent, "x", workflow_id="v", once=True))
    assert [(e.offset, e.type, e.data) for e in live] == [(e.offset, e.type, e.data) for e in kept]
    assert live[-1].type == "workflow_completed"


def test_a_cut_answer_is_still_told(both: Runtime) -> None:
    chunks = ["Hel", Delta(finish_reason="length")]
    agent = Agent("a", client=FunctionClient(lambda request, cancel: iter(chunks)))
    first = both.run(agent, "x", workflow_id="w", once=True)
    assert first.warnings
    again = both.run(agent, "x", workflow_id="w", once=True)
    assert (again.warnings, again.finish_reason) == (first.warnings, "length")


def test_what_failed_or_was_stopped_is_made_again_under_an_id_of_its_own(both: Runtime) -> None:
    calls: List[Any] = []
    work = counting(calls, 1)
    with pytest.raises(WorkflowFailed):
        both.run(work, "x", workflow_id="w", once=True)
    client = Holding()
    handle = both.submit(Agent("a", client=client), "x", workflow_id="w", once=True)
    assert handle.workflow_id == "w~2"
    client.wait_begun()
    handle.cancel("enough")
    with pytest.raises(Cancelled):
        handle.result(10)
    third = both.run(work, "x", workflow_id="w", once=True)
    assert (third.workflow_id, third.output["made"]) == ("w~3", [2])
    assert both.run(work, "x", workflow_id="w", once=True).workflow_id == "w~3"
    assert len(calls) == 2
    states = {state.workflow_id: state.status for state in both.event_stream.store.runs()}
    assert states == {"w": "failed", "w~2": "cancelled", "w~3": "completed"}


def test_one_that_is_under_way_here_is_joined(both: Runtime) -> None:
    client = Holding()
    agent = Agent("a", client=client)
    first = both.submit(agent, "x", workflow_id="w", once=True)
    client.wait_begun()
    assert both.submit(agent, "x", workflow_id="w", once=True) is first
    events = both.stream(agent, "x", workflow_id="w", once=True)
    next(events)
    events.close()  # it did not start the run, and does not stop it
    assert not first.done()
    client.go.cancel()
    assert both.run(agent, "x", workflow_id="w", once=True).output == "begun done"


def test_many_threads_at_once_make_one_run(both: Runtime) -> None:
    calls: List[Any] = []
    work, found = counting(calls), []
    threads = [
        threading.Thread(
            target=lambda: found.append(both.run(work, "x", workflow_id="w", once=True))
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert calls == ["x"]
    assert [run.output["made"] for run in found] == [[1]] * 8


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_another_processs_run_is_busy_and_is_made_again_when_that_has_died(tmp_path: Any) -> None:
    source = """
    runtime = Runtime(event_stream=EventStream(SqliteStore(arguments[0])))
    runtime.submit(Agent("a", client=Stubborn()), "x", workflow_id="w", once=True)
    threading.Event().wait(60)
    """
    path = str(tmp_path / "log.db")
    with Program(source, path) as program:
        program.expect("begun")
        with Runtime(event_stream=EventStream(SqliteStore(path))) as runtime:
            with pytest.raises(Busy, match="'w' is under way") as caught:
                runtime.run(counting([]), "x", workflow_id="w", once=True)
            assert caught.value.retryable
            program.process.kill()
            program.finish()
    with Runtime(event_stream=EventStream(SqliteStore(path))) as runtime:
        run = runtime.run(counting([]), "x", workflow_id="w", once=True)
        assert run.workflow_id == "w~2"


def test_what_makes_no_sense_is_told(runtime: Runtime) -> None:
    with pytest.raises(ConfigError, match="once=True needs a workflow_id"):
        runtime.submit(counting([]), "x", once=True)
    with pytest.raises(ConfigError, match="once must be True or False"):
        runtime.submit(counting([]), "x", workflow_id="w", once="yes")  # type: ignore[arg-type]


def test_an_output_that_is_gone_is_told() -> None:
    with Runtime(event_stream=EventStream(MemoryStore(capacity=4))) as runtime:
        work = counting([])
        runtime.run(work, "x", workflow_id="w", once=True)
        runtime.run(work, "x")
        with pytest.raises(LogError, match="its output is gone"):
            runtime.run(work, "x", workflow_id="w", once=True)


def test_ids_of_further_tries() -> None:
    assert is_of("w", "w")
    assert is_of("w~2", "w")
    assert not any(is_of(name, "w") for name in ("w~", "w~x", "ww", "v~2", "w2", "w~2~3"))
