"""What the data of each event holds: the table, the page made of it, and what real runs write."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys
from typing import Any, List

import pytest

from agentstream import (
    Agent,
    Approval,
    Branch,
    CancelToken,
    Event,
    EventStream,
    EventType,
    MemoryStore,
    Parallel,
    Repeat,
    Retries,
    Runtime,
    SqliteStore,
    Step,
    ToolLimits,
    Workflow,
    tool,
)
from agentstream.errors import AgentStreamError, Cancelled
from agentstream.events import accessors, payloads
from agentstream.events.holds import HOLDS
from agentstream.events.model import TERMINAL
from agentstream.testing import Gate, ScriptedServer
from agentstream.testing.pieces import DONE, chat_chunk
from tests.kit import events_doc
from tests.kit.support import Seen, client_of
from tests.kit.workflow_support import Cast

PROJECT = pathlib.Path(__file__).parents[2]


def check(event: Event) -> None:
    """The event's keys are those that its type is said to hold."""
    always, sometimes = events_doc.keys_of(event.type)
    keys = set(event.data)
    if event.type is EventType.SYSTEM_WARNING:
        keys -= {"agent", "step", "name", "kind"}
    assert always <= keys <= always | sometimes, f"{event.type}: {sorted(keys)}"


def checked(stream: EventStream) -> List[EventType]:
    """The types in a stream's log, once all their events are as they should be."""
    events = stream.store.read(limit=10_000)
    for event in events:
        check(event)
    return [event.type for event in events]


# --- the table and the page -----------------------------------------------------------------


def test_each_type_has_a_function_of_its_name():
    assert list(HOLDS) == list(EventType)
    for kind, (own, *_) in HOLDS.items():
        assert own.__name__ == kind.value
        assert events_doc.text_of(own)


def test_the_page_is_made_of_the_table():
    written = (PROJECT / "docs" / "events.rst").read_text("utf-8")
    assert written == events_doc.document(), "run: python -m tests.kit.events_doc > docs/events.rst"


def test_failures_of_all_kinds_have_the_same_keys():
    wanted = set(events_doc.keys(payloads.failure))
    for error in (ValueError("x"), AgentStreamError("y", phase="tool"), Cancelled(), Hostile()):
        assert set(payloads.failure(error)) == wanted
    assert payloads.failure(ValueError("x"))["outcome"] == "failed"


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


# --- what runs write ------------------------------------------------------------------------


@tool
def add(a: int, b: int) -> int:
    """Add two integers."""
    return a + b


@tool
def hang(cancel: CancelToken) -> str:
    """Wait until it is cancelled."""
    cancel.wait(10)
    return ""


def shapes(cast: Cast) -> Workflow:
    return Workflow(
        "shapes",
        [
            Parallel(cast.says("one", "a", "b"), cast.says("two", "c")),
            Branch(lambda x: True, then=cast.says("three", "d")),
            Repeat(lambda x: x, at_most=2, until=lambda x: False),
            Workflow("inner", [cast.says("four", "e"), str]),
        ],
    )


def test_runs_of_every_shape(cast: Cast):
    with Runtime(event_stream=EventStream(MemoryStore())) as runtime:
        runtime.run(shapes(cast), "go")
        kinds = checked(runtime.event_stream)
    assert EventType.SYSTEM_WARNING in kinds
    assert kinds.count(EventType.WORKFLOW_COMPLETED) == 2


def test_runs_that_fail_are_tried_again_or_stopped(cast: Cast):
    failing = Workflow("failing", [Step(lambda x: 1 // 0, name="odd", retries=1), str])
    gate = Gate()
    halting = Workflow("halting", [cast.halts("late", gate, "a", "b")])
    broken = Workflow("broken", [Parallel(cast.breaks("cut", "x"), lambda x: x)])
    with Runtime(event_stream=EventStream(MemoryStore())) as runtime:
        seen = Seen()
        runtime.event_stream.subscribe(seen, types=["agent_llm_stream_chunk"])
        stopped = runtime.submit(halting, "go")
        seen.wait(1)
        stopped.cancel("enough")
        for workflow in (failing, broken):
            with pytest.raises(AgentStreamError):
                runtime.run(workflow, "go")
        with pytest.raises(Cancelled):
            stopped.result(10)
        gate.open()
        kinds = checked(runtime.event_stream)
    assert set(kinds) >= {
        EventType.WORKFLOW_FAILED,
        EventType.WORKFLOW_CANCELLED,
        EventType.WORKFLOW_STEP_FAILED,
        EventType.AGENT_FAILED,
        EventType.AGENT_LLM_REQUEST_FAILED,
    }


def test_answers_with_types(server: ScriptedServer):
    server.reply_text("a few")
    server.reply_text('{"value": [1, 2]}')
    agent = Agent("counter", client=client_of(server), output=List[int])
    stream = EventStream(MemoryStore())
    assert agent.execute_with_events("count", stream).value == [1, 2]
    kinds = checked(stream)
    assert kinds.index(EventType.AGENT_OUTPUT_INVALID) < kinds.index(EventType.AGENT_OUTPUT)


def test_tools_retries_and_reasoning(server: ScriptedServer):
    server.reply_json({"error": {"message": "busy"}}, status=503)
    server.reply(
        chat_chunk({"reasoning_content": "hm"}),
        chat_chunk(
            {
                "tool_calls": [
                    {"index": n, "id": f"c{n}", "function": {"name": name, "arguments": text}}
                    for n, (name, text) in enumerate(CALLS)
                ]
            }
        ),
        chat_chunk({}, finish_reason="tool_calls"),
        DONE,
    )
    server.reply_tool_calls(("add", {"a": 1, "b": 2}))
    server.reply_text("done")
    client = client_of(server, retries=Retries(2))
    agent = Agent(
        "worker",
        client=client,
        tools=[add, hang],
        tool_limits=ToolLimits(timeout=0.2),
        approve=lambda call: Approval.no("not today") if "99" in call.arguments else True,
    )
    with client, EventStream() as stream:
        output = agent.execute_with_events("go", stream)
        kinds = checked(stream)
    assert output.response == "done"
    assert set(kinds) >= {
        EventType.AGENT_LLM_REASONING_CHUNK,
        EventType.AGENT_LLM_REQUEST_RETRIED,
        EventType.TOOL_CALL_COMPLETED,
        EventType.TOOL_CALL_FAILED,
        EventType.SYSTEM_WARNING,
    }


CALLS = [
    ("add", '{"a": 1, "b": 2}'),
    ("add", '{"a": 99, "b": 2}'),
    ("hang", "{}"),
    ("unknown", "{}"),
    ("add", "no JSON"),
]

_DIES = """
import os, signal, sys
from agentstream import EventStream, Runtime, SqliteStore, Workflow
def die(x):
    runtime.event_stream.store.flush()
    os.kill(os.getpid(), signal.SIGKILL)
runtime = Runtime(event_stream=EventStream(SqliteStore(sys.argv[1])))
runtime.run(Workflow("w", [str, die]), "go", workflow_id="run")
"""


def test_an_interrupted_run_ends_as_any_other(tmp_path: pathlib.Path):
    path = str(tmp_path / "runs.db")
    died = subprocess.run([sys.executable, "-c", _DIES, path], cwd=PROJECT, timeout=60, check=False)
    assert died.returncode == -signal.SIGKILL
    with SqliteStore(path) as store:
        events = store.read(workflow_id="run")
        for event in events:
            check(event)
        end = events[-1]
        assert end.type in TERMINAL
        assert (end.data["failed_step"], end.data["failed_at"]) == ("die", "1")
        assert end.data["error"] == "Interrupted"


def test_what_is_missed(cast: Cast):
    with EventStream(MemoryStore(capacity=5)) as stream:
        lagging = stream.subscribe(max_queue=1)
        for n in range(20):
            stream.append("system_error", "log", payloads.system_error(str(n)))
        events = [lagging.get(10) for _ in range(6)]
    for event in events:
        assert event is not None
        check(event)
    assert accessors.gap_of(told(events)) is not None


def told(events: List[Any]) -> Any:
    return next(event.data for event in events if event.type is EventType.EVENTS_MISSED)


# --- reading --------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", [None, 7, "text", [], ["x"], {}, {"completion_tokens": "x"}, True])
def test_accessors_take_whatever_comes(odd: Any):
    data = dict.fromkeys(
        ("usage", "step", "agent", "chunk", "duration_ms", "will_retry", "first", "last"), odd
    )
    assert accessors.tokens_of(data) is None
    accessors.gap_of(data)
    assert isinstance(accessors.text(data, "chunk"), str)
    assert isinstance(accessors.seconds_of(data), float)
    assert accessors.usage_of(data) is None or isinstance(odd, dict)
    assert accessors.label_of(data) == (odd if isinstance(odd, str) else None)
