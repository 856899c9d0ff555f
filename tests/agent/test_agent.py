"""Agents without tools: execute, execute_with_events and stream, and every event of them."""

from __future__ import annotations

import json
import threading
from typing import Any, Iterator, List

import pytest

from agentstream import Agent, CancelToken, EventStream, EventType, Retries
from agentstream.errors import (
    AgentStreamError,
    BadRequest,
    Cancelled,
    ConfigError,
    LogError,
    StreamTruncated,
)
from agentstream.llm.messages import Delta
from agentstream.results import Usage
from agentstream.testing import Gate, ScriptedServer, sse, text_chunks
from tests.kit.support import FunctionClient, Task, client_of, saying, words_of


@pytest.fixture
def stream() -> Iterator[EventStream]:
    with EventStream() as stream:
        yield stream


def events(stream: EventStream, workflow_id: str = "w") -> List[Any]:
    found = stream.store.read(workflow_id=workflow_id, after=0, limit=10_000)
    assert [event.offset for event in found] == list(range(1, len(found) + 1))
    return found


def kinds(found: List[Any]) -> List[str]:
    return [event.type.value for event in found]


# --- execute --------------------------------------------------------------------------------


def test_execute_returns_what_the_model_said(server: ScriptedServer) -> None:
    server.reply_text("Hel", "lo ", "there")
    with client_of(server) as client:
        output = Agent("greeter", client=client).execute("Hi")
    assert output.response == "Hello there"
    assert output.agent_name == "greeter"
    assert output.execution_time_ms > 0
    assert output.usage == Usage(10, 3, 13, False)
    assert output.tool_calls_count == 0
    assert output.chat_response.finish_reason == "stop"
    assert output.chat_response.model == "scripted"


def test_the_system_prompt_and_the_settings_are_in_the_request(server: ScriptedServer) -> None:
    server.reply_text("ok")
    parts = [{"type": "text", "text": "look"}]
    with client_of(server) as client:
        Agent(
            "a",
            client=client,
            system_prompt="Be brief.",
            temperature=0.5,
            max_tokens=7,
            seed=1,
            top_p=0.9,
            stop=["END"],
            extra={"min_p": 0.1},
        ).execute(parts)
    body = json.loads(server.requests[0].body)
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": parts},
    ]
    sent = {name: body[name] for name in ("temperature", "max_tokens", "seed", "top_p", "min_p")}
    assert sent == {"temperature": 0.5, "max_tokens": 7, "seed": 1, "top_p": 0.9, "min_p": 0.1}
    assert body["stop"] == ["END"]
    assert "tools" not in body


def test_an_agent_keeps_nothing_between_runs_and_serves_many_threads() -> None:
    asked: List[int] = []

    def model(request: Any, cancel: CancelToken) -> Iterator[str]:
        asked.append(len(request.messages))
        yield from words_of(request)

    agent = Agent("echo", client=FunctionClient(model))
    tasks = [Task(lambda n=n: agent.execute(f"text {n}").response) for n in range(8)]
    assert [task.result() for task in tasks] == [f"text {n}" for n in range(8)]
    assert asked == [1] * 8


def test_execute_raises_the_typed_error_with_what_had_arrived(server: ScriptedServer) -> None:
    server.reply(*text_chunks("one ", "two", finish_reason=None, usage=False, done=False))
    with client_of(server) as client:
        with pytest.raises(StreamTruncated) as caught:
            Agent("a", client=client).execute("Hi")
    assert caught.value.partial is not None
    assert caught.value.partial.content == "one two"


def test_an_error_of_a_foreign_client_gets_its_partial() -> None:
    def model(request: Any, cancel: CancelToken) -> Iterator[str]:
        yield "half "
        raise AgentStreamError("it broke")

    with pytest.raises(AgentStreamError, match="it broke") as caught:
        Agent("a", client=FunctionClient(model)).execute("Hi")
    assert caught.value.partial is not None
    assert caught.value.partial.content == "half "


@pytest.mark.parametrize(
    "wrong",
    [{"name": ""}, {"name": 5}, {"client": "http://x"}, {"tool_choice": 5}],
)
def test_an_agent_refuses_what_cannot_work(wrong: Any) -> None:
    settings = {"name": "a", "client": saying("x"), **wrong}
    with pytest.raises(ConfigError):
        Agent(settings.pop("name"), **settings)


def test_an_agents_repr_shows_no_prompt() -> None:
    assert "secret" not in repr(Agent("a", client=saying("x"), system_prompt="secret"))


# --- stream ---------------------------------------------------------------------------------


def test_stream_gives_text_as_it_arrives_and_then_the_output(server: ScriptedServer) -> None:
    first, *rest = text_chunks("Hel", "lo")[1:]
    gate = Gate()
    server.reply(first, gate, *rest)
    with client_of(server) as client:
        with Agent("a", client=client).stream("Hi") as texts:
            assert next(texts) == "Hel"  # while the server still holds back the rest
            assert gate.wait_reached()
            with pytest.raises(RuntimeError, match="read to its end"):
                texts.output  # noqa: B018
            gate.open()
            assert list(texts) == ["lo"]
            assert list(texts) == []
            assert texts.output.response == "Hello"


def test_a_stream_left_early_frees_the_socket(server: ScriptedServer) -> None:
    gate = Gate()
    server.reply(*text_chunks("Hel", "lo")[:2], gate)
    with client_of(server) as client:
        for text in Agent("a", client=client).stream("Hi"):
            assert text == "Hel"
            break
        assert server.wait_client_gone()


def test_a_stream_is_cancelled_from_another_thread(server: ScriptedServer) -> None:
    server.reply(*text_chunks("Hel", "lo")[:2], Gate())
    with client_of(server) as client:
        texts = Agent("a", client=client).stream("Hi")
        assert next(texts) == "Hel"
        reader = Task(lambda: list(texts))
        texts.cancel("enough")
        error = reader.error()
        assert isinstance(error, Cancelled)
        assert "enough" in str(error)
        assert error.partial is not None
        assert error.partial.content == "Hel"


# --- execute_with_events --------------------------------------------------------------------


def test_the_events_of_a_run_and_their_data(server: ScriptedServer, stream: EventStream) -> None:
    server.reply_text("Hel", "lo")
    with client_of(server) as client:
        agent = Agent("greeter", client=client)
        output = agent.execute_with_events("Hi", stream, workflow_id="w")
    found = events(stream)
    assert kinds(found) == [
        "agent_processing",
        "agent_llm_request_started",
        "agent_llm_stream_chunk",
        "agent_llm_stream_chunk",
        "agent_llm_request_completed",
        "agent_completed",
    ]
    assert all(event.data["agent"] == "greeter" for event in found)
    assert all(event.data["step"] == "" for event in found)
    assert dict(found[1].data) == {
        "agent": "greeter",
        "step": "",
        "provider": "llama.cpp",
        "model": "default",
        "round": 1,
    }
    assert dict(found[2].data) == {"agent": "greeter", "step": "", "chunk": "Hel"}
    completed = found[4].data
    assert completed["finish_reason"] == "stop"
    assert completed["usage"] == output.usage.to_dict()
    assert completed["model"] == "scripted"
    assert completed["warnings"] == ()
    assert 0 < completed["first_token_s"] <= completed["duration_s"]
    last = found[5].data
    assert last["response"] == output.response == "Hello"
    assert last["execution_time_ms"] == output.execution_time_ms
    assert last["tool_calls_count"] == 0
    for event in found:
        json.loads(event.to_json())


def test_reasoning_has_events_of_its_own(server: ScriptedServer, stream: EventStream) -> None:
    thought = {"choices": [{"index": 0, "delta": {"reasoning_content": "Hmm."}}]}
    server.reply(sse(thought), *text_chunks("Four"))
    with client_of(server) as client:
        agent = Agent("a", client=client)
        output = agent.execute_with_events("2+2?", stream, workflow_id="w")
    chunks = [e for e in events(stream) if "chunk" in e.data]
    assert [(e.type, e.data["chunk"]) for e in chunks] == [
        (EventType.AGENT_LLM_REASONING_CHUNK, "Hmm."),
        (EventType.AGENT_LLM_STREAM_CHUNK, "Four"),
    ]
    assert output.response == "Four"
    assert output.chat_response.reasoning == "Hmm."


def test_a_retry_is_an_event(server: ScriptedServer, stream: EventStream) -> None:
    server.reply_json({"error": {"message": "overloaded"}}, status=503)
    server.reply_text("ok")
    with client_of(server, retries=Retries(1, backoff=0.01)) as client:
        Agent("a", client=client).execute_with_events("Hi", stream, workflow_id="w")
    retried = [e for e in events(stream) if e.type is EventType.AGENT_LLM_REQUEST_RETRIED]
    assert len(retried) == 1
    data = dict(retried[0].data)
    assert data.pop("delay_s") <= 0.01
    assert "overloaded" in data.pop("message")
    assert data == {
        "agent": "a",
        "step": "",
        "attempt": 1,
        "error": "ServerError",
        "resumed": False,
    }
    assert kinds(events(stream))[-1] == "agent_completed"


def test_a_failure_is_told_by_the_request_and_by_the_agent(
    server: ScriptedServer, stream: EventStream
) -> None:
    server.reply_json({"error": {"message": "no such model"}}, status=404)
    with client_of(server) as client:
        with pytest.raises(BadRequest):
            Agent("a", client=client).execute_with_events("Hi", stream, workflow_id="w")
    found = events(stream)
    assert kinds(found)[-2:] == ["agent_llm_request_failed", "agent_failed"]
    for event in found[-2:]:
        assert event.data["error"] == "BadRequest"
        assert "no such model" in event.data["message"]
        assert event.data["retryable"] is False
        assert event.data["outcome"] == "failed"


@pytest.mark.parametrize("error", [ValueError("of the client's own"), KeyboardInterrupt()])
def test_any_end_of_a_run_is_told(stream: EventStream, error: BaseException) -> None:
    def model(request: Any, cancel: CancelToken) -> Iterator[str]:
        yield "half"
        raise error

    with pytest.raises(type(error)):
        Agent("a", client=FunctionClient(model)).execute_with_events("", stream, workflow_id="w")
    assert kinds(events(stream))[-2:] == ["agent_llm_request_failed", "agent_failed"]
    assert events(stream)[-1].data["error"] == type(error).__name__


def test_oddities_of_a_stream_are_warnings(server: ScriptedServer, stream: EventStream) -> None:
    server.reply_text("cut", finish_reason="length")
    with client_of(server) as client:
        Agent("a", client=client).execute_with_events("Hi", stream, workflow_id="w")
    warnings = [e for e in events(stream) if e.type is EventType.SYSTEM_WARNING]
    assert [e.data["message"] for e in warnings] == ["the answer was cut: finish_reason length"]


def test_a_workflow_id_is_new_by_default_and_used_once(stream: EventStream) -> None:
    agent = Agent("a", client=saying("x"))
    agent.execute_with_events("", stream)
    agent.execute_with_events("", stream)
    ids = {event.workflow_id for event in stream.store.read(after=0)}
    assert len(ids) == 2
    with pytest.raises(LogError, match="choose another id"):
        agent.execute_with_events("", stream, workflow_id=ids.pop())


def test_a_log_that_fails_is_the_error_and_hides_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream = EventStream()

    def model(request: Any, cancel: CancelToken) -> Iterator[str]:
        yield "a"
        stream.close()
        raise StreamTruncated("the true reason")

    with pytest.raises(StreamTruncated, match="the true reason"):
        Agent("a", client=FunctionClient(model)).execute_with_events("", stream)
    assert "agent_failed of a is not in the log" in caplog.text


def test_events_come_while_the_model_speaks(stream: EventStream) -> None:
    heard = threading.Event()

    def model(request: Any, cancel: CancelToken) -> Iterator[Any]:
        yield "first"
        assert heard.wait(5)
        yield "second"
        yield Delta(finish_reason="stop")

    chunk = EventType.AGENT_LLM_STREAM_CHUNK
    with stream.subscribe(lambda event: heard.set(), types=[chunk]):
        output = Agent("a", client=FunctionClient(model)).execute_with_events("", stream)
    assert output.response == "firstsecond"
