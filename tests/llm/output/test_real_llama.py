"""The real llama.cpp fills typed answers by its grammar: ten of ten, streaming."""

from __future__ import annotations

import dataclasses
import enum
from typing import Annotated, Any, List, NamedTuple

import pytest

from agentstream import Agent, ChatMessage, ChatRequest, LlamaClient, Output, tool
from agentstream.local import LocalServer
from tests.kit.schemas import is_part

pytestmark = pytest.mark.real_llama

REVIEWS = (
    "Paris",
    "Oslo",
    "Tokyo",
    "Rome",
    "Berlin",
    "Lima",
    "London",
    "Cairo",
    "Bergen",
    "Madrid",
)


class AtMost(NamedTuple):
    max_length: int


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


#: Bounded, since a small model may never come to an end; and short, for the suite's sake.
Word = Annotated[str, AtMost(8)]


@dataclasses.dataclass
class Place:
    city: Word
    country: Word


@dataclasses.dataclass
class Report:
    place: Place
    mood: Mood
    words: Annotated[List[Word], AtMost(2)]
    stars: Annotated[int, "from 1 to 5"]


def plain(report: Report) -> Any:
    return {**dataclasses.asdict(report), "mood": report.mood.value}


def test_ten_of_ten(llama_server: LocalServer) -> None:
    with LlamaClient(llama_server.url) as client:
        for city in REVIEWS:
            request = ChatRequest(
                [ChatMessage.user(f"Fill in the report of this review: I loved {city}.")],
                temperature=0.0,
                max_tokens=200,
                output=Output(Report, retries=0),
            )
            *parts, report = client.chat_stream(request).values()
            assert isinstance(report, Report) and isinstance(report.mood, Mood)
            assert len(parts) > 8 and parts[-1] == plain(report)
            assert all(is_part(part, parts[-1]) for part in parts)


def test_choices_and_an_agent(llama_server: LocalServer) -> None:
    with LlamaClient(llama_server.url) as client:
        agent = Agent("judge", client=client, output=Mood, temperature=0.0, max_tokens=30)
        assert isinstance(agent.execute("Sunshine: is it good or bad?").value, Mood)
        kind = Annotated[List[Mood], AtMost(2)]
        moods = client.chat("Two moods, please.", output=Output(kind, retries=0)).value
        assert len(moods) <= 2 and all(isinstance(mood, Mood) for mood in moods)


@tool
def get_weather(city: str) -> str:
    """Current weather of a city."""
    return f"18 degrees and sunny in {city}"


@dataclasses.dataclass
class Weather:
    city: Word
    degrees: int


def test_tools_first_then_the_value(llama_tool_server: LocalServer) -> None:
    with LlamaClient(llama_tool_server.url) as client:
        agent = Agent(
            "weather",
            client=client,
            tools=[get_weather],
            output=Weather,
            temperature=0.0,
            max_tokens=40,
        )
        output = agent.execute("What is the weather in Paris?")
    assert output.tool_calls_count == 1
    assert output.value == Weather("Paris", 18)
