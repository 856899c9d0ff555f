"""The endpoint over Jobs: one web worker starts runs, others follow, answer and stop them."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import time
from typing import Any, Iterator, List, Tuple

import pytest
import requests

from agentstream import (
    Agent,
    Approval,
    ConfigError,
    EventStream,
    Runtime,
    SqliteStore,
    ToolCall,
    Workflow,
    tool,
)
from agentstream.jobs import Jobs
from agentstream.testing import ScriptedClient
from agentstream.web import create_app
from agentstream.web.server import Server, listen
from tests.kit.support import Task
from tests.kit.web_support import SSE


@tool
def pay(cents: int) -> str:
    """Pay."""
    return f"paid {cents}"


def workflows() -> List[Workflow]:
    client = ScriptedClient([ToolCall("1", "pay", '{"cents": 9}')], "Done.")
    clerk = Agent("clerk", client=client, tools=[pay], approve=lambda _: Approval.later())
    return [Workflow("reply", [str.upper]), Workflow("clerk", [clerk])]


@contextlib.contextmanager
def jobs_over(path: pathlib.Path) -> Iterator[Jobs]:
    runtime = Runtime(event_stream=EventStream(SqliteStore(path)), grace=1.0)
    try:
        yield Jobs(runtime, workflows())
    finally:
        runtime.shutdown(cancel=True)


@pytest.fixture
def sites(tmp_path: pathlib.Path) -> Iterator[Tuple[str, str]]:
    """Two web workers on one log; the URLs."""
    with contextlib.ExitStack() as stack:
        urls = []
        for _ in range(2):
            app = create_app(stack.enter_context(jobs_over(tmp_path / "runs.db")), max_streams=8)
            server = stack.enter_context(Server(app, listen("127.0.0.1", 0, cut_after=10.0)))
            stack.callback(app.close)
            urls.append(server.url.rstrip("/"))
        yield urls[0], urls[1]


@contextlib.contextmanager
def worker(path: pathlib.Path) -> Iterator[Jobs]:
    with jobs_over(path) as jobs:
        working = Task(functools.partial(jobs.work, max=2))
        try:
            yield jobs
        finally:
            jobs.stop()
            working.result()


def post(url: str, body: Any) -> Tuple[int, Any]:
    answer = requests.post(url, json=body, timeout=10)
    return answer.status_code, answer.json()


def status(url: str, run: str, wanted: str) -> Any:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found = requests.get(f"{url}/workflows/{run}", timeout=10).json()
        if found["status"] == wanted:
            return found
    raise AssertionError(found)


def test_runs_are_started_in_one_web_worker_and_followed_in_another(
    sites: Tuple[str, str], tmp_path: pathlib.Path
) -> None:
    one, other = sites
    code, said = post(f"{one}/workflows", {"workflow": "reply", "input": "tea"})
    assert code == 201
    run = said["workflow_id"]
    listed = requests.get(f"{other}/workflows", timeout=10).json()
    assert listed["registered"] == ["clerk", "reply"]
    (first,) = listed["workflows"]
    assert (first["workflow_id"], first["name"], first["status"]) == (run, "reply", "queued")
    with SSE(other, f"/workflows/{run}/stream") as stream, worker(tmp_path / "runs.db"):
        found = [sent.event for sent in stream.events()]
    assert (found[0], found[-1]) == ("workflow_started", "workflow_completed")
    assert status(one, run, "completed")["output"] == "TEA"


def test_k23_a_run_that_is_queued_is_stopped_by_another_web_worker(
    sites: Tuple[str, str], tmp_path: pathlib.Path
) -> None:
    one, other = sites
    run = post(f"{one}/workflows", {"workflow": "reply", "input": "tea"})[1]["workflow_id"]
    with SSE(one, f"/workflows/{run}/stream") as stream:
        assert post(f"{other}/workflows/{run}/stop", {})[0] == 202
        assert [sent.event for sent in stream.events()] == ["workflow_cancelled"]
    assert post(f"{one}/workflows/{run}/stop", {})[0] == 409
    with worker(tmp_path / "runs.db") as jobs:
        assert jobs.run(run)[1:3] == ("ended", "cancelled")


def test_what_is_answered_in_a_web_worker_goes_on_in_a_worker(
    sites: Tuple[str, str], tmp_path: pathlib.Path
) -> None:
    one, other = sites
    with worker(tmp_path / "runs.db"):
        run = post(f"{one}/workflows", {"workflow": "clerk", "input": "Pay"})[1]["workflow_id"]
        found = status(other, run, "suspended")
        assert found["can_resume"]
        (call,) = found["pending"]
        url = f"{other}/workflows/{run}/approvals/{call['id']}"
        code, said = post(url, {"answer": "yes", "by": "ann"})
        assert (code, said["resumed"]) == (202, True)
        assert status(one, run, "completed")["output"] == "Done."


def test_what_cannot_be_started_is_refused(sites: Tuple[str, str], tmp_path: pathlib.Path) -> None:
    one, _ = sites
    code, said = post(f"{one}/workflows", {"workflow": "rely", "input": "tea"})
    assert (code, "known: clerk, reply" in said["error"]["message"]) == (404, True)
    with jobs_over(tmp_path / "other.db") as jobs:
        with pytest.raises(ConfigError, match="those of the Jobs"):
            create_app(jobs, workflows={"reply": jobs.workflows["reply"]})
        with pytest.raises(ConfigError, match="expected a Runtime, Jobs or an EventStore, not str"):
            create_app("runs.db")  # type: ignore[arg-type]
