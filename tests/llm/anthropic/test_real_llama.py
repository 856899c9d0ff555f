"""The real llama.cpp's /v1/messages (SmolLM2, embedded), as another server that speaks Messages."""

from __future__ import annotations

import json
import time
from typing import Any, Iterator

import pytest

from agentstream import Agent, CancelToken, tool
from agentstream.errors import BadRequest, Cancelled
from agentstream.llm.anthropic.client import AnthropicClient
from agentstream.llm.messages import ChatMessage, ChatRequest
from agentstream.local import LocalServer

pytestmark = pytest.mark.real_llama

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def ask(text: str, **settings: Any) -> ChatRequest:
    settings.setdefault("temperature", 0.0)
    settings.setdefault("max_tokens", 16)
    return ChatRequest([ChatMessage.system("Be brief."), ChatMessage.user(text)], **settings)


@pytest.fixture
def client(llama_server: LocalServer) -> Iterator[AnthropicClient]:
    with AnthropicClient("any", base_url=llama_server.url) as client:
        yield client


@pytest.fixture
def tool_client(llama_tool_server: LocalServer) -> Iterator[AnthropicClient]:
    with AnthropicClient("any", base_url=llama_tool_server.url) as client:
        yield client


def test_an_answer_streams_and_adds_up(client: AnthropicClient) -> None:
    with client.chat_stream(ask("Tell me a joke", max_tokens=24)) as stream:
        texts = list(stream)
    response = stream.response
    assert len(texts) > 5
    assert "".join(texts) == response.content
    assert response.finish_reason in ("stop", "length")
    assert response.model
    usage = response.usage
    assert not usage.estimated
    assert usage.prompt_tokens is not None
    assert usage.completion_tokens is not None
    assert usage.prompt_tokens > 5
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_max_tokens_cut_an_answer(client: AnthropicClient) -> None:
    response = client.chat(ask("Tell me a very long story.", max_tokens=8))
    assert response.finish_reason == "length"
    assert response.warnings == ("the answer was cut: stop_reason max_tokens",)


def test_a_whole_conversation_is_understood(client: AnthropicClient) -> None:
    messages = [
        ChatMessage.system("Be brief."),
        ChatMessage.user(
            [{"type": "text", "text": "Name a "}, {"type": "text", "text": "colour."}]
        ),
        ChatMessage.assistant("Red."),
        ChatMessage.user("Another one."),
    ]
    assert client.chat(ChatRequest(messages, max_tokens=6, temperature=0.0)).content


def test_a_call_streams_and_its_result_goes_back(tool_client: AnthropicClient) -> None:
    request = ask(
        "What is the weather in Paris?", tools=[TOOL], tool_choice="required", max_tokens=60
    )
    response = tool_client.chat(request)
    assert response.finish_reason == "tool_calls"
    (call,) = response.tool_calls
    assert call.name == "get_weather"
    assert isinstance(json.loads(call.arguments)["city"], str)
    messages = [
        *request.messages,
        ChatMessage.assistant(response.content, response.tool_calls, response.provider_state),
        ChatMessage.tool(call.id, "It rains."),
    ]
    after = tool_client.chat(request.replace(messages=messages, tool_choice="none", max_tokens=12))
    assert after.finish_reason in ("stop", "length")


def test_an_agent_calls_a_tool(tool_client: AnthropicClient) -> None:
    asked = []

    @tool
    def get_weather(city: str) -> str:
        """Tells the weather of a city.

        Args:
            city: its name
        """
        asked.append(city)
        return "It rains."

    settings: Any = {"temperature": 0.0, "max_tokens": 60}
    agent = Agent("a", client=tool_client, tools=[get_weather], tool_choice="required", **settings)
    agent.execute("What is the weather in Paris?")
    assert asked


def test_a_stop_ends_it(client: AnthropicClient) -> None:
    token = CancelToken()
    stream = client.stream_deltas(ask("Tell me a long story.", max_tokens=1500), cancel=token)
    began = None
    with pytest.raises(Cancelled):
        for delta in stream:
            if delta.content and began is None:
                began = time.monotonic()
                token.cancel("enough")
    assert began is not None
    assert time.monotonic() - began < 2


def test_a_request_that_it_refuses(client: AnthropicClient) -> None:
    with pytest.raises(BadRequest) as caught:
        client.chat(ask("word " * 9000))
    assert caught.value.status == 400
    assert not caught.value.retryable
