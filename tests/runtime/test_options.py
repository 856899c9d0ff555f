"""What a run is told by keyword: its conversation, its time."""

from __future__ import annotations

import threading
import time
from typing import Any, List

import pytest

from agentstream import (
    Agent,
    Cancelled,
    ChatMessage,
    ConfigError,
    Conversation,
    DeadlineExceeded,
    Runtime,
    ToolCall,
    Workflow,
    WorkflowFailed,
)
from agentstream.testing import ScriptedClient
from tests.kit.support import FunctionClient, events_of, saying
from tests.kit.work import Holding

# --- conversation ---------------------------------------------------------------------------


def said(conversation: Conversation) -> List[Any]:
    return [message.content for message in conversation.messages]


def test_run_submit_and_stream_take_a_conversation(runtime: Runtime) -> None:
    client = ScriptedClient("one", "two", "three")
    agent, conversation = Agent("a", client=client), Conversation()
    runtime.run(agent, "1", conversation=conversation)
    runtime.submit(agent, "2", conversation=conversation).result(10)
    events = list(runtime.stream(agent, "3", conversation=conversation))
    assert events[-1].data["output"] == "three"
    assert said(conversation) == ["1", "one", "2", "two", "3", "three"]
    assert [m.content for m in client.requests[-1].messages] == ["1", "one", "2", "two", "3"]


def test_a_run_within_does_not_hear_of_it(runtime: Runtime) -> None:
    inner = Agent("inner", client=ScriptedClient("found"))
    call = ToolCall("c", "inner", '{"input": "look"}')
    outer = Agent(
        "outer", client=ScriptedClient([call], "done"), tools=[inner.as_tool("Looks it up.")]
    )
    conversation = Conversation([ChatMessage.user("old"), ChatMessage.assistant("words")])
    runtime.run(outer, "q", conversation=conversation)
    assert [m.content for m in inner.client.requests[0].messages] == ["look"]  # type: ignore[attr-defined]
    assert len(conversation) == 6


def test_a_stopped_run_keeps_what_was_said_if_the_conversation_does(runtime: Runtime) -> None:
    for keep, expected in (("all", ["q", "begun"]), ("completed", [])):
        client, conversation = Holding(), Conversation(keep=keep)
        handle = runtime.submit(Agent("a", client=client), "q", conversation=conversation)
        client.wait_begun()
        handle.cancel("enough")
        with pytest.raises(Cancelled):
            handle.result(10)
        assert said(conversation) == expected


def test_a_conversation_is_for_an_agent_and_is_one(runtime: Runtime) -> None:
    agent = Agent("a", client=saying("x"))
    with pytest.raises(ConfigError, match="conversation is an agent's"):
        runtime.run(Workflow("w", [agent]), "q", conversation=Conversation())
    for wrong in ("ada", [], {}):
        with pytest.raises(ConfigError, match="conversation must be a Conversation"):
            runtime.submit(agent, "q", conversation=wrong)  # type: ignore[arg-type]


# --- timeout --------------------------------------------------------------------------------


def test_a_run_out_of_time_fails_with_its_words(runtime: Runtime) -> None:
    began = time.monotonic()
    with pytest.raises(WorkflowFailed, match="0.2 s") as caught:
        runtime.run(Agent("a", client=Holding()), "q", timeout=0.2)
    assert time.monotonic() - began < 5
    error = caught.value
    assert isinstance(error.__cause__, DeadlineExceeded)
    assert error.run is not None
    assert (error.run.status, error.run.output) == ("failed", "begun")
    last = events_of(runtime.event_stream, error.run.workflow_id)[-1]
    assert (last.type, last.data["error"]) == ("workflow_failed", "DeadlineExceeded")
    assert last.data["failed_step"] == "a"
    assert error.partial is not None
    assert error.partial.content == "begun"


def test_the_wait_for_a_worker_counts() -> None:
    with Runtime(max_workers=1) as runtime:
        client = Holding()
        first = runtime.submit(Agent("a", client=client), "q")
        client.wait_begun()
        second = runtime.submit(Agent("b", client=saying("never")), "q", timeout=0.1)
        with pytest.raises(WorkflowFailed) as caught:
            second.result(10)
        assert isinstance(caught.value.__cause__, DeadlineExceeded)
        kinds = [event.type for event in events_of(runtime.event_stream, second.workflow_id)]
        assert kinds == ["workflow_failed"]
        client.go.cancel()
        assert first.result(10).output == "begun done"


def test_what_does_not_stop_is_left_behind_after_grace() -> None:
    gate = threading.Event()

    def stubborn(request: Any, cancel: Any) -> Any:
        gate.wait(20)
        yield from ()

    runtime = Runtime(grace=0.1)
    try:
        handle = runtime.submit(Agent("a", client=FunctionClient(stubborn)), "q", timeout=0.1)
        with pytest.raises(WorkflowFailed) as caught:
            handle.result(10)
        assert isinstance(caught.value.__cause__, DeadlineExceeded)
    finally:
        gate.set()
        runtime.shutdown()


def test_a_run_in_time_is_left_alone_and_a_stop_is_a_stop(runtime: Runtime) -> None:
    assert runtime.run(Agent("a", client=saying("x")), "q", timeout=60).output == "x"
    client = Holding()
    handle = runtime.submit(Agent("a", client=client), "q", timeout=60)
    client.wait_begun()
    handle.cancel("enough")
    with pytest.raises(Cancelled):
        handle.result(10)
    for wrong in (0, -1, "10", float("nan"), True):
        with pytest.raises(ConfigError, match="timeout"):
            runtime.submit(Agent("a", client=saying("x")), "q", timeout=wrong)  # type: ignore[arg-type]


def test_a_function_out_of_time_ends_the_run(runtime: Runtime) -> None:
    gate = threading.Event()
    try:
        with pytest.raises(WorkflowFailed) as caught:
            runtime.run(Workflow("w", [lambda _: gate.wait(20)]), "q", timeout=0.1)
        assert isinstance(caught.value.__cause__, DeadlineExceeded)
    finally:
        gate.set()
