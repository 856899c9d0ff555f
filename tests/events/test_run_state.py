"""RunState: what a run came to and why, and a run that never began told from one that failed."""

from __future__ import annotations

import sys
from typing import Any, Iterator

import pytest

from agentstream import (
    Agent,
    Cancelled,
    EventStream,
    MemoryStore,
    Runtime,
    SqliteStore,
    Workflow,
    WorkflowFailed,
)
from tests.kit.programs import Program
from tests.kit.support import saying
from tests.kit.work import Holding


@pytest.fixture(params=["memory", "sqlite"])
def both(request: Any, tmp_path: Any) -> Iterator[Runtime]:
    store: Any = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "log.db")
    with Runtime(max_workers=1, event_stream=EventStream(store)) as runtime:
        yield runtime


def test_output_and_error_of_each_end(both: Runtime) -> None:
    store = both.event_stream.store

    def fails(_: Any) -> None:
        raise ValueError("no such thing")

    both.run(Workflow("w", [lambda _: {"a": [1, 2]}]), "x", workflow_id="done")
    with pytest.raises(WorkflowFailed):
        both.run(Workflow("w", [fails]), "x", workflow_id="failed")
    client = Holding()
    stopped = both.submit(Agent("a", client=client), "x", workflow_id="stopped")
    client.wait_begun()
    queued = both.submit(Agent("b", client=saying("x")), "x", workflow_id="queued")
    under_way = store.run("stopped")
    assert under_way is not None
    assert (under_way.status, under_way.output, under_way.error) == ("running", None, None)
    queued.cancel("not needed")
    with pytest.raises(Cancelled):
        queued.result(10)
    stopped.cancel("enough")
    with pytest.raises(Cancelled):
        stopped.result(10)
    found = {}
    for name in ("done", "failed", "stopped", "queued"):
        state = store.run(name)
        assert state is not None
        found[name] = (state.status, state.output, state.error, state.started_at is None)
    assert found == {
        "done": ("completed", {"a": [1, 2]}, None, False),
        "failed": ("failed", "", "ValueError: no such thing", False),
        "stopped": ("cancelled", "begun", "enough", False),
        "queued": ("cancelled", "", "not needed", True),
    }
    assert store.run("nothing") is None
    assert {state.output for state in store.runs()} == {None}


def test_an_end_that_is_gone_is_none() -> None:
    store = MemoryStore(capacity=3)
    with Runtime(event_stream=EventStream(store)) as runtime:
        for name in ("one", "two"):
            runtime.run(Workflow("w", [str]), "x", workflow_id=name)
        one = store.run("one")
        assert one is not None
        assert (one.status, one.output) == ("completed", None)


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_a_queued_run_whose_process_died_never_began_and_has_not_failed(tmp_path: Any) -> None:
    source = """
    runtime = Runtime(max_workers=1, event_stream=EventStream(SqliteStore(arguments[0])))
    runtime.submit(Agent("a", client=Stubborn()), "x", workflow_id="begun")
    runtime.submit(Agent("a", client=Stubborn()), "x", workflow_id="queued")
    store = runtime.event_stream.store
    store.flush()
    while store.run("begun").started_at is None:
        threading.Event().wait(0.01)
        store.flush()
    say("both")
    threading.Event().wait(60)
    """
    path = str(tmp_path / "log.db")
    with Program(source, path) as program:
        program.expect("both")
        if "begun" not in program.lines:
            program.expect("begun")
        program.process.kill()
        program.finish()
        pid = program.process.pid
    with SqliteStore(path) as store:
        begun, queued = store.run("begun"), store.run("queued")
        assert begun is not None
        assert queued is not None
        assert begun.status == "failed"
        assert str(begun.error).startswith("Interrupted: ")
        assert begun.started_at is not None
        assert (queued.status, queued.started_at) == ("cancelled", None)
        assert queued.error == f"it never began: the process that had queued it, {pid}, died"
        (event,) = store.read(workflow_id="queued")
        assert event.type == "workflow_cancelled"
