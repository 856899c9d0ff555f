"""The loop of a model that calls tools: what it is told, what it may do, what cannot harm it."""

from __future__ import annotations

import functools
import json
import re
import threading
import time
from typing import Any, List, Optional

import pytest

from agentstream import (
    Agent,
    AgentStreamError,
    Approval,
    Cancelled,
    CancelToken,
    ConfigError,
    Conversation,
    EventStream,
    EventType,
    LimitExceeded,
    LlamaClient,
    RunContext,
    Runtime,
    ToolCall,
    ToolLimits,
    Workflow,
    tool,
)
from agentstream.agent.tool_calls import SIDE_BY_SIDE, lost_threads
from agentstream.testing import Gate, Reply, ScriptedClient, ScriptedServer, text_chunks
from agentstream.testing.pieces import DONE, chat_chunk
from tests.kit.support import Task, client_of, wait_until

BOUND = 10.0


@tool
def add(a: int, b: int) -> int:
    """Add two integers."""
    return a + b


def call(name: str, number: int = 0, **arguments: Any) -> ToolCall:
    return ToolCall(f"call_{number}", name, json.dumps(arguments))


class Watched:
    """An agent over a scripted model, with its events and what it sent."""

    def __init__(self, *replies: Any, **settings: Any) -> None:
        self.model = ScriptedClient(*replies)
        settings.setdefault("tools", [add])
        self.agent = Agent("worker", client=self.model, **settings)
        self.events: List[Any] = []

    def run(self, text: str = "go", cancel: Optional[CancelToken] = None) -> Any:
        with EventStream() as stream:
            try:
                return self.agent.execute_with_events(
                    text, stream, workflow_id="run", cancel=cancel
                )
            finally:
                self.events = list(stream.store.read(workflow_id="run", limit=1000))
                assert [e.offset for e in self.events] == list(range(1, len(self.events) + 1))

    def of(self, *types: EventType) -> List[Any]:
        return [event for event in self.events if event.type in types]

    def told(self, request: int = 1) -> List[str]:
        """What the tool messages of a request say."""
        messages = self.model.requests[request].messages
        return [m.content for m in messages if m.role == "tool"]


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

    @tool(timeout=0.4)
    def nap(n: int, cancel: CancelToken) -> int:
        """Sleep."""
        with lock:
            running.append(n)
            most.append(len(running))
        cancel.wait(0.1)
        with lock:
            running.remove(n)
        return n

    count = SIDE_BY_SIDE * 6  # 0.6 s in all, more than any one of them may take
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


# --- what goes wrong is told to the model ---------------------------------------------------


class Wild(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "raised",
    [
        ValueError("no such city"),
        StopIteration(1),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        Wild(),
    ],
    ids=lambda e: type(e).__name__,
)
def test_u04_tool_raises(raised):
    @tool
    def bad() -> str:
        """Fail."""
        raise raised

    watched = Watched([call("bad"), call("add", 1, a=1, b=2)], "done", tools=[bad, add])
    assert watched.run().response == "done"
    failed, sound = watched.told()
    assert failed.startswith(f"Error: the tool raised {type(raised).__name__}")
    assert sound == "3"
    (event,) = watched.of(EventType.TOOL_CALL_FAILED)
    assert (event.data["id"], event.data["error"]) == ("call_0", "ToolError")
    if isinstance(raised, ValueError):
        assert "no such city" in event.data["message"]


def test_u05_tool_hangs():
    release = threading.Event()
    token: List[CancelToken] = []

    @tool(timeout=0.2)
    def hang(cancel: CancelToken) -> str:
        """Hang."""
        token.append(cancel)
        release.wait(BOUND)
        return "late"

    before = lost_threads()
    try:
        watched = Watched([call("hang"), call("add", 1, a=1, b=2)], "done", tools=[hang, add])
        began = time.monotonic()
        assert watched.run().response == "done"
        assert 0.2 <= time.monotonic() - began < 1.0
        assert watched.told() == ["Error: the tool did not answer within 0.2 s", "3"]
        (event,) = watched.of(EventType.TOOL_CALL_FAILED)
        assert event.data["error"] == "ToolTimeout"
        assert 200 <= event.data["duration_ms"] < 1000
        assert event.data["lost_threads"] == before + 1 == lost_threads()
        (warning,) = watched.of(EventType.SYSTEM_WARNING)
        assert "'hang'" in warning.data["message"]
        assert "left behind" in warning.data["message"]
        assert token[0].cancelled
    finally:
        release.set()
    wait_until(lambda: lost_threads() == before)


def test_u05_a_hanging_tool_keeps_no_place_from_the_others():
    release = threading.Event()

    @tool(timeout=0.1)
    def hang(n: int) -> None:
        """Hang."""
        release.wait(BOUND)

    calls = [call("hang", n, n=n) for n in range(SIDE_BY_SIDE)] + [call("add", 99, a=1, b=2)]
    try:
        watched = Watched(calls, "done", tools=[hang, add])
        watched.run()
        assert watched.told()[-1] == "3"
    finally:
        release.set()
    wait_until(lambda: lost_threads() == 0)


class Opaque:
    def __repr__(self) -> str:
        raise RuntimeError("look away")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("x" * 10_000_000, "[cut here: the result has 10000000 characters]"),
        (Opaque(), "(the result cannot be shown)"),
        (lambda: 1, "<function"),
        (float("nan"), "NaN"),
        (None, "null"),
    ],
    ids=["enormous", "unshowable", "function", "nan", "none"],
)
def test_u06_tool_returns_what_cannot_be_sent(value, told):
    @tool
    def give() -> Any:
        """Give."""
        return value

    watched = Watched(
        [call("give")], "done", tools=[give], tool_limits=ToolLimits(result_chars=1000)
    )
    assert watched.run().response == "done"
    (text,) = watched.told()
    assert told in text
    assert len(text) <= 1000
    (event,) = watched.of(EventType.TOOL_CALL_COMPLETED)
    assert len(event.data["result"]) <= 2000


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (ToolCall("1", "launch_missiles", "{}"), "there is no tool 'launch_missiles'; known: add"),
        (call("add", a=1, b=2, c=3), '"c"'),
        (call("add", a=1), '"b"'),
        (call("add", a="one", b=2), '"a"'),
    ],
    ids=["unknown", "extra key", "missing", "wrong type"],
)
def test_s09_arguments_from_the_model_are_checked(asked, said):
    called: List[Any] = []

    @tool(name="add")
    def spy(a: int, b: int) -> int:
        """Add."""
        called.append((a, b))
        return a + b

    watched = Watched([asked], "sorry", tools=[spy])
    assert watched.run().response == "sorry"
    (text,) = watched.told()
    assert text.startswith("Error: ")
    assert said in text
    assert called == []
    (event,) = watched.of(EventType.TOOL_CALL_FAILED)
    assert event.data["error"] == "ToolError"
    assert len(watched.of(EventType.TOOL_CALL_STARTED)) == 1


def test_p11_arguments_never_valid_json(server):
    server.reply_tool_calls(("add", '{"a": 1, "b": '))
    server.reply_text("I give", " up.")
    with client_of(server) as client, EventStream() as stream:
        agent = Agent("worker", client=client, tools=[add])
        output = agent.execute_with_events("1 + ?", stream, workflow_id="run")
        events = list(stream.store.read(workflow_id="run", limit=100))
    assert output.response == "I give up."
    (failed,) = [e for e in events if e.type is EventType.TOOL_CALL_FAILED]
    assert failed.data["arguments"] == '{"a": 1, "b": '
    (told,) = [m for m in server.requests[1].json["messages"] if m["role"] == "tool"]
    assert "this is not JSON" in told["content"]


def _pieces(*calls: Any) -> List[bytes]:
    pieces = [chat_chunk({"tool_calls": [piece]}) for piece in calls]
    return [*pieces, chat_chunk({}, finish_reason="tool_calls"), DONE]


def _piece(arguments: str, name: Optional[str] = None, **rest: Any) -> Any:
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    return {**rest, "function": function}


P10 = {
    "interleaved": [
        _piece('{"a":', "add", index=1, id="x"),
        _piece('{"a":', "add", index=0, id="y"),
        _piece("3,", index=1),
        _piece('1,"b":2}', index=0),
        _piece('"b":4}', index=1),
    ],
    "one index, two ids": [
        _piece('{"a":3,"b":4}', "add", index=0, id="x"),
        _piece('{"a":1,"b":2}', "add", index=0, id="y"),
    ],
    "one index, no ids": [
        _piece('{"a":3,"b":4}', "add", index=0),
        _piece('{"a":1,"b":2}', "add", index=0),
    ],
    "no index, no ids": [_piece('{"a":3,"b":4}', "add"), _piece('{"a":1,"b":2}', "add")],
}


@pytest.mark.parametrize("pieces", list(P10.values()), ids=list(P10))
def test_p10_pieces_out_of_order_index_reuse_no_id(server, pieces):
    server.reply(*_pieces(*pieces))
    server.reply_text("7 and 3")
    with client_of(server) as client:
        output = Agent("worker", client=client, tools=[add]).execute("go")
    assert (output.response, output.tool_calls_count) == ("7 and 3", 2)
    messages = server.requests[1].json["messages"]
    assert [m["content"] for m in messages if m["role"] == "tool"] == ["7", "3"]
    ids = [c["id"] for c in messages[1]["tool_calls"]]
    assert ids == [m["tool_call_id"] for m in messages if m["role"] == "tool"]
    assert all(ids)
    assert len(set(ids)) == 2


def test_what_the_server_wants_back_with_a_call_is_sent_back(server, tmp_path):
    signed = {"google": {"thought_signature": "abc"}}
    server.reply(
        *_pieces(
            _piece('{"a":3,"b":4}', "add", id="x", extra_content=signed),
            _piece('{"a":1,"b":2}', "add", id="y"),
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


# --- loops ----------------------------------------------------------------------------------


def looping(server: ScriptedServer, **limits: Any) -> Any:
    """A model that makes the same call for ever; the error, and how often the tool ran."""
    ran: List[int] = []

    @tool(name="add")
    def spy(a: int, b: int) -> int:
        """Add."""
        ran.append(a)
        return a + b

    server.default(*Reply.tool_calls(("add", {"a": 1, "b": 2})).actions)
    with client_of(server) as client:
        agent = Agent("worker", client=client, tools=[spy], tool_limits=ToolLimits(**limits))
        with pytest.raises(LimitExceeded) as caught:
            agent.execute("go")
    assert caught.value.partial is not None
    assert caught.value.partial.tool_calls
    return caught.value, len(ran)


@pytest.mark.parametrize("limit", [2, 3, 7])
def test_v07_the_same_call_for_ever_ends_after_as_many_requests_as_the_limit(server, limit):
    error, ran = looping(server, repeat_limit=limit)
    assert (error.limit, ran, len(server.requests)) == ("repeat_limit", limit, limit)
    assert f"same arguments in {limit} answers" in str(error)
    told = [m["content"] for m in server.requests[-1].json["messages"] if m["role"] == "tool"]
    assert told[0] == "3"
    assert len(told) == limit - 1
    for text in told[1:]:
        assert text.startswith("3\n\n[You have called add with these arguments before")


def test_v07_without_a_repeat_limit_max_rounds_ends_it(server):
    error, ran = looping(server, repeat_limit=None, max_rounds=5)
    assert (error.limit, ran, len(server.requests)) == ("max_rounds", 4, 5)


def test_v07_without_memory_the_model_is_told_nothing_and_the_limit_counts_all_the_same(server):
    error, ran = looping(server, repeat_limit=4, repeat_memory=0)
    assert (error.limit, ran, len(server.requests)) == ("repeat_limit", 4, 4)
    told = [m["content"] for m in server.requests[-1].json["messages"] if m["role"] == "tool"]
    assert told == ["3"] * 3


def test_v07_other_arguments_for_ever_end_with_max_rounds():
    watched = Watched(
        *[[call("add", a=n, b=n)] for n in range(4)], tool_limits=ToolLimits(max_rounds=4)
    )
    with pytest.raises(LimitExceeded) as caught:
        watched.run()
    assert caught.value.limit == "max_rounds"
    assert len(watched.model.requests) == 4
    assert len(watched.of(EventType.TOOL_CALL_COMPLETED)) == 3  # the last would have no reader
    assert watched.events[-1].type is EventType.AGENT_FAILED


def counting(name: str, ran: List[Any], **settings: Any) -> Any:
    def work(x: int) -> str:
        ran.append((name, x))
        return f"{name} {x}"

    return tool(work, name=name, description="Work.", **settings)


def test_a_repeat_is_told_that_it_is_one_however_it_is_written():
    ran: List[Any] = []
    watched = Watched(
        [ToolCall("1", "look", '{"x": 1}')],
        [ToolCall("2", "other", '{"x": 1}')],
        [ToolCall("3", "look", '{ "x":1 }')],
        "done",
        tools=[counting("look", ran), counting("other", ran)],
    )
    assert watched.run().response == "done"
    assert ran == [("look", 1), ("other", 1), ("look", 1)]
    assert watched.told(3)[:2] == ["look 1", "other 1"]
    assert watched.told(3)[2].startswith("look 1\n\n[You have called look")


LOOK, OTHER = [call("look", x=1)], [call("other", x=1)]


@pytest.mark.parametrize(
    ("memory", "turns"),
    [(1, [LOOK, OTHER] * 3), (2, [LOOK, OTHER, OTHER, LOOK])],
    ids=["of one answer", "of two answers"],
)
def test_memory_forgets_what_was_before_it(memory, turns):
    ran: List[Any] = []
    tools = [counting("look", ran), counting("other", ran)]
    limits = ToolLimits(repeat_memory=memory, repeat_limit=3)
    watched = Watched(*turns, "done", tools=tools, tool_limits=limits)
    assert watched.run().response == "done"
    assert len(ran) == len(turns)
    assert watched.told(len(turns))[-1] in ("look 1", "other 1")


@pytest.mark.parametrize(
    ("memory", "turns"),
    [(1, [LOOK, LOOK]), (2, [LOOK, OTHER, LOOK]), (None, [LOOK, *[OTHER] * 2, LOOK])],
    ids=str,
)
def test_memory_keeps_what_the_answers_within_it_share(memory, turns):
    tools = [counting("look", []), counting("other", [])]
    limits = ToolLimits(repeat_memory=memory, repeat_limit=None)
    watched = Watched(*turns, "done", tools=tools, tool_limits=limits)
    watched.run()
    assert "before" in watched.told(len(turns))[-1]


def test_a_repeatable_tool_is_called_each_time():
    ran: List[Any] = []
    turns = [[call("clock", x=1)]] * 5
    watched = Watched(*turns, "done", tools=[counting("clock", ran, repeatable=True)])
    assert watched.run().response == "done"
    assert len(ran) == 5


def test_what_failed_is_tried_again():
    attempts: List[int] = []

    @tool
    def flaky() -> str:
        """Work the second time."""
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError("not yet")
        return "now"

    watched = Watched([call("flaky")], [call("flaky")], "done", tools=[flaky])
    watched.run()
    assert watched.told(2) == ["Error: the tool raised OSError: not yet", "now"]


def test_the_same_call_twice_in_one_answer_runs_once():
    ran: List[Any] = []
    watched = Watched(
        [call("look", 0, x=1), call("look", 1, x=1), call("look", 2, x=2)],
        "done",
        tools=[counting("look", ran)],
        tool_limits=ToolLimits(repeat_limit=2),
    )
    watched.run()
    assert sorted(ran) == [("look", 1), ("look", 2)]
    first, second, third = watched.told()
    assert second.startswith(first + "\n\n[")
    assert "[" not in third


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


@pytest.mark.parametrize(
    "settings",
    [
        {"tool_choice": "subtract"},
        {"tool_choice": {"function": {}}},
        {"approve": "yes"},
        {"tool_limits": 5},
        {"tool_limits": {"max_rounds": 5}},
    ],
    ids=str,
)
def test_settings_that_cannot_be_used(settings):
    with pytest.raises(ConfigError):
        Agent("worker", client=ScriptedClient(), tools=[add], **settings)


#: A limit that cannot be: its name, its older name, the value.
NO_LIMITS = [
    ("max_rounds", "max_rounds", 0),
    ("max_rounds", "max_rounds", True),
    ("repeat_limit", "repeat_limit", 1),
    ("repeat_memory", "repeat_memory", -1),
    ("timeout", "tool_timeout", 0),
    ("result_chars", "tool_result_limit", 99),
]


@pytest.mark.parametrize(("name", "older", "value"), NO_LIMITS)
def test_limits_that_cannot_be_used_are_named(name, older, value):
    with pytest.raises(ConfigError) as caught:
        ToolLimits(**{name: value})
    assert caught.value.setting == name
    with pytest.raises(ConfigError, match=older) as caught, pytest.warns(DeprecationWarning):
        Agent("worker", client=ScriptedClient(), **{older: value})
    assert caught.value.setting == older


def test_the_older_names_of_the_limits_still_work_and_say_what_to_write():
    older = {
        "max_rounds": 4,
        "repeat_limit": None,
        "repeat_memory": 2,
        "tool_timeout": 5.0,
        "tool_result_limit": 500,
    }
    with pytest.warns(DeprecationWarning, match=r"ToolLimits\(max_rounds=.*result_chars=") as told:
        agent = Agent("worker", client=ScriptedClient(), **older)  # type: ignore[arg-type]
    assert told[0].filename == __file__
    assert agent.tool_limits == ToolLimits(4, None, 2, 5.0, 500)
    assert {name: getattr(agent, name) for name in older} == older
    both = {"tool_limits": ToolLimits(), "max_rounds": 4}
    with pytest.raises(ConfigError, match="tool_limits"):
        Agent("worker", client=ScriptedClient(), **both)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="max_round"):
        Agent("worker", client=ScriptedClient(), max_round=4)  # type: ignore[call-arg]


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
            assert task.ended - began < 0.25
            assert error.partial.content == "Wait. "  # type: ignore[attr-defined]
            assert error.phase == "tool"  # type: ignore[attr-defined]
        else:
            with Runtime() as runtime:
                handle = runtime.submit(agent, "go")
                assert entered.wait(BOUND)
                began = time.monotonic()
                assert runtime.stop_generation(handle.workflow_id, "enough")
                error = Task(lambda: handle.result(BOUND)).error()
                assert time.monotonic() - began < 0.25
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


# --- approval -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (True, "3"),
        (Approval.yes(), "3"),
        (False, "Error: the call was not allowed"),
        (Approval.no(), "Error: the call was not allowed"),
        ("too dear", "Error: the call was not allowed: too dear"),
        (Approval.no("too dear"), "Error: the call was not allowed: too dear"),
        ({"a": 10, "b": 20}, "30"),
        (Approval.change({"a": 10, "b": 20}), "30"),
        ({"a": 10}, 'argument "b"'),
        ({"a": object()}, "not JSON"),
        (None, "Error: the call was not approved: asking raised TypeError"),
        (RuntimeError("secret"), "Error: the call was not approved: asking raised RuntimeError"),
        (SystemExit(1), "Error: the call was not approved: asking raised SystemExit"),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", repr(value)),
)
def test_approve_answers(answer, told):
    asked: List[ToolCall] = []
    ran: List[Any] = []

    @tool(name="add")
    def spy(a: int, b: int) -> int:
        """Add."""
        ran.append((a, b))
        return a + b

    def approve(asking: ToolCall) -> object:
        asked.append(asking)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    watched = Watched([call("add", a=1, b=2)], "done", tools=[spy], approve=approve)
    assert watched.run().response == "done"
    assert asked == [call("add", a=1, b=2)]
    (text,) = watched.told()
    assert told in text
    assert "secret" not in text
    assert bool(ran) == (not text.startswith("Error"))
    if ran and ran != [(1, 2)]:
        (event,) = watched.of(EventType.TOOL_CALL_COMPLETED)
        assert json.loads(event.data["arguments"]) == {"a": 10, "b": 20}


def test_approve_is_asked_in_order_one_at_a_time_and_not_for_bad_calls():
    asked: List[Any] = []
    asking = threading.Lock()
    first_ran = threading.Event()

    @tool
    def work(n: int) -> int:
        """Work."""
        first_ran.set()
        return n

    def approve(call: ToolCall) -> bool:
        assert asking.acquire(blocking=False)
        asked.append(json.loads(call.arguments)["n"])
        if len(asked) == 2:
            assert first_ran.wait(BOUND), "an approved call waits for the others' approval"
        asking.release()
        return True

    calls = [call("work", n, n=n) for n in range(4)] + [call("work", 9, n="x")]
    watched = Watched(calls, "done", tools=[work], approve=approve)
    watched.run()
    assert asked == [0, 1, 2, 3]
    assert watched.told()[:4] == ["0", "1", "2", "3"]


def test_approve_may_take_its_time_and_no_cancel_waits_for_it():
    entered, release = threading.Event(), threading.Event()
    ran: List[Any] = []

    def approve(call: ToolCall) -> bool:
        entered.set()
        release.wait(BOUND)
        return True

    agent = Agent(
        "worker",
        client=ScriptedClient([call("look", x=1)], "never"),
        tools=[counting("look", ran)],
        approve=approve,
        tool_limits=ToolLimits(timeout=0.05),
    )
    token = CancelToken()
    task = Task(functools.partial(agent.execute, "go", cancel=token))
    try:
        assert entered.wait(BOUND)
        task._thread.join(0.2)  # four times what a tool may take
        assert task._thread.is_alive()
        began = time.monotonic()
        token.cancel()
        assert isinstance(task.error(), Cancelled)
        assert task.ended - began < 0.25
    finally:
        release.set()
    wait_until(lambda: lost_threads() == 0)
    assert ran == []


# --- agents as tools ------------------------------------------------------------------------


def test_an_agent_is_a_tool_of_another_and_its_events_name_their_parent():
    inner = Agent(
        "number cruncher", client=ScriptedClient([call("add", a=1, b=2)], "It is 3."), tools=[add]
    )
    outer = Agent(
        "boss",
        client=ScriptedClient([call("number_cruncher", input="1 + 2?")], "Three!"),
        tools=[inner.as_tool("Adds numbers.")],
    )
    with Runtime() as runtime:
        run = runtime.run(outer, "What is 1 + 2?")
        events = list(runtime.event_stream.store.read(limit=1000))
    assert run.output == "Three!"
    told = [m.content for m in outer.client.requests[1].messages if m.role == "tool"]  # type: ignore[attr-defined]
    assert told == ["It is 3."]
    within = [e for e in events if e.parent_workflow_id == run.workflow_id]
    assert {e.workflow_id for e in within} == {within[0].workflow_id}
    assert [e.offset for e in within] == list(range(1, len(within) + 1))
    assert within[0].type is EventType.WORKFLOW_STARTED
    assert within[-1].type is EventType.WORKFLOW_COMPLETED
    text = "".join(e.data["chunk"] for e in within if e.type is EventType.AGENT_LLM_STREAM_CHUNK)
    assert text == "It is 3."
    own = [e for e in events if e.workflow_id == run.workflow_id]
    assert all(e.parent_workflow_id is None for e in own)
    assert len(own) + len(within) == len(events)


@pytest.mark.parametrize("way", ["workflow", "agent", "agent without events"])
def test_a_tool_runs_an_agent_within_its_run(way):
    inner = Agent("inner", client=ScriptedClient("deep"))

    @tool
    def ask(question: str, context: RunContext) -> str:
        """Ask another."""
        context["asked"] = question
        return context.run(inner, question)

    outer = Agent("outer", client=ScriptedClient([call("ask", question="q")], "done"), tools=[ask])
    with Runtime() as runtime:
        stream = runtime.event_stream
        if way == "workflow":
            shared: List[Any] = []
            steps = [outer, lambda value, context: shared.append(dict(context)) or value]
            run = runtime.run(Workflow("w", steps), "x")
            assert (run.output, run.workflow_id) == ("done", run.workflow_id)
            assert shared == [{"asked": "q"}]
            parent = run.workflow_id
        elif way == "agent":
            assert outer.execute_with_events("x", stream, workflow_id="own").response == "done"
            parent = "own"
        else:
            assert outer.run("x").response == "done"
            parent = ""
        events = list(stream.store.read(limit=1000))
    assert outer.client.requests[1].messages[-1].content == "deep"  # type: ignore[attr-defined]
    assert {e.parent_workflow_id for e in events} == ({None, parent} if parent else set())
    within = [e for e in events if e.parent_workflow_id]
    text = "".join(e.data["chunk"] for e in within if e.type is EventType.AGENT_LLM_STREAM_CHUNK)
    assert text == ("deep" if parent else "")


def test_a_workflows_function_runs_an_agent_within_its_run():
    inner = Agent("inner", client=ScriptedClient("deep"))
    with Runtime() as runtime:
        run = runtime.run(Workflow("w", [lambda x, context: context.run(inner, x)]), "x")
        events = list(runtime.event_stream.store.read(limit=1000))
    assert run.output == "deep"
    assert {e.parent_workflow_id for e in events} == {None, run.workflow_id}


def test_an_agent_that_fails_as_a_tool_is_told_to_the_model():
    inner = Agent("inner", client=ScriptedClient([OSError("no")]), tools=[])
    limited = Agent(
        "limited", client=ScriptedClient([call("x")]), tool_limits=ToolLimits(max_rounds=1)
    )
    watched = Watched(
        [call("inner", 0, input="a"), call("limited", 1, input="b")],
        "done",
        tools=[inner.as_tool("One."), limited.as_tool("Two.")],
    )
    assert watched.run().response == "done"
    first, second = watched.told()
    assert first.startswith("Error: the tool raised WorkflowFailed")
    assert "OSError" in first
    assert "max_rounds" in second


def test_a_stop_reaches_the_agent_within(server):
    gate = Gate()
    server.reply(*text_chunks("One", " two")[:2], gate)
    with client_of(server) as client:
        inner = Agent("inner", client=client)
        outer = Agent(
            "outer", client=ScriptedClient([call("inner", input="x")]), tools=[inner.as_tool("I.")]
        )
        with Runtime() as runtime:
            handle = runtime.submit(outer, "go")
            assert gate.wait_reached()
            began = time.monotonic()
            handle.cancel("enough")
            with pytest.raises(Cancelled):
                handle.result(BOUND)
            assert time.monotonic() - began < 0.25
            assert server.wait_client_gone()
            wait_until(lambda: lost_threads() == 0)
            events = list(runtime.event_stream.store.read(limit=1000))
        ends = [e.type.value for e in events if e.type.value.startswith("workflow_c")]
        assert ends == ["workflow_cancelled"] * 2


@pytest.mark.parametrize("way", ["as_tool", "runtime.run"])
def test_u07_agent_runs_agent_on_a_full_pool(way):
    began = time.monotonic()
    with Runtime(max_workers=1) as runtime:

        def delegate(input: str) -> str:
            """Ask another."""
            return runtime.run(Agent("third", client=ScriptedClient("deep")), input).output

        inner = Agent(
            "inner",
            client=ScriptedClient([call("delegate", input="z")], "inner done"),
            tools=[delegate],
        )
        helper = inner.as_tool("Helps.") if way == "as_tool" else _running(runtime, inner)
        outer = Agent(
            "outer", client=ScriptedClient([call("inner", input="y")], "all done"), tools=[helper]
        )
        assert runtime.submit(outer, "x").result(BOUND).output == "all done"
        told = [m.content for m in inner.client.requests[1].messages if m.role == "tool"]  # type: ignore[attr-defined]
    assert told == ["deep"]
    assert time.monotonic() - began < 2.0


def _running(runtime: Runtime, agent: Agent) -> Any:
    def inner(input: str) -> str:
        """Help."""
        return runtime.run(agent, input).output

    return inner


# --- the model is asked once what it can ----------------------------------------------------


def props(knows: Any) -> Any:
    return {"chat_template_caps": {"supports_tools": knows}}


def test_a_template_without_tools_is_an_error_that_names_the_way_out(server):
    server.reply_json(props(False), path="/props")
    with client_of(server) as client:
        agent = Agent("worker", client=client, tools=[add])
        for _ in range(2):
            with pytest.raises(ConfigError, match='tool_mode="schema"'):
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


def test_tool_mode_is_checked():
    with pytest.raises(ConfigError):
        LlamaClient(tool_mode="magic")


def test_a_workflow_step_may_use_tools():
    first = Agent("first", client=ScriptedClient([call("add", a=1, b=2)], "3"), tools=[add])
    second = Agent("second", client=ScriptedClient("three"))
    with Runtime() as runtime:
        run = runtime.run(Workflow("sum", [first, second]), "1 + 2")
        events = list(runtime.event_stream.store.read(workflow_id=run.workflow_id, limit=100))
    assert run.output == "three"
    (done,) = [e for e in events if e.type is EventType.TOOL_CALL_COMPLETED]
    assert (done.data["agent"], done.data["step"], done.data["result"]) == ("first", "0", "3")
