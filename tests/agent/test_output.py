"""Agents whose answers have types: tools first, then the value; a wrong one goes back."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, List

import pytest

from agentstream import (
    Agent,
    ChatMessage,
    ConfigError,
    Conversation,
    EventStream,
    LimitExceeded,
    LlamaClient,
    Output,
    OutputInvalid,
    ToolCall,
    tool,
)
from agentstream.testing import ScriptedClient, ScriptedServer, ollama_chunks
from tests.kit.support import NO_RETRIES, client_of
from tests.kit.typed import PROTOCOLS, play, words_of


@dataclasses.dataclass
class Weather:
    city: str
    degrees: int


@tool
def look(city: str) -> str:
    """The weather of a city."""
    return f"It is 21 degrees in {city}."


GOOD = '{"city": "Oslo", "degrees": 21}'
CALL = ToolCall("c1", "look", '{"city": "Oslo"}')


def agent(*replies: Any, **settings: Any) -> Agent:
    return Agent("w", client=ScriptedClient(*replies), **{"output": Weather, **settings})


def messages_of(made: Agent, number: int) -> List[ChatMessage]:
    client: Any = made.client
    return list(client.requests[number].messages)


def test_a_run_gives_its_value_and_tells_of_it():
    stream = EventStream()
    made = agent(GOOD)
    output = made.execute_with_events("Oslo?", stream, workflow_id="w1")
    assert output.value == Weather("Oslo", 21)
    assert output.response == GOOD and output.chat_response.value == output.value
    events = list(stream.store.read(limit=100))
    (told,) = [event for event in events if event.type == "agent_output"]
    assert dict(told.data) == {"agent": "w", "step": "", "value": json.loads(GOOD)}
    assert [event.type for event in events][-2:] == ["agent_output", "agent_completed"]


def test_it_streams_and_the_last_is_the_value():
    *parts, last = agent(list(GOOD)).stream("Oslo?").values()
    assert last == Weather("Oslo", 21)
    assert parts[0] == {"city": ""} and parts[-1] == {"city": "Oslo", "degrees": 21}
    assert "".join(agent(list(GOOD)).stream("Oslo?")) == GOOD
    with pytest.raises(ConfigError, match="output="):
        agent("hi", output=None).stream("Oslo?").values()


def test_tools_come_first():
    made = agent([CALL], list(GOOD), tools=[look], tool_choice="required")
    stream = made.stream("Oslo?")
    assert list(stream.values())[-1] == Weather("Oslo", 21)
    assert stream.output.tool_calls_count == 1
    client: Any = made.client
    assert [request.tool_choice for request in client.requests] == ["required", None]
    assert all(request.output.name == "Weather" for request in client.requests)


def test_a_wrong_answer_goes_back_with_its_problems_and_no_tool_is_wanted():
    stream = EventStream()
    made = agent([CALL], '{"city": "Oslo"}', GOOD, tools=[look])
    output = made.execute_with_events("Oslo?", stream, workflow_id="w1")
    assert output.value.degrees == 21
    wrong, told = messages_of(made, 2)[-2:]
    assert wrong.content == '{"city": "Oslo"}' and "degrees is missing" in told.content
    client: Any = made.client
    assert client.requests[2].tool_choice == "none"
    (event,) = [
        one for one in list(stream.store.read(limit=100)) if one.type == "agent_output_invalid"
    ]
    problem = {"path": ("degrees",), "text": "is missing"}
    assert dict(event.data)["problems"] == (problem,) and event.data["will_retry"] is True
    assert output.usage.completion_tokens == 6


def test_the_last_wrong_answer_is_an_error_with_all_that_came():
    made = agent('{"city": 5}', "Oslo has 21.", '{"city": 5}', output=Output(Weather, retries=2))
    stream = EventStream()
    with pytest.raises(OutputInvalid, match="city must be a string, not 5") as caught:
        made.execute_with_events("Oslo?", stream, workflow_id="w1")
    error = caught.value
    assert error.value == {"city": 5} and error.partial.content == '{"city": 5}'
    assert [problem.path for problem in error.problems] == [("degrees",), ("city",)]
    assert "JSON schema" in messages_of(made, 2)[-1].content  # there was none
    assert len(messages_of(made, 2)) == 3  # the last wrong answer only
    kinds = [event.type for event in list(stream.store.read(limit=100))]
    assert kinds.count("agent_output_invalid") == 3 and kinds[-1] == "agent_failed"


def test_a_conversation_remembers_the_right_answer_only():
    made = agent("twenty-one", GOOD, GOOD, system_prompt="Be brief.")
    conversation = Conversation()
    made.execute("Oslo?", conversation=conversation)
    made.execute("Again?", conversation=conversation)
    assert [message.content for message in messages_of(made, 2)] == [
        "Be brief.",
        "Oslo?",
        GOOD,
        "Again?",
    ]
    assert agent("", GOOD).execute("Oslo?").value  # nothing said: nothing to be sent back


def test_rounds_are_of_tools_and_corrections_come_on_top():
    limits = {"tools": [look], "max_rounds": 1}
    with pytest.warns(DeprecationWarning), pytest.raises(LimitExceeded):
        agent([CALL], GOOD, **limits).execute("Oslo?")
    with pytest.warns(DeprecationWarning):
        assert agent("so", GOOD, **limits).execute("Oslo?").value == Weather("Oslo", 21)


def test_two_words_for_one_thing_are_refused():
    with pytest.raises(ConfigError, match="agent 'w': output") as caught:
        agent(GOOD, response_format={"type": "json_object"})
    assert caught.value.setting == "output"
    with pytest.raises(ConfigError, match="agent 'w': output"):
        agent(GOOD, output=complex)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_tools_and_a_type_by_every_protocol(server: ScriptedServer, protocol: Any) -> None:
    client = protocol.client(server)
    if isinstance(client, LlamaClient):
        props = {"chat_template_caps": {"supports_tools": True}}
        server.reply_json(props, path="/props")
    kind = "application/x-ndjson" if protocol.name == "ollama" else "text/event-stream"
    if protocol.name == "ollama":
        calling = ollama_chunks(tool_calls=[("look", {"city": "Oslo"})])
    elif protocol.call is None:
        calling = PROTOCOLS[0].call(("look", {"city": "Oslo"}))  # type: ignore[misc]
    else:
        calling = protocol.call(("look", {"city": "Oslo"}))
    server.reply(*calling, path=protocol.path, content_type=kind)
    play(server, protocol, "It is 21 degrees in Oslo.")
    play(server, protocol, GOOD)
    made = Agent("w", client=client, tools=[look], output=Output(Weather, retries=0))
    if client.schema_with_tools:
        with pytest.raises(OutputInvalid):
            made.execute("Oslo?")
        bodies = [request.json for request in server.requests]
        assert all(protocol.schema(body) and body["tools"] for body in bodies)
        return
    # No schema beside tools there: words first, then the answer once more, held to the schema.
    assert made.execute("Oslo?").value == Weather("Oslo", 21)
    bodies = [request.json for request in server.requests if request.path == protocol.path]
    assert [protocol.schema(body) is not None for body in bodies] == [False, False, True]
    assert [bool(body.get("tools")) for body in bodies] == [True, True, False]
    assert "JSON schema" in words_of(bodies[0])


def test_a_run_that_is_stopped_is_just_stopped(server: ScriptedServer) -> None:
    server.reply_text('{"city": "Os', finish_reason=None, done=False)
    made = Agent("w", client=client_of(server, retries=NO_RETRIES), output=Weather)
    with pytest.raises(Exception) as caught:
        made.execute("Oslo?")
    assert not isinstance(caught.value, OutputInvalid)
