"""What spans and metrics hold, which are whose, and that a slow exporter holds up nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import Any, Dict, Iterator, List

import pytest
from opentelemetry import context as current, trace
from opentelemetry.sdk.trace import SpanProcessor

from agentstream import (
    Agent,
    ConfigError,
    EventStream,
    FallbackClient,
    LlamaClient,
    MemoryStore,
    Parallel,
    Repeat,
    RunContext,
    Runtime,
    SqliteStore,
    Step,
    Workflow,
    mcp,
    otel,
    tool,
)
from agentstream.errors import Cancelled, WorkflowFailed
from agentstream.jobs import Jobs
from agentstream.otel import instrumentation, spans
from agentstream.testing import Gate, Reply, ScriptedServer
from agentstream.testing.mcp import ScriptedMCP
from tests.kit.mcp_support import fault_server
from tests.kit.support import client_of, saying, wait_until
from tests.kit.traces import Telemetry, tree


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    with Telemetry() as made:
        yield made


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[LlamaClient]:
    with client_of(server, model="m-1") as made:
        yield made


def runs(telemetry: Telemetry, *work: Any, **settings: Any) -> List[Dict[str, Any]]:
    """Run each (a workflow or an agent) on "MARKEDINPUT"; the spans."""
    with Runtime() as runtime, telemetry.instrument(runtime.event_stream, **settings):
        for each in work:
            try:
                runtime.run(each, "MARKEDINPUT")
            except (WorkflowFailed, Cancelled):
                pass
    return telemetry.spans()


@tool
def look(at: str) -> str:
    """Look."""
    return f"MARKEDRESULT {at}"


# --- what they hold -------------------------------------------------------------------------


def answers(server: ScriptedServer) -> None:
    server.reply_tool_calls(("look", {"at": "MARKEDARGUMENT"}), ("MARKEDTOOL", {}))
    server.reply_text("MARKED", "ANSWER")


def test_a_request_a_tool_and_an_agent_say_what_they_are(server, client, telemetry):
    answers(server)
    request = {"temperature": 0.5, "max_tokens": 7, "seed": 3, "stop": "MARK", "top_p": 0.5}
    agent = Agent("writer", client=client, system="MARKEDSYSTEM", tools=[look], **request)
    runs(telemetry, agent)
    (chat, second), (used, odd) = telemetry.named("chat m-1"), tools(telemetry)
    assert chat["kind"] == "CLIENT"
    assert chat["attributes"] == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "llama.cpp",
        "gen_ai.agent.name": "writer",
        "gen_ai.request.model": "m-1",
        "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.5,
        "gen_ai.request.max_tokens": 7,
        "gen_ai.request.seed": 3,
        "gen_ai.request.stop_sequences": ["MARK"],
        "gen_ai.response.model": "scripted",
        "gen_ai.response.id": "chatcmpl-scripted",
        "gen_ai.response.finish_reasons": ["tool_calls"],
        "gen_ai.response.time_to_first_chunk": chat["attributes"][
            "gen_ai.response.time_to_first_chunk"
        ],
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 2,
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "agentstream.workflow.id": chat["attributes"]["agentstream.workflow.id"],
        "agentstream.round": 1,
    }
    assert second["attributes"]["agentstream.round"] == 2
    assert used["attributes"]["gen_ai.tool.call.id"] == "call_0"
    assert (used["failed"], odd["failed"]) == (False, True)
    (invoked,) = telemetry.named("invoke_agent writer")
    assert invoked["attributes"]["gen_ai.usage.input_tokens"] == 20
    (run,) = telemetry.named("invoke_workflow writer")
    assert run["attributes"]["agentstream.workflow.status"] == "completed"
    assert run["start"] <= invoked["start"] <= chat["start"] <= chat["end"] <= invoked["end"]
    assert invoked["end"] <= run["end"]
    said = json.dumps(telemetry.spans()).replace("MARKEDTOOL", "")
    assert "MARKED" not in said  # no content, but for the name of a tool that there is not


def tools(telemetry: Telemetry) -> List[Dict[str, Any]]:
    found = [span for span in telemetry.spans() if span["name"].startswith("execute_tool")]
    return sorted(found, key=lambda span: str(span["attributes"]["gen_ai.tool.call.id"]))


@pytest.mark.parametrize("way", ["argument", "variable"])
def test_content_is_there_for_who_asks_for_it(server, client, telemetry, way, monkeypatch):
    answers(server)
    if way == "variable":
        name = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
        monkeypatch.setenv(name, "span_only")
    agent = Agent("writer", client=client, system="MARKEDSYSTEM", tools=[look])
    runs(telemetry, agent, capture_content=way == "argument")
    (first, second), (used, _) = telemetry.named("chat m-1"), tools(telemetry)
    asked, called = first["attributes"], second["attributes"]
    user = {"role": "user", "parts": [{"type": "text", "content": "MARKEDINPUT"}]}
    assert json.loads(asked["gen_ai.input.messages"]) == [user]
    instructions = [{"type": "text", "content": "MARKEDSYSTEM"}]
    assert json.loads(asked["gen_ai.system_instructions"]) == instructions
    assert json.loads(asked["gen_ai.tool.definitions"])[0]["name"] == "look"
    call = {"type": "tool_call", "id": "call_0", "name": "look"}
    call["arguments"] = {"at": "MARKEDARGUMENT"}  # type: ignore[assignment]
    (answer,) = json.loads(asked["gen_ai.output.messages"])
    assert answer["parts"][0] == call
    assert answer["finish_reason"] == "tool_calls"
    told = json.loads(called["gen_ai.input.messages"])
    assert [message["role"] for message in told] == ["user", "assistant", "tool", "tool"]
    assert told[1]["parts"][0] == call
    assert told[2]["parts"][0]["response"] == "MARKEDRESULT MARKEDARGUMENT"
    assert json.loads(used["attributes"]["gen_ai.tool.call.arguments"]) == call["arguments"]
    assert used["attributes"]["gen_ai.tool.call.result"] == "MARKEDRESULT MARKEDARGUMENT"


def test_metrics_have_the_durations_tokens_and_errors(server, client, telemetry):
    answers(server)
    server.reply_json({"error": {"message": "no"}}, status=400)
    agent = Agent("writer", client=client, tools=[look])
    runs(telemetry, agent, agent)
    points = telemetry.points()
    durations = {
        (point.attributes.get("error.type"), point.attributes["gen_ai.request.model"]): point.count
        for point in points["gen_ai.client.operation.duration"]
    }
    assert durations == {(None, "m-1"): 2, ("BadRequest", "m-1"): 1}
    tokens = points["gen_ai.client.token.usage"]
    assert {p.attributes["gen_ai.token.type"]: p.sum for p in tokens} == {"input": 20, "output": 4}
    assert sum(p.count for p in points["gen_ai.client.operation.time_to_first_chunk"]) == 2
    names = {p.attributes["gen_ai.tool.name"] for p in points["gen_ai.execute_tool.duration"]}
    assert names == {"look", "_OTHER"}  # a model cannot make up a series
    for metric in ("gen_ai.invoke_agent.duration", "gen_ai.invoke_workflow.duration"):
        counts = {p.attributes.get("error.type"): p.count for p in points[metric]}
        assert list(counts.values()) == [1, 1]
        assert None in counts
    every = [point for found in points.values() for point in found]
    assert not any("agentstream.workflow.id" in point.attributes for point in every)


# --- errors ---------------------------------------------------------------------------------


def test_what_fails_is_tried_again_or_stopped(server, client, telemetry):
    gate = Gate()
    server.reply("", gate, repeat=True)
    tries: List[int] = []

    def flaky(value: Any) -> Any:
        tries.append(1)
        if len(tries) < 2:
            raise ValueError("MARKEDWORDS")
        return value

    odd = Step(lambda x: 1 // 0, name="odd")
    both = Parallel(Step(flaky, name="flaky", retries=1), odd, fail_fast=False)
    runs(telemetry, Workflow("bad", [both]))
    with Runtime() as runtime, telemetry.instrument(runtime.event_stream):
        handle = runtime.submit(Workflow("slow", [Agent("late", client=client)]), "x")
        server.wait_requests(1)
        handle.cancel("enough")
        with pytest.raises(Cancelled):
            handle.result(10)
        gate.open()
    spans = telemetry.spans()
    steps = [s for s in spans if s["name"] == "step flaky"]
    told = [(s["attributes"]["agentstream.attempt"], s["failed"]) for s in steps]
    assert sorted(told) == [(1, True), (2, False)]
    (failed,) = telemetry.named("step odd")
    assert failed["attributes"]["error.type"] == "ZeroDivisionError"
    assert "MARKED" not in json.dumps(spans)
    (slow,), (chat,) = telemetry.named("invoke_workflow slow"), telemetry.named("chat m-1")
    for each in (slow, chat):  # somebody wanted that: no error
        assert (each["attributes"]["error.type"], each["failed"]) == ("Cancelled", False)
    assert slow["attributes"]["agentstream.workflow.status"] == "cancelled"


def test_a_fallback_is_an_event_of_the_request(server, client, telemetry):
    server.reply_json({"error": {"message": "busy"}}, status=503)
    server.reply_text("fine")
    with client_of(server, model="m-2") as second:
        runs(telemetry, Agent("writer", client=FallbackClient([client, second])))
    (chat,) = [span for span in telemetry.spans() if span["name"].startswith("chat ")]
    ((name, attributes),) = chat["events"]
    assert name == "agentstream.fallback"
    assert attributes["error.type"] == "ServerError"
    assert chat["attributes"]["gen_ai.request.model"] == "m-2"
    (point,) = telemetry.points()["gen_ai.client.operation.duration"]
    assert point.attributes["gen_ai.request.model"] == "m-2"


# --- whose they are -------------------------------------------------------------------------


def test_a_users_own_spans_and_runs_are_within_the_tool_or_step(server, client, telemetry):
    inner = Agent("inner", client=saying("x"))

    @tool
    def work(of: str, context: RunContext) -> str:
        """Work."""
        with telemetry.tracer.start_as_current_span("query"):
            return str(context.run(inner, of))

    def own(value: Any) -> Any:
        with telemetry.tracer.start_as_current_span("own"):
            return value

    server.reply_tool_calls(("work", {"of": "a"}))
    server.reply_text("done")
    runs(telemetry, Workflow("w", [own, Agent("outer", client=client, tools=[work])]))
    assert tree(telemetry.spans()) == "\n".join(
        [
            "invoke_workflow w",
            "  step own",
            "    own",
            "  step outer",
            "    invoke_agent outer",
            "      chat m-1",
            "      execute_tool work",
            "        query",
            "          invoke_workflow inner",
            "            step inner",
            "              invoke_agent inner",
            "                chat function",
            "      chat m-1",
        ]
    )


def test_a_predicate_is_within_its_own_step_not_in_what_ended_before_it(telemetry):
    def enough(value: Any) -> bool:
        with telemetry.tracer.start_as_current_span("enough"):
            return True

    repeat = Repeat(Agent("a", client=saying("x")), at_most=2, until=enough, name="again")
    runs(telemetry, Workflow("w", [repeat]))
    (mine,), (around,) = telemetry.named("enough"), telemetry.named("step again")
    assert mine["parent"] == around["id"]


def test_an_agent_on_its_own_is_within_its_caller_and_leaves_nothing_behind(client, server):
    server.reply_text("hi")
    with Telemetry() as telemetry, EventStream(MemoryStore()) as stream:
        with telemetry.instrument(stream):
            with telemetry.tracer.start_as_current_span("caller") as mine:
                Agent("alone", client=client).execute_with_events("x", stream)
                assert trace.get_current_span() is mine
        assert tree(telemetry.spans()) == "caller\n  invoke_agent alone\n    chat m-1"
    assert current.get_current() == {} or trace.get_current_span().get_span_context().trace_id == 0


def test_calls_to_mcp_servers_have_spans_and_say_where_they_belong(server, client, telemetry):
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    def fail() -> None:
        """Fail."""
        raise ValueError("no")

    server.reply_tool_calls(("add", {"a": 1, "b": 2}), ("fs_echo", {"text": "x"}), ("fail", {}))
    server.reply_text("3")
    with (
        ScriptedMCP(add, fail) as script,
        mcp.Server.http(script.url) as web,
        fault_server() as pipes,
    ):
        agent = Agent("m", client=client, tools=[*web.tools(), *pipes.tools("fs_", ["echo"])])
        runs(telemetry, agent, propagate=True)
        sent = [r for r in script.http.requests if r.headers.get("Mcp-Method") == "tools/call"]
    (call,), (echo,) = telemetry.named("tools/call add"), telemetry.named("tools/call echo")
    (outer,) = telemetry.named("execute_tool add")
    assert call["parent"] == outer["id"]
    assert call["kind"] == "CLIENT"
    assert call["attributes"]["mcp.method.name"] == "tools/call"
    assert call["attributes"]["server.address"] == "127.0.0.1"
    assert "server.address" not in echo["attributes"]
    header = sent[0].headers["traceparent"]
    assert header.split("-")[:3] == ["00", call["trace"], call["id"]]
    assert sent[0].json["params"]["_meta"]["traceparent"] == header
    assert len(telemetry.points()["mcp.client.operation.duration"]) == 3
    (failed,) = telemetry.named("tools/call fail")
    assert (failed["attributes"]["error.type"], failed["failed"]) == ("tool_error", True)


def test_a_job_is_within_the_span_that_started_it_in_whatever_process(telemetry, tmp_path):
    path = str(tmp_path / "jobs.db")
    workflow = Workflow("w", [Agent("a", client=saying("x"))])
    with Runtime(event_stream=EventStream(SqliteStore(path))) as web:
        with telemetry.instrument(web.event_stream):
            with telemetry.tracer.start_as_current_span("order") as order:
                name = Jobs(web, [workflow]).start("w", "go")
    with Runtime(event_stream=EventStream(SqliteStore(path))) as worker:
        with telemetry.instrument(worker.event_stream):
            with telemetry.tracer.start_as_current_span("task") as task:
                assert Jobs(worker, [workflow]).run(name).status == "completed"
    (run,) = telemetry.named("invoke_workflow w")
    assert run["parent"] == f"{order.get_span_context().span_id:016x}"
    assert run["links"] == [f"{task.get_span_context().span_id:016x}"]


# --- what it costs whom ---------------------------------------------------------------------


class Stuck(SpanProcessor):
    """A processor whose exporter hangs."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.stuck = threading.Event()

    def on_end(self, span: Any) -> None:
        self.stuck.set()
        self.go.wait(20)


class Raising(SpanProcessor):
    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise ValueError("on_start")

    def on_end(self, span: Any) -> None:
        raise ValueError("on_end")


def test_a_stuck_exporter_holds_up_no_run(telemetry):
    stuck = Stuck()
    telemetry.tracers.add_span_processor(stuck)
    with Runtime() as runtime, telemetry.instrument(runtime.event_stream):
        for _ in range(3):
            run = runtime.run(Agent("a", client=saying("x", "y")), "go", timeout=5)
            assert run.output == "xy"
        assert stuck.stuck.wait(5)
        stuck.go.set()


def test_a_processor_that_raises_fails_no_run(caplog):
    with Telemetry() as telemetry:
        telemetry.tracers.add_span_processor(Raising())
        with Runtime() as runtime, telemetry.instrument(runtime.event_stream):
            assert runtime.run(Agent("a", client=saying("x")), "go").output == "x"
    assert "is not made" in caplog.text


def test_what_is_open_is_bounded_and_what_was_missed_is_ended(telemetry, monkeypatch):
    monkeypatch.setattr(spans, "_MOST", 10)
    table = spans.Spans(telemetry.tracer, telemetry.meters.get_meter("tests"))
    for number in range(25):
        table.begin(("step", "r", str(number), ""), "s", number, {})
    assert len(telemetry.named("step s")) == 15
    twice = ("step", "r", "24", "")
    table.begin(twice, "again", 29, {})
    table.end(twice, 29)  # the first attempt's end, of which the events tell later
    assert telemetry.named("step again") == []
    table.end_all(30)
    assert len(telemetry.named("step s")) == 25
    assert len(telemetry.named("step again")) == 1
    assert table.oldest(("step", "r", "24", "")) is None
    assert table.end(("step", "r", "24", ""), 31) is None


def test_ends_that_the_store_has_let_go_do_not_leave_spans_open(telemetry, monkeypatch):
    monkeypatch.setattr(instrumentation, "_MAX_QUEUE", 2)
    stuck = Stuck()
    telemetry.tracers.add_span_processor(stuck)
    agent = Agent("a", client=saying("x"))
    with Runtime(event_stream=EventStream(MemoryStore(capacity=20))) as runtime:
        made = telemetry.instrument(runtime.event_stream)
        for _ in range(20):
            runtime.run(agent, "go")
        stuck.go.set()
        runtime.event_stream.close()
        assert made._subscription.missed
        assert made._spans.runs() == []
    assert len(telemetry.named("invoke_workflow a")) == 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork with threads, from 3.12 on
def test_a_forked_child_has_no_open_spans_and_makes_its_own(telemetry, client, server):
    held = threading.Event()
    with Runtime() as runtime, telemetry.instrument(runtime.event_stream) as made:
        handle = runtime.submit(Workflow("held", [lambda x: held.wait(20)]), "x")
        wait_until(lambda: made._spans.runs())
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 2 if made._spans.runs() else 3
                with Runtime() as mine, Telemetry() as own, own.instrument(mine.event_stream):
                    mine.run(Agent("child", client=saying("x")), "go")
                code = 0 if code == 3 and own.named("invoke_agent child") else code
            finally:
                os._exit(code)
        held.set()
        handle.result(10)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert telemetry.named("invoke_workflow held")


def test_no_chunk_comes_to_it(telemetry, monkeypatch):
    seen: List[str] = []
    for name in ("_take", "note"):
        method = getattr(otel.Instrumentation, name)

        def counted(self: Any, *args: Any, name: str = name, method: Any = method) -> Any:
            seen.append(name)
            return method(self, *args)

        monkeypatch.setattr(otel.Instrumentation, name, counted)
    counts = []
    for words in (1, 500):
        seen.clear()
        runs(telemetry, Agent("a", client=saying(*["word "] * words)))
        counts.append((seen.count("_take"), seen.count("note")))
    assert counts[0] == counts[1]
    assert counts[0] == (4, 8)


def test_who_traces_nothing_imports_nothing():
    code = (
        "import sys\n"
        "from agentstream import Agent, Runtime\n"
        "from agentstream.testing import ScriptedClient\n"
        "with Runtime() as runtime:\n"
        "    runtime.run(Agent('a', client=ScriptedClient(['x'])), 'go')\n"
        "assert not [name for name in sys.modules if 'opentelemetry' in name or 'otel' in name]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_it_is_ended_by_close_and_made_once(telemetry):
    with Runtime() as runtime:
        stream = runtime.event_stream
        first = telemetry.instrument(stream)
        with pytest.raises(ConfigError, match="already"):
            telemetry.instrument(stream)
        held = Gate()
        runtime.run(Agent("a", client=saying("x")), "go")
        first.close()
        first.close()
        runtime.run(Agent("b", client=saying("x")), "go")
        held.open()
        assert {"invoke_agent a"} <= {span["name"] for span in telemetry.spans()}
        assert not telemetry.named("invoke_agent b")
        with telemetry.instrument(stream):
            runtime.run(Agent("c", client=saying("x")), "go")
        assert telemetry.named("invoke_agent c")
    for wrong in ({"event_stream": 1}, {"event_stream": stream, "propagate": 1}):
        with pytest.raises(ConfigError):
            otel.instrument(**wrong)


def test_runs_under_way_end_with_it(telemetry, server, client):
    gate = Gate()
    server.reply(*Reply.text("a").actions[:1], gate)
    with Runtime() as runtime:
        made = telemetry.instrument(runtime.event_stream)
        handle = runtime.submit(Agent("late", client=client), "x")
        server.wait_requests(1)
        made.close()
        assert telemetry.named("invoke_workflow late")
        handle.cancel()
        gate.open()
