"""One run of an agent with tools: its calls, its events, its choices, and what the server is asked first."""

from __future__ import annotations

import functools
import json
import threading
import time
from typing import Any, List

import pytest

from agentstream import (
    Agent,
    AgentStreamError,
    Cancelled,
    CancelToken,
    ConfigError,
    Conversation,
    EventType,
    RunContext,
    Runtime,
    Workflow,
    tool,
)
from agentstream.agent.tool_calls import SIDE_BY_SIDE, lost_threads
from agentstream.testing import Gate, Reply, ScriptedClient, text_chunks
from tests.kit.support import Task, client_of, wait_until
from tests.kit.tool_loop import BOUND, Watched, add, call, counting, in_pieces, piece

# --- calls side by side ---------------------------------------------------------------------


def test_calls_of_one_turn_run_side_by_side_and_results_come_in_their_order():
    together = threading.Barrier(4)
    last_first = [threading.Event() for _ in range(5)]
    last_first[4].set()

    @tool
    def step(n: int) -> str:
        """A step."""
        together.wait(BOUND)
        assert last_first[n + 1].wait(BOUND)
        last_first[n].set()
        return f"step {n}"

    watched = Watched([call("step", n, n=n) for n in range(4)], "done", tools=[step])
    output = watched.run()
    assert (output.response, output.tool_calls_count) == ("done", 4)
    assert watched.told() == [f"step {n}" for n in range(4)]
    answered = [m.tool_call_id for m in watched.model.requests[1].messages if m.role == "tool"]
    assert answered == [f"call_{n}" for n in range(4)]
    asked = watched.model.requests[1].messages[-5]
    assert (asked.role, [c.id for c in asked.tool_calls]) == ("assistant", answered)


def test_text_before_a_call_streams_and_is_part_of_the_history():
    watched = Watched(["Let me ", "see.", call("add", a=1, b=2)], "It is 3.")
    assert list(watched.agent.stream("1 + 2?")) == ["Let me ", "see.", "It", " is", " 3."]
    assert watched.model.requests[1].messages[1].content == "Let me see."


def test_many_calls_share_the_places_and_each_has_its_own_time():
    running: List[int] = []
    most: List[int] = []
    lock = threading.Lock()

    @tool(timeout=1.0)
    def nap(n: int, cancel: CancelToken) -> int:
        """Sleep."""
        with lock:
            running.append(n)
            most.append(len(running))
        cancel.wait(0.2)
        with lock:
            running.remove(n)
        return n

    count = SIDE_BY_SIDE * 6  # 1.2 s in all, more than any one of them may take
    watched = Watched([call("nap", n, n=n) for n in range(count)], "done", tools=[nap])
    watched.run()
    assert watched.told() == [str(n) for n in range(count)]
    assert max(most) == SIDE_BY_SIDE


def test_events_name_the_call_and_are_cut_to_a_size():
    @tool
    def echo(text: str) -> str:
        """Say it again."""
        return text * 2

    text = "x" * 3000
    watched = Watched([call("echo", text=text)], "done", tools=[echo])
    watched.run()
    started, completed = watched.of(
        EventType.TOOL_CALL_STARTED, EventType.TOOL_CALL_COMPLETED, EventType.TOOL_CALL_FAILED
    )
    assert started.data["id"] == completed.data["id"] == "call_0"
    assert started.data["name"] == completed.data["name"] == "echo"
    assert started.data["arguments"] == json.dumps({"text": text})[:2000]
    assert completed.data["result"] == "x" * 2000
    assert 0 <= completed.data["duration_ms"] < 5000
    assert watched.told() == ["x" * 6000]


def test_ten_agents_with_five_tools_each_on_a_pool_of_four():
    def tools() -> List[Any]:
        def make(n: int) -> Any:
            def work(x: int) -> int:
                return x * 10 + n

            return tool(work, name=f"tool{n}", description="Work.")

        return [make(n) for n in range(5)]

    agents = [
        Agent(
            f"agent{i}",
            client=ScriptedClient([call(f"tool{n}", n, x=i) for n in range(5)], f"answer {i}"),
            tools=tools(),
        )
        for i in range(10)
    ]
    with Runtime(max_workers=4) as runtime:
        handles = [runtime.submit(agent, "go") for agent in agents]
        outputs = [handle.result(BOUND).output for handle in handles]
    assert outputs == [f"answer {i}" for i in range(10)]
    for i, agent in enumerate(agents):
        messages = agent.client.requests[1].messages  # type: ignore[attr-defined]
        told = [m.content for m in messages if m.role == "tool"]
        assert told == [str(i * 10 + n) for n in range(5)]


def test_what_the_server_wants_back_with_a_call_is_sent_back(server, tmp_path):
    signed = {"google": {"thought_signature": "abc"}}
    server.reply(
        *in_pieces(
            piece('{"a":3,"b":4}', "add", id="x", extra_content=signed),
            piece('{"a":1,"b":2}', "add", id="y"),
        )
    )
    server.reply_text("7 and 3")
    conversation = Conversation()
    with client_of(server) as client:
        Agent("worker", client=client, tools=[add]).execute("go", conversation=conversation)
    first, second = server.requests[1].json["messages"][1]["tool_calls"]
    assert first["extra_content"] == signed
    assert "extra_content" not in second
    conversation.save(tmp_path / "talk.json")
    kept = Conversation.load(tmp_path / "talk.json").messages[1].tool_calls
    assert [call.extra_content for call in kept] == [signed, None]


# --- control --------------------------------------------------------------------------------


def test_tool_choice_binds_the_first_request_only(server):
    server.reply_tool_calls(("add", {"a": 1, "b": 2}))
    server.reply_text("3")
    with client_of(server) as client:
        agent = Agent(
            "worker",
            client=client,
            tools=[add, counting("look", [])],
            tool_choice="required",
            parallel_tool_calls=False,
            reasoning_effort="low",
        )
        agent.execute("go")
    first, second = (request.json for request in server.requests)
    assert first["tool_choice"] == "required"
    assert "tool_choice" not in second
    assert first["parallel_tool_calls"] is second["parallel_tool_calls"] is False
    assert first["reasoning_effort"] == second["reasoning_effort"] == "low"
    assert len(first["tools"]) == len(second["tools"]) == 2


def test_a_named_choice_reaches_llama_cpp_as_that_one_tool_required(server):
    server.reply_tool_calls(("add", {"a": 1, "b": 2}))
    server.reply_text("3")
    with client_of(server) as client:
        tools = [counting("look", []), add]
        Agent("worker", client=client, tools=tools, tool_choice="add").execute("go")
    first, second = (request.json for request in server.requests)
    assert first["tool_choice"] == "required"
    assert [t["function"]["name"] for t in first["tools"]] == ["add"]
    assert [t["function"]["name"] for t in second["tools"]] == ["look", "add"]


def test_a_named_choice_is_sent_as_it_is_to_others():
    watched = Watched("3", tool_choice="add")
    watched.run()
    wanted = {"type": "function", "function": {"name": "add"}}
    assert watched.model.requests[0].tool_choice == wanted


def test_a_tool_may_know_the_run():
    seen: List[RunContext] = []

    @tool
    def look(context: RunContext) -> str:
        """Look."""
        seen.append(context)
        return "ok"

    Watched([call("look", 7)], "done", tools=[look]).run()
    (context,) = seen
    assert (context.workflow_id, context.agent, context.tool_call_id) == ("run", "worker", "call_7")


@pytest.mark.parametrize("through", ["token", "runtime"])
def test_x04_cancel_during_a_tool(through):
    entered, told, release = (threading.Event() for _ in range(3))

    @tool
    def hang(cancel: CancelToken) -> str:
        """Hang."""
        entered.set()
        if cancel.wait(BOUND):
            told.set()
        release.wait(BOUND)
        return "late"

    client = ScriptedClient(["Wait. ", call("hang")], "never")
    agent = Agent("worker", client=client, tools=[hang])
    try:
        if through == "token":
            token = CancelToken()
            task = Task(lambda: agent.execute("go", cancel=token))
            assert entered.wait(BOUND)
            began = time.monotonic()
            token.cancel("enough")
            error = task.error()
            assert task.ended - began < 1.0
            assert error.partial.content == "Wait. "  # type: ignore[attr-defined]
            assert error.phase == "tool"  # type: ignore[attr-defined]
        else:
            with Runtime() as runtime:
                handle = runtime.submit(agent, "go")
                assert entered.wait(BOUND)
                began = time.monotonic()
                assert runtime.stop_generation(handle.workflow_id, "enough")
                error = Task(lambda: handle.result(BOUND)).error()
                assert time.monotonic() - began < 1.0
                release.set()
                wait_until(lambda: lost_threads() == 0)  # what it brings late, nobody hears
                store = runtime.event_stream.store
                events = list(store.read(workflow_id=handle.workflow_id, limit=100))
            assert events[-1].type is EventType.WORKFLOW_CANCELLED
            assert [e.type.value for e in events].count("workflow_cancelled") == 1
            assert "late" not in str(events)
            assert error.run.output == "Wait. "  # type: ignore[attr-defined]
        assert isinstance(error, Cancelled)
        assert "enough" in str(error)
        assert told.wait(BOUND)
    finally:
        release.set()
    wait_until(lambda: lost_threads() == 0)


# --- the model is asked once what it can ----------------------------------------------------


def props(knows: Any) -> Any:
    return {"chat_template_caps": {"supports_tools": knows}}


def test_a_template_without_tools_is_an_error_that_names_the_way_out(server):
    server.reply_json(props(False), path="/props")
    with client_of(server) as client:
        agent = Agent("worker", client=client, tools=[add])
        for _ in range(2):
            with pytest.raises(ConfigError, match='tool_mode="auto"'):
                agent.execute("go")
    assert [r.path for r in server.requests] == ["/props"]


@pytest.mark.parametrize(
    "reply",
    [
        Reply.json(props(True)),
        Reply.json({}),
        Reply.json([]),
        Reply.json(props(None)),
        Reply("no", status=404),
        Reply("not json", content_type="text/html"),
    ],
    ids=["knows", "no caps", "no object", "null", "404", "html"],
)
def test_a_server_that_knows_tools_or_does_not_tell_is_used(server, reply):
    server.route("/props", lambda request: reply)
    server.default(*text_chunks("fine"))
    with client_of(server) as client:
        agent = Agent("worker", client=client, tools=[add])
        assert agent.execute("go").response == "fine"
        assert agent.execute("go").response == "fine"
        assert client.chat("no tools, no question").content == "fine"
    asked = [r.path for r in server.requests].count("/props")
    assert asked == (1 if reply.status == 200 and b"true" in reply.actions[0].body else 2)


def test_a_server_that_is_loading_is_asked_again(server):
    loading = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
    server.reply_json(loading, status=503, path="/props")
    server.reply_json(props(True), path="/props")
    server.reply_text("fine")
    with client_of(server) as client:
        assert Agent("worker", client=client, tools=[add]).execute("go").response == "fine"
    assert [r.path for r in server.requests] == ["/props", "/props", "/v1/chat/completions"]


def test_the_question_ends_with_a_cancel_and_with_its_clock(server):
    gate = Gate()
    server.route("/props", lambda request: Reply(gate))
    with client_of(server) as client:
        agent = Agent("worker", client=client, tools=[add])
        token = CancelToken()
        task = Task(functools.partial(agent.execute, "go", cancel=token))
        assert gate.wait_reached()
        token.cancel()
        assert isinstance(task.error(), Cancelled)
        assert client._transport.places.free == client._transport.limits.pool_size
    with client_of(server, first_token=0.1) as client:
        server.route("/props", lambda request: Reply(before_headers=[gate]))
        with pytest.raises(AgentStreamError):
            Agent("worker", client=client, tools=[add]).execute("go")


def test_a_workflow_step_may_use_tools():
    first = Agent("first", client=ScriptedClient([call("add", a=1, b=2)], "3"), tools=[add])
    second = Agent("second", client=ScriptedClient("three"))
    with Runtime() as runtime:
        run = runtime.run(Workflow("sum", [first, second]), "1 + 2")
        events = list(runtime.event_stream.store.read(workflow_id=run.workflow_id, limit=100))
    assert run.output == "three"
    (done,) = [e for e in events if e.type is EventType.TOOL_CALL_COMPLETED]
    assert (done.data["agent"], done.data["step"], done.data["result"]) == ("first", "0", "3")
