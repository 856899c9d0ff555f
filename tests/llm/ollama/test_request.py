"""What is sent to Ollama: messages, pictures, tools, options; and what it cannot be asked."""

from __future__ import annotations

import json
from typing import Any, Dict

import pytest

from agentstream import ChatMessage, ChatRequest, ConfigError, OllamaClient, ToolCall
from agentstream.llm.history import UNREADABLE
from agentstream.testing import ollama_chunks
from tests.kit.support import ask
from tests.llm.ollama.kit import ollama_of, play

PIXEL = "iVBORw0KGgo="
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def sent(server: Any, prompt: Any = "hi", **settings: Any) -> Dict[str, Any]:
    play(server, *ollama_chunks("ok"))
    with ollama_of(server, **settings) as client:
        assert ask(client, prompt).error is None
    body: Dict[str, Any] = server.requests[-1].json
    return body


def asking(**fields: Any) -> ChatRequest:
    return ChatRequest([ChatMessage.user("hi")], **fields)


def test_a_text(server):
    body = sent(server)
    assert body == {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    assert server.requests[0].path == "/api/chat"


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", "/api", "/api/"])
def test_the_base_url_may_end_in_a_path_of_ollamas(server, end):
    play(server, *ollama_chunks("ok"))
    with OllamaClient("m", server.url + end) as client:
        assert client.chat("hi").content == "ok"
    assert server.requests[0].path == "/api/chat"


def test_a_client_and_a_request_say_all_they_can(server):
    request = asking(
        model="n",
        temperature=0.0,
        top_p=0.5,
        seed=0,
        stop="END",
        max_tokens=9,
        tools=[TOOL],
        tool_choice="auto",
        response_format={"type": "json_object"},
        extra={"options": {"top_k": 3, "min_p": None}, "truncate": False},
    )
    body = sent(
        server,
        request,
        num_ctx=8192,
        think="low",
        keep_alive="10m",
        options={"top_k": 1, "mirostat": 2, "temperature": 1},
        body={"shift": False},
    )
    assert body == {
        "model": "n",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "tools": [TOOL],
        "format": "json",
        "think": "low",
        "keep_alive": "10m",
        "truncate": False,
        "shift": False,
        "options": {
            "num_ctx": 8192,
            "mirostat": 2,
            "temperature": 0.0,
            "top_p": 0.5,
            "top_k": 3,
            "seed": 0,
            "num_predict": 9,
            "stop": ["END"],
        },
    }


@pytest.mark.parametrize(("given", "told"), [(0, 0), (-1, -1), (2.5, 2.5), ("-1s", "-1s")])
def test_keep_alive(server, given, told):
    assert sent(server, keep_alive=given)["keep_alive"] == told


@pytest.mark.parametrize("think", [True, False, "high"])
def test_think(server, think):
    assert sent(server, think=think)["think"] is think or think == "high"


@pytest.mark.parametrize(
    ("effort", "told"),
    [("none", False), ("minimal", "low"), ("medium", "medium"), ("xhigh", "high"), ("odd", "odd")],
)
def test_reasoning_effort_wins(server, effort, told):
    assert sent(server, asking(reasoning_effort=effort), think=True)["think"] == told


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, "json"),
        ({"type": "json_object", "schema": SCHEMA}, SCHEMA),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}, SCHEMA),
    ],
)
def test_formats(server, wanted, told):
    assert sent(server, asking(response_format=wanted)).get("format") == told


def test_messages_calls_and_results(server):
    calls = [ToolCall("c1", "f", '{"x": 1}'), ToolCall("c2", "g", "")]
    body = sent(
        server,
        [
            ChatMessage("developer", "D"),
            {"role": "user", "content": "U", "images": [PIXEL]},
            ChatMessage.assistant(None, calls),
            ChatMessage.tool("c2", "second"),
            ChatMessage.tool("c1", "first"),
            {"role": "tool", "tool_call_id": "unheard-of", "content": "third", "name": "h"},
        ],
    )
    assert body["messages"] == [
        {"role": "system", "content": "D"},
        {"role": "user", "content": "U", "images": [PIXEL]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"function": {"name": "f", "arguments": {"x": 1}}},
                {"function": {"name": "g", "arguments": {}}},
            ],
        },
        {"role": "tool", "content": "second", "tool_name": "g"},
        {"role": "tool", "content": "first", "tool_name": "f"},
        {"role": "tool", "content": "third", "tool_name": "h"},
    ]


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;base64,{PIXEL}",
        f"DATA:image/png;name=a.png;base64,{PIXEL}",
        "data:image/png;base64,iVBORw0K\nGgo%3D",
        "data:image/png,%89PNG%0D%0A%1A%0A",
    ],
)
@pytest.mark.parametrize("as_text", [False, True])
def test_pictures(server, url, as_text):
    image = {"type": "image_url", "image_url": url if as_text else {"url": url}}
    parts = [{"type": "text", "text": "What"}, image, {"type": "text", "text": "is it?"}]
    (message,) = sent(server, [ChatMessage.user(parts)])["messages"]
    assert message == {"role": "user", "content": "What\nis it?", "images": [PIXEL]}


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ({"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}, "fetches no pictures"),
        ({"type": "image_url", "image_url": {"url": PIXEL}}, "fetches no pictures"),
        ({"type": "image_url"}, "fetches no pictures"),
        ({"type": "image_url", "image_url": "data:image/png;base64,?"}, "no base64"),
        ({"type": "image_url", "image_url": "data:application/pdf;base64,JVBERi0="}, "no files"),
        ({"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE"}}, "no files"),
        ({"type": "input_audio", "input_audio": {}}, "input_audio"),
        (7, "int"),
    ],
)
def test_parts_that_ollama_does_not_take(server, part, why):
    with ollama_of(server) as client, pytest.raises(ConfigError, match=why):
        client.chat([ChatMessage.user([part])])
    assert server.requests == []


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"function": {"name": "f"}}}, "tool_choice"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"extra": {"options": [1]}}, "options"),
    ],
)
def test_what_cannot_be_asked_is_named(server, fields, name):
    with ollama_of(server) as client, pytest.raises(ConfigError, match=name) as caught:
        client.chat(asking(**fields))
    assert caught.value.setting == name
    assert server.requests == []


@pytest.mark.parametrize("arguments", ["[1]", "{", '"x"', [1]])
def test_arguments_that_are_no_object_are_refused_unless_they_were_mended(server, arguments):
    call = {"id": "c", "function": {"name": "f", "arguments": arguments}}
    messages = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        ChatMessage.tool("c", "seen"),
    ]
    with ollama_of(server) as client:
        with pytest.raises(ConfigError, match="a call of f: arguments"):
            list(client.stream_deltas(ChatRequest(messages)))
        play(server, *ollama_chunks("Yes"))
        client.chat(messages)
    told = server.requests[0].json["messages"][0]["tool_calls"][0]["function"]["arguments"]
    text = arguments if isinstance(arguments, str) else "[1]"
    assert told == {UNREADABLE: text}


def test_no_tools_where_none_are_to_be_called(server):
    assert "tools" not in sent(server, asking(tools=[TOOL], tool_choice="none"))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"model": ""}, "model"),
        ({"model": 3}, "model"),
        ({"num_ctx": 0}, "num_ctx"),
        ({"num_ctx": "8k"}, "num_ctx"),
        ({"think": 1}, "think"),
        ({"think": ""}, "think"),
        ({"keep_alive": True}, "keep_alive"),
        ({"keep_alive": float("nan")}, "keep_alive"),
        ({"options": [1]}, "options"),
        ({"body": {"options": 1}}, "options"),
    ],
)
def test_settings_that_cannot_be_used(settings, name):
    with pytest.raises(ConfigError) as caught:
        with OllamaClient(**{"model": "m", **settings}) as client:
            client.chat("hi")
    assert caught.value.setting == name


def test_surrogates_can_be_sent(server):
    assert sent(server, "\ud83d")["messages"][0]["content"] == "\ud83d"
    assert b"\\ud83d" in json.dumps("\ud83d").encode()
