"""Streams of typed answers: their text, their values, stopped and left alone."""

from __future__ import annotations

import dataclasses
from typing import Any, List

import pytest
from hypothesis import given, strategies as st

from agentstream import Cancelled, Output, StreamTruncated, ToolCall
from agentstream.testing import Cut, Hang, ScriptedClient, ScriptedServer, text_chunks
from tests.kit.profiles import SUITE
from tests.kit.schemas import cuts, is_part, pairs, written
from tests.kit.support import Task, client_of


@dataclasses.dataclass
class Item:
    name: str
    price: float


BEGUN = text_chunks('{"name": "n', 'ut", "pr')[:3]
TEXT = '{"name": "nut", "price": 2}'


@SUITE
@given(pairs, st.lists(st.integers(0, 10_000), max_size=20))
def test_any_value_cut_anywhere_comes_out_equal(pair: Any, places: List[int]):
    schema, value = pair
    output = Output(schema)
    text = written({"value": value} if output.wrapped else value, True, False)
    client = ScriptedClient(cuts(text, places))
    *parts, last = client.chat_stream("?", output=output).values()
    assert last == value
    assert all(is_part(part, value) for part in parts)
    assert len(parts) <= len(cuts(text, places))


def test_text_and_values_are_of_one_stream(server: ScriptedServer):
    client = client_of(server)
    server.reply_text('{"name": 5, ', '"price": 2}')
    server.reply_text(TEXT)
    stream = client.chat_stream("?", output=Item)
    assert stream.response.value is None
    assert list(stream) == ['{"name": 5, ', '"price": 2}', TEXT]
    assert stream.response.value == Item("nut", 2.0)
    assert stream.response.content == TEXT
    assert list(stream.values()) == [Item("nut", 2.0)]  # nothing is left to grow
    server.reply_text('{"name": 5, ', '"price": 2}')
    server.reply_text(TEXT[:11], TEXT[11:])
    values = list(client.chat_stream("?", output=Item).values())
    assert values == [
        {"name": 5},
        {"name": 5, "price": 2},
        {"name": "n"},
        {"name": "nut", "price": 2},
        Item("nut", 2.0),
    ]


def test_a_stream_that_is_left_frees_its_socket(server: ScriptedServer):
    client = client_of(server)
    server.default(*BEGUN, Hang())
    for value in client.chat_stream("?", output=Item).values():
        assert value == {"name": "n"}
        break
    assert server.wait_client_gone()
    with client.chat_stream("?", output=Item) as stream:
        assert next(stream)
    assert server.wait_client_gone(count=2)


def test_a_stream_that_is_stopped_is_cancelled_and_nothing_else(server: ScriptedServer):
    client = client_of(server)
    server.default(*BEGUN, Hang())
    stream = client.chat_stream("?", output=Item)
    values = stream.values()
    assert next(values) == {"name": "n"}
    task = Task(lambda: list(values))
    stream.cancel("enough")
    error = task.error()
    assert isinstance(error, Cancelled) and error.partial.content.startswith('{"name": "n')


def test_a_stream_that_breaks_off_is_no_wrong_answer(server: ScriptedServer):
    server.reply(*BEGUN, Cut())
    with pytest.raises(StreamTruncated) as caught:
        client_of(server).chat("?", output=Item)
    assert caught.value.partial.content.startswith('{"name": "n')
    server.reply_text('{"name": 5, "price": 2}')
    server.reply(*BEGUN, Cut())  # the second answer: the first one's tokens count as well
    with pytest.raises(StreamTruncated) as caught:
        client_of(server).chat("?", output=Item)
    assert caught.value.partial.usage.prompt_tokens == 10


def test_calls_of_tools_are_the_callers_to_make():
    client = ScriptedClient([ToolCall("c", "look", "{}")], ["well"])
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    response = client.chat("?", tools=tools, output=Item)
    assert response.value is None and response.tool_calls[0].name == "look"
    client = ScriptedClient([ToolCall("c", "look", "{}")])
    assert list(client.chat_stream("?", tools=tools, output=Item).values()) == []
    client = ScriptedClient("well", TEXT)
    assert client.chat("?", tools=tools, output=Item).value == Item("nut", 2.0)
    assert client.requests[1].tool_choice == "none"
