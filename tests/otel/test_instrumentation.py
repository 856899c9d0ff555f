"""The spans of runs, with the real SDK: their tree, their parents, what they hold and what not."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any, Dict, List

import pytest

from agentstream import Agent, Approval, EventStream, Runtime, SqliteStore, Workflow, otel, tool
from agentstream.testing import ScriptedServer
from tests.kit.traced_program import Model, client_of, workflow
from tests.kit.traces import Telemetry, tree

PROJECT = pathlib.Path(__file__).parents[2]

TREE = """\
submit
  invoke_workflow report
    step parallel
      step facts
        invoke_agent facts
          chat m-1
          execute_tool look
          execute_tool look ! ToolError
          chat m-1
      step style
        invoke_agent style
          chat m-1 *
    step inner
      invoke_workflow inner
        step summary
          invoke_agent summary
            chat m-1 +
    step go
    invoke_workflow report
      step go
      step writer
        invoke_agent writer
          chat m-1"""


@pytest.fixture
def telemetry() -> Any:
    with Telemetry() as made:
        yield made


def test_the_tree_of_a_run_that_another_process_resumes_is_the_drawn_one(
    server: ScriptedServer, telemetry: Telemetry, tmp_path: pathlib.Path
) -> None:
    server.route("/v1/chat/completions", Model())
    path = str(tmp_path / "runs.db")
    with client_of(server.url) as client:
        with Runtime(event_stream=EventStream(SqliteStore(path)), checkpoints=True) as runtime:
            with telemetry.instrument(runtime.event_stream, propagate=True):
                with telemetry.tracer.start_as_current_span("submit"):
                    run = runtime.run(workflow(client), "go", workflow_id="r1")
    assert run.status == "suspended"
    here = telemetry.spans()
    done = subprocess.run(
        [sys.executable, "-m", "tests.kit.traced_program", path, server.url, "r1"],
        cwd=PROJECT,
        check=True,
        stdout=subprocess.PIPE,
        timeout=60,
    )
    there: List[Dict[str, Any]] = json.loads(done.stdout)
    assert tree(here + there) == TREE
    assert len({span["trace"] for span in here + there}) == 1
    check_sent(server, here)


def check_sent(server: ScriptedServer, spans: List[Dict[str, Any]]) -> None:
    """Each request named the span that it was made in, its retry too; the resumer's none."""
    chats = {span["id"]: span for span in spans if span["name"] == "chat m-1"}
    sent = [request.headers.get("traceparent") for request in server.requests]
    ids = [header.split("-")[2] for header in sent if header]
    assert set(ids) == set(chats)
    assert len(ids) == len(chats) + 1  # "style" was asked twice in one span
    assert sent[-1] is None
    assert {span["kind"] for span in chats.values()} == {"CLIENT"}


RESTED = """\
invoke_workflow outer
  step inner
    invoke_workflow inner
      step clerk
        invoke_agent clerk
          chat m-1
          execute_tool pay
  invoke_workflow outer
    step inner
      invoke_workflow inner
        step clerk
          invoke_agent clerk
            execute_tool pay
              booking
            chat m-1"""


def test_a_call_that_waited_for_its_answer_is_traced_where_it_is_made(
    server: ScriptedServer, telemetry: Telemetry
) -> None:
    @tool
    def pay(cents: int) -> str:
        """Pay."""
        with telemetry.tracer.start_as_current_span("booking"):
            return f"{cents} paid"

    server.reply_tool_calls(("pay", {"cents": 900}))
    server.reply_text("done")
    with client_of(server.url) as client, Runtime(checkpoints=True) as runtime:
        clerk = Agent("clerk", client=client, tools=[pay], approve=lambda _: Approval.later())
        outer = Workflow("outer", [Workflow("inner", [clerk])])
        with telemetry.instrument(runtime.event_stream):
            run = runtime.run(outer, "x", workflow_id="r")
            assert run.status == "suspended"
            (call,) = run.pending
            assert runtime.resume(outer, "r", {call.id: True}).result(10).output == "done"
    assert tree(telemetry.spans()) == RESTED
    statuses = [span["attributes"] for span in telemetry.named("invoke_workflow inner")]
    assert [each["agentstream.workflow.status"] for each in statuses] == ["suspended", "completed"]


def test_without_the_sdk_nothing_happens(server: ScriptedServer) -> None:
    server.route("/v1/chat/completions", Model())
    with client_of(server.url) as client, Runtime() as runtime:
        with otel.instrument(runtime.event_stream, propagate=True):
            run = runtime.run(Agent("plain", client=client, system_prompt="p"), "x")
    assert run.output == "p said"
    first = runtime.event_stream.store.read(limit=1)[0]
    assert "traceparent" not in first.data
    assert "traceparent" not in server.requests[0].headers
