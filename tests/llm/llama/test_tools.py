"""Function calling on the real llama.cpp, by a JSON schema and by a chat template of ours.

Fixed prompts at temperature 0.  The model is tiny: that it calls the right
function with the right city is asserted, its prose only where it must be there.
"""

from __future__ import annotations

from typing import Any, List

import pytest

from agentstream import (
    Agent,
    Cancelled,
    CancelToken,
    ChatRequest,
    ConfigError,
    Conversation,
    EventStream,
    EventType,
    LlamaClient,
    tool,
)

pytestmark = pytest.mark.real_llama


class Recording(LlamaClient):
    """A LlamaClient that keeps the requests it is given."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.requests: List[Any] = []

    def stream_deltas(self, request: Any, *, cancel: Any = None) -> Any:
        self.requests.append(request)
        return super().stream_deltas(request, cancel=cancel)


def weather_agent(client: LlamaClient, **settings: Any) -> Any:
    called: List[str] = []

    @tool
    def get_weather(city: str) -> str:
        """Current weather of a city."""
        called.append(city)
        return "18 degrees and sunny"

    agent = Agent(
        "weather", client=client, tools=[get_weather], temperature=0, max_tokens=32, **settings
    )
    return agent, called


def check_run(client: Recording, city: str) -> None:
    """The model calls the function, its result is in the next request, the answer streams."""
    agent, called = weather_agent(client)
    with EventStream() as stream:
        output = agent.execute_with_events(
            f"What is the weather in {city}?", stream, workflow_id="run"
        )
        events = list(stream.store.read(workflow_id="run", limit=1000))
    assert called == [city]
    first, second = client.requests
    assert [m.role for m in second.messages] == ["user", "assistant", "tool"]
    assert second.messages[1].tool_calls[0].name == "get_weather"
    assert second.messages[2].content == "18 degrees and sunny"
    assert second.messages[2].tool_call_id == second.messages[1].tool_calls[0].id
    pieces = [e.data["chunk"] for e in events if e.type is EventType.AGENT_LLM_STREAM_CHUNK]
    assert len(pieces) >= 4
    assert "".join(pieces) == output.response
    assert city in output.response
    assert "sunny" in output.response
    assert '"answer"' not in output.response
    kinds = [e.type for e in events]
    place = kinds.index(EventType.TOOL_CALL_COMPLETED)
    assert EventType.AGENT_LLM_STREAM_CHUNK in kinds[place:]
    assert EventType.AGENT_LLM_STREAM_CHUNK not in kinds[:place]
    assert output.usage.completion_tokens
    assert output.usage.estimated is False


@pytest.mark.parametrize(("city", "mode"), [("Paris", "schema"), ("Oslo", "auto")])
def test_a_model_without_tools_calls_by_schema(llama_server, city, mode):
    with Recording(llama_server.url, tool_mode=mode) as client:
        check_run(client, city)


def test_a_model_without_tools_is_an_error_that_says_what_to_do(llama_server):
    with Recording(llama_server.url) as client:
        agent, called = weather_agent(client)
        with pytest.raises(ConfigError, match='knows no tools.*tool_mode="auto"'):
            agent.execute("What is the weather in Paris?")
        assert called == []
        assert client.chat("Say hello.").content  # without tools it works


def test_a_named_choice_by_schema_is_obeyed(llama_server):
    @tool
    def add(a: int, b: int) -> int:
        """Add two integers."""
        return a + b

    @tool
    def get_weather(city: str) -> str:
        """Current weather of a city."""
        raise AssertionError("the other one was named")

    with Recording(llama_server.url, tool_mode="schema") as client:
        agent = Agent(
            "adder",
            client=client,
            tools=[get_weather, add],
            tool_choice="add",
            temperature=0,
            max_tokens=48,
        )
        conversation = Conversation()
        output = agent.execute("What is 17 plus 25?", conversation=conversation)
    assert conversation.messages[2].content == "42"
    assert "42" in output.response


def test_a_stop_in_schema_mode_is_a_stop(llama_server):
    with Recording(llama_server.url, tool_mode="schema") as client:
        agent, _ = weather_agent(client, tool_choice="none")
        token = CancelToken()
        stream = agent.stream("Tell me a long story.", cancel=token)
        first = next(stream)
        token.cancel()
        with pytest.raises(Cancelled) as caught:
            list(stream)
    assert caught.value.partial is not None
    assert caught.value.partial.content.startswith(first)


@pytest.mark.parametrize("city", ["Oslo", "Tokyo"])
def test_a_template_that_knows_tools_makes_native_calls(llama_tool_server, city):
    with Recording(llama_tool_server.url) as client:
        check_run(client, city)
        deltas = [d for d in client.stream_deltas(client.requests[0]) if d.tool_calls]
        assert deltas, "the calls are the server's own, delta by delta"


def test_the_template_does_for_talk_without_tools(llama_tool_server):
    with Recording(llama_tool_server.url) as client:
        said = [{"role": "user", "content": "Say hello."}]
        response = client.chat(ChatRequest(said, temperature=0, max_tokens=16))
    assert "ello" in response.content
    assert response.tool_calls == ()
