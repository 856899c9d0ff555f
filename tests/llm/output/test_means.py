"""By which means a typed answer is asked for: chosen by rule, settable, remembered when refused."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Tuple

import pytest

from agentstream import BadRequest, ChatMessage, ChatRequest, ConfigError, Output
from agentstream.llm.output.means import WIRES, means_of
from agentstream.testing import Reply, ScriptedServer
from tests.kit.typed import PROTOCOLS, Protocol, play, words_of


@dataclasses.dataclass
class Item:
    name: str
    price: float


TEXT = '{"name": "nut", "price": 2}'
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
BY_NAME: Dict[str, Protocol] = {protocol.name: protocol for protocol in PROTOCOLS}
#: What servers say that take no schema.
REFUSALS: List[Tuple[str, int, str]] = [
    ("chat", 400, "Invalid parameter: 'response_format' of type 'json_schema' is not supported"),
    ("chat", 400, "This response_format type is unavailable now"),
    ("chat", 422, "extra fields not permitted: response_format"),
    ("chat", 404, "No endpoints found that support the requested parameters: structured_outputs"),
    ("responses", 400, "Unsupported parameter: 'text.format' is not supported with this model"),
    ("messages", 400, "output_config: Extra inputs are not permitted"),
    ("ollama", 400, 'invalid format: expected "json" or a JSON schema'),
    ("llama.cpp", 400, "Failed to parse grammar"),
]


def refuse(server: ScriptedServer, protocol: Protocol, status: int, message: str) -> None:
    body = {"error": {"type": "invalid_request_error", "message": message}}
    server.reply_json(body, status=status, path=protocol.path)


@pytest.mark.parametrize(("name", "status", "message"), REFUSALS)
def test_a_refused_schema_is_asked_for_by_other_means_and_remembered(
    server: ScriptedServer, name: str, status: int, message: str
) -> None:
    protocol = BY_NAME[name]
    client = protocol.client(server)
    refuse(server, protocol, status, message)
    if protocol.call is None:
        play(server, protocol, TEXT)
    else:
        server.reply(*protocol.call(("final_answer", TEXT)), path=protocol.path)
    *parts, value = client.chat_stream("What is it?", output=Item).values()
    assert value == Item("nut", 2.0) and (parts or protocol.call is None)
    first, second = (request.json for request in server.requests)
    assert protocol.schema(first) is not None
    assert protocol.schema(second) is None
    if protocol.call is None:
        assert "JSON schema" in words_of(second)
        play(server, protocol, TEXT)
    else:
        assert "final_answer" in words_of(second["tool_choice"])
        server.reply(*protocol.call(("final_answer", TEXT)), path=protocol.path)
    assert client.chat("And again?", output=Item).value == Item("nut", 2.0)
    assert len(server.requests) == 3  # it knows now
    response = client_text(client, server, protocol)
    assert response == "free"


def client_text(client: Any, server: ScriptedServer, protocol: Protocol) -> str:
    """What the client says without a type: nothing of all this concerns that."""
    play(server, protocol, "free")
    text: str = client.chat("hi").content
    assert "final_answer" not in words_of(server.requests[-1].json)
    return text


def test_a_refused_tool_is_asked_for_in_words(server: ScriptedServer) -> None:
    protocol = BY_NAME["chat"]
    client = protocol.client(server)
    refuse(server, protocol, 400, "response_format is not supported")
    refuse(server, protocol, 400, "tools are not supported by this model")
    play(server, protocol, f"Here: ```json\n{TEXT}\n```")
    assert client.chat("What is it?", output=Item).value == Item("nut", 2.0)
    last = server.requests[-1].json
    assert "tools" not in last and "response_format" not in last
    assert "JSON schema" in last["messages"][0]["content"]


def test_one_schema_that_is_refused_is_no_refusal_of_schemas(server: ScriptedServer) -> None:
    protocol = BY_NAME["chat"]
    client = protocol.client(server)
    refuse(server, protocol, 400, "Invalid schema for response_format 'Item': too complex")
    server.reply(*protocol.call(("final_answer", TEXT)), path=protocol.path)
    assert client.chat("What is it?", output=Item).value == Item("nut", 2.0)
    play(server, protocol, '{"value": 3}')
    assert client.chat("How many?", output=int).value == 3
    assert protocol.schema(server.requests[-1].json) is not None


def test_what_is_refused_for_another_reason_is_an_error_and_not_remembered(
    server: ScriptedServer,
) -> None:
    protocol = BY_NAME["chat"]
    client = protocol.client(server)
    refuse(server, protocol, 400, "the prompt is too long")
    with pytest.raises(BadRequest, match="too long"):
        client.chat("What is it?", output=Item)
    for _ in range(3):  # the schema's refusal may have been about something else
        refuse(server, protocol, 400, "the schema of this function's format: quota")
    with pytest.raises(BadRequest):
        client.chat("What is it?", output=Item)
    play(server, protocol, TEXT)
    assert client.chat("What is it?", output=Item).value == Item("nut", 2.0)
    assert protocol.schema(server.requests[-1].json) is not None


def test_set_means_are_used_and_no_others(server: ScriptedServer) -> None:
    protocol = BY_NAME["chat"]
    client = protocol.client(server)
    server.reply(*protocol.call(("final_answer", TEXT)), path=protocol.path)
    assert client.chat("?", output=Output(Item, means="tool")).value == Item("nut", 2.0)
    play(server, protocol, TEXT)
    assert client.chat("?", output=Output(Item, means="words")).value == Item("nut", 2.0)
    refuse(server, protocol, 400, "response_format is not supported")
    with pytest.raises(BadRequest):
        client.chat("?", output=Output(Item, means="schema"))
    for setting in ({"means": "magic"}, {"retries": -1}, {"name": ""}):
        with pytest.raises(ConfigError):
            Output(Item, **setting)


def test_a_type_without_a_schema_and_two_forms_are_refused_before_anything_is_sent(
    server: ScriptedServer,
) -> None:
    client = BY_NAME["chat"].client(server)
    for kind in (lambda: 1, complex, "Item", {"$ref": "#/nowhere"}, {"x": object()}):
        with pytest.raises(ConfigError, match="output"):
            client.chat("?", output=kind)
    with pytest.raises(ConfigError, match="response_format"):
        client.chat(ChatRequest([ChatMessage.user("?")], response_format={}), output=Item)
    with pytest.raises(ConfigError, match="output="):
        client.chat_stream("?").values()
    assert server.requests == []


# --- the request, pure ----------------------------------------------------------------------


def first(wire: str, output: Any = Item, **fields: Any) -> Any:
    request = ChatRequest([ChatMessage.user("?")], output=output, **fields)
    return means_of(request, WIRES[wire])[0]


def test_a_schema_and_tools_go_together_where_the_server_takes_both() -> None:
    for wire in ("openai", "messages"):
        means = first(wire, tools=[LOOK])
        assert (means.name, means.request.tools) == ("schema", [LOOK])
    means = first("grammar", tools=[LOOK])
    assert means.name == "words" and means.request.response_format is None
    assert "Use your tools" in means.request.messages[0].content
    means = first("grammar", tools=[LOOK], tool_choice="none")  # no call is wanted any more
    assert means.name == "schema" and not means.request.tools


def test_the_tool_that_is_the_answer_stands_beside_the_others() -> None:
    taken = {"type": "function", "function": {"name": "final_answer", "parameters": {}}}
    means = first("openai", Output(Item, means="tool"), tools=[LOOK, taken])
    assert means.tool == "final_answer_" and means.request.tool_choice == "required"
    assert [tool["function"]["name"] for tool in means.request.tools][-1] == "final_answer_"
    means = first("openai", Output(Item, means="tool"), tools=[LOOK], tool_choice="required")
    assert means.request.tools == [LOOK]  # the first call is another one
    means = first("openai", Output(Item, means="tool"), tools=[LOOK], tool_choice="none")
    assert len(means.request.tools) == 1


def test_words_join_the_instructions() -> None:
    output = Output(Item, means="words")
    request = ChatRequest([ChatMessage.system("Be brief."), ChatMessage.user("?")], output=output)
    messages = means_of(request, WIRES["openai"])[0].request.messages
    assert len(messages) == 2 and messages[0].content.startswith("Be brief.\n\nAnswer with JSON")
    request = ChatRequest([{"role": "developer", "content": "Be brief."}], output=output)
    assert means_of(request, WIRES["openai"])[0].request.messages[0]["role"] == "developer"


def test_a_server_that_answers_at_once(server: ScriptedServer) -> None:
    protocol = BY_NAME["chat"]
    message = {"role": "assistant", "content": TEXT}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    server.route(protocol.path, lambda request: Reply.json(body))
    assert protocol.client(server).chat("?", output=Item).value == Item("nut", 2.0)
