"""The endpoint's answers over a socket: runs started, listed, shown, stopped."""

from __future__ import annotations

import contextlib
import signal
import threading
import urllib.parse
from typing import Any

import pytest
import requests

import agentstream.web
from agentstream import Agent, EventStream, Runtime, Workflow
from agentstream.errors import Cancelled, ConfigError
from agentstream.events.sqlite import SqliteStore
from agentstream.web import create_app
from tests.kit.serve import Serve
from tests.kit.support import FunctionClient, saying, wait_until
from tests.kit.web_support import SSE, chunks, finish, site


def workflow(name: str, client: Any) -> Workflow:
    return Workflow(name, [Agent("writer", client=client)])


def test_a_run_is_started_listed_shown_and_streamed():
    flow = workflow("demo", saying("Hello", " world"))
    with site(workflows={"demo": flow}) as it:
        assert requests.get(it.url + "/workflows").json() == {
            "workflows": [],
            "registered": ["demo"],
        }
        begun = requests.post(it.url + "/workflows", json={"workflow": "demo", "input": "hi"})
        assert begun.status_code == 201
        run = begun.json()["workflow_id"]
        with SSE(it.url, f"/workflows/{run}/stream") as stream:
            assert stream.response.getheader("Content-Type").startswith("text/event-stream")
            events = stream.events()
        assert [int(sent.id) for sent in events] == list(range(1, len(events) + 1))
        assert all(sent.event == sent.data["type"] for sent in events)
        assert "".join(sent.data["data"].get("chunk", "") for sent in events) == "Hello world"
        assert events[-1].event == "workflow_completed"
        state = requests.get(f"{it.url}/workflows/{run}").json()
        assert (state["status"], state["name"]) == ("completed", "demo")
        assert state["last_offset"] == len(events)
        assert state["usage"]["completion_tokens"] == 2
        assert (state["output"], state["error"]) == ("Hello world", None)
        listed = {k: v for k, v in state.items() if k not in ("output", "error", "can_resume")}
        assert requests.get(it.url + "/workflows?limit=5").json()["workflows"] == [listed]
        with SSE(it.url, "/events/stream", after=0) as stream:
            assert [stream.event().id for _ in events] == [sent.id for sent in events]


def test_what_cannot_be_started():
    with site(workflows={"demo": workflow("demo", saying("x"))}) as it:
        url = it.url + "/workflows"
        for body, status in (
            ({"workflow": "none"}, 404),
            ({}, 400),
            ({"workflow": 1}, 400),
            ({"workflow": "demo", "input": 1}, 400),
        ):
            answer = requests.post(url, json=body)
            assert answer.status_code == status, body
            assert answer.json()["error"]["code"] == status
        for limit in ("x", "-1", ""):
            assert requests.get(f"{url}?limit={limit}").status_code == 400
        assert requests.put(url).status_code == 405
        assert "GET" in requests.put(url).headers["Allow"]
        it.runtime.shutdown()
        assert requests.post(url, json={"workflow": "demo"}).status_code == 503


def test_a_run_is_stopped_and_one_in_the_queue_can_be_watched():
    talking = threading.Event()

    def talk(request: Any, cancel: Any) -> Any:
        yield "begun"
        talking.set()
        cancel.wait(20.0)
        raise Cancelled("stopped")

    runtime = Runtime(max_workers=1)
    flow = workflow("slow", FunctionClient(talk))
    try:
        with site(runtime, workflows={"slow": flow}) as it:
            body = {"workflow": "slow"}
            begun = [requests.post(it.url + "/workflows", json=body).json() for _ in range(2)]
            first, second = (answer["workflow_id"] for answer in begun)
            assert talking.wait(5.0)
            states = {
                state["workflow_id"]: state["status"]
                for state in requests.get(it.url + "/workflows").json()["workflows"]
            }
            assert states == {first: "running", second: "queued"}
            with SSE(it.url, f"/workflows/{second}/stream") as stream:
                assert stream.status == 200
                for run in (first, second):
                    answer = requests.post(f"{it.url}/workflows/{run}/stop", json={})
                    assert answer.status_code == 202
                assert stream.events()[-1].event == "workflow_cancelled"
            wait_until(
                lambda: requests.get(f"{it.url}/workflows/{first}").json()["status"] == "cancelled"
            )
    finally:
        runtime.shutdown(cancel=True)


def test_a_run_of_another_process_is_stopped(tmp_path):
    talking = threading.Event()

    def talk(request: Any, cancel: Any) -> Any:
        yield "begun"
        talking.set()
        cancel.wait(20.0)
        raise Cancelled("stopped")

    path = tmp_path / "runs.db"
    with Runtime(event_stream=EventStream(SqliteStore(path))) as runtime:
        handle = runtime.submit(workflow("slow", FunctionClient(talk)), "x", workflow_id="far")
        with site(SqliteStore(path)) as it:
            assert talking.wait(5.0)
            with SSE(it.url, "/workflows/far/stream") as stream:
                assert stream.event().event == "workflow_started"
                assert requests.post(it.url + "/workflows/far/stop", json={}).status_code == 202
                assert stream.events()[-1].event == "workflow_cancelled"
            wait_until(handle.done)
            assert requests.post(it.url + "/workflows/far/stop", json={}).status_code == 409


def test_settings_that_make_no_sense():
    with Runtime() as runtime:
        store = runtime.event_stream.store
        flow = workflow("demo", saying("x"))
        for source, settings in (
            (None, {}),
            (store, {"workflows": {"demo": flow}}),
            (runtime, {"heartbeat": 0}),
            (runtime, {"max_streams": 0}),
            (runtime, {"token": "short"}),
            (runtime, {"token": ""}),
        ):
            with pytest.raises(ConfigError):
                create_app(source, **settings)
        assert create_app(runtime).max_streams == 300
    with pytest.raises(AttributeError):
        agentstream.web.nothing  # noqa: B018


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="POSIX signals")
@pytest.mark.parametrize("events_at_first", [0, 40])
def test_b02_a_server_that_was_suspended_tells_its_streams_what_retention_took(
    tmp_path, events_at_first: int
):
    log = str(tmp_path / "runs.db")
    writer = EventStream(SqliteStore(log, max_events=100))
    chunks(writer, "run", 1)
    chunks(writer, "other", 1)
    writer.store.flush()
    with contextlib.ExitStack() as stack:
        stack.callback(writer.close)
        served = stack.enter_context(Serve("--log", log, "--port", "0"))
        paths = ("/workflows/run/stream", "/events/stream", "/workflows/other/stream")
        streams = [stack.enter_context(SSE(served.url, path, after=0)) for path in paths]
        chunks(writer, "run", events_at_first)
        had = [
            [stream.event() for _ in range(count)]
            for stream, count in zip(streams, (events_at_first + 1, events_at_first + 2, 1))
        ]
        served.process.send_signal(signal.SIGSTOP)
        for _ in range(20):
            chunks(writer, "other", 20)
            chunks(writer, "run", 100)
            writer.store.flush()
        wait_until(lambda: writer.store.bounds().first > 1500, 20)
        served.process.send_signal(signal.SIGCONT)
        finish(writer, "run")
        finish(writer, "other")
        writer.store.flush()
        last = writer.store.bounds().last
        ends = (events_at_first + 2002, last, 402)
        for stream, seen, end in zip(streams, had, ends):
            while without_a_gap(seen) < end:
                seen.append(stream.event())
            assert any(sent.event == "events_missed" for sent in seen)


def without_a_gap(seen) -> int:
    """The last place of what was sent; each before it was sent once, or told to be missed."""
    reached = 0
    for sent in seen:
        if sent.event == "events_missed":
            assert sent.data["data"]["first"] == reached + 1
            reached = sent.data["data"]["last"]
        else:
            assert int(sent.id) == reached + 1
            reached = int(sent.id)
    return reached


def test_b02_a_client_that_reads_too_slowly_is_told_what_retention_took(tmp_path):
    with EventStream(SqliteStore(tmp_path / "runs.db", max_events=100)) as writer:
        chunks(writer, "run", 1)
        with site(SqliteStore(tmp_path / "runs.db")) as it, contextlib.ExitStack() as stack:
            paths = ("/workflows/run/stream", "/events/stream")
            streams = [stack.enter_context(SSE(it.url, path, after=0)) for path in paths]
            for _ in range(30):
                chunks(writer, "run", 100, "x" * 20_000)
                writer.store.flush()
            finish(writer, "run")
            for stream in streams:
                seen = [stream.event()]
                while without_a_gap(seen) < 3002:
                    seen.append(stream.event())
                assert any(sent.event == "events_missed" for sent in seen)
            it.app.close()


@pytest.mark.parametrize(
    "run", ["team/42", "a/b/c", "/led", "trailed/", "a//b", "ä/ö", "1/stream/2"]
)
def test_b07_a_run_whose_id_has_slashes_is_shown(run: str):
    with site() as it:
        chunks(it.events, run, 2)
        address = f"{it.url}/workflows/{urllib.parse.quote(run, safe='')}"
        assert requests.get(address).json()["workflow_id"] == run
        path = f"/workflows/{urllib.parse.quote(run, safe='')}/stream"
        with SSE(it.url, path) as stream:
            assert stream.event().data["workflow_id"] == run
        assert requests.post(address + "/stop", json={}).status_code == 409
