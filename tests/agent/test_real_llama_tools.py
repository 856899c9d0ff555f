"""T01 on the real llama.cpp: answers that are cut within a call, and what the server then takes."""

from __future__ import annotations

import json
from typing import Any, List

import pytest

from agentstream import Agent, Conversation, LimitExceeded, LlamaClient, ToolLimits, tool
from agentstream.local import LocalServer

pytestmark = pytest.mark.real_llama

QUESTIONS = [
    "What is the weather in Paris?",
    "Write a file notes.txt that holds a long poem about the sea.",
    "Use a tool to find the weather in Rome, then in Oslo.",
    "Please call write_file with path a.txt and a text of five lines.",
]


@tool
def get_weather(city: str, unit: str = "C") -> str:
    """The weather of a city."""
    return f"It is 20 {unit} and sunny in {city}."


@tool
def write_file(path: str, text: str) -> str:
    """Write a text to a file."""
    return f"{len(text)} characters written to {path}"


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("max_tokens", [16, 20, 24])
def test_t01_an_agent_whose_answers_are_cut_ends_in_an_answer_or_a_limit(
    llama_tool_server: LocalServer, question: str, max_tokens: int
) -> None:
    conversation = Conversation()
    with LlamaClient(llama_tool_server.url) as client:
        agent = Agent(
            "worker",
            client=client,
            tools=[get_weather, write_file],
            tool_choice="required",  # a small model would rather talk
            max_tokens=max_tokens,
            temperature=0.0,
            tool_limits=ToolLimits(max_rounds=3),
        )
        try:
            output = agent.execute(question, conversation=conversation)
        except LimitExceeded as error:
            assert error.limit in ("max_rounds", "repeat_limit")
        else:
            assert isinstance(output.response, str)
            agent.execute("Go on.", conversation=conversation)


@pytest.mark.parametrize("arguments", ['{"city": "Par', "", "Paris", "[1]", '{"city": "a\nb"}'])
def test_t01_what_is_sent_back_is_taken_by_the_real_server(
    llama_tool_server: LocalServer, arguments: str
) -> None:
    from agentstream.agent.history import as_message
    from agentstream.llm.messages import ChatMessage, ChatRequest
    from agentstream.results import ChatResponse, ToolCall

    calls = [ToolCall("c1", "get weather!", arguments)]
    messages: List[Any] = [
        ChatMessage.user("What is the weather?"),
        as_message(ChatResponse(tool_calls=tuple(calls)), calls),
        ChatMessage.tool("c1", "Error: the arguments cannot be read"),
    ]
    request = ChatRequest(messages, max_tokens=8, tools=[get_weather.to_openai()])
    with LlamaClient(llama_tool_server.url) as client:
        assert client.chat(request).finish_reason is not None
    json.dumps([message.to_dict() for message in messages])
