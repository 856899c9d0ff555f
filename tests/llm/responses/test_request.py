"""What the Responses API is sent for a request, and which requests go to it."""

from __future__ import annotations

import pytest

from agentstream import ChatMessage, ChatRequest, ConfigError, OpenAIClient, ToolCall
from agentstream.testing import responses_chunks, sse, text_chunks
from tests.kit.support import KEY, NO_RETRIES, ask

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
USER = ChatMessage.user("Hi")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def client_of(server, api="responses", **settings):
    settings = {"api_key": KEY, "retries": NO_RETRIES, **settings}
    return OpenAIClient("m", base_url=server.url + "/v1", api=api, **settings)


def body_of(request, *, api="responses", **settings):
    """What would be sent to OpenAI's own host."""
    with OpenAIClient("m", api_key=KEY, api=api, **settings) as client:
        dialect = client._dialect(request)
        return dialect.body()


def test_a_plain_text(server):
    server.reply(*responses_chunks("Hel", "lo"))
    with client_of(server) as client:
        result = ask(client, "Hi")
    request = server.requests[0]
    assert request.path == "/v1/responses"
    assert request.json == {
        "model": "m",
        "input": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "stream_options": {"include_obfuscation": False},
    }
    response = result.response
    assert (result.texts, response.finish_reason) == (["Hel", "lo"], "stop")
    assert (response.model, response.usage.prompt_tokens) == ("scripted", 10)
    assert response.warnings == ()


def test_a_whole_request():
    schema = {"type": "object"}
    request = ChatRequest(
        [
            ChatMessage.system("S"),
            {"role": "developer", "content": "D"},
            ChatMessage.user(
                [
                    {"type": "text", "text": "U"},
                    {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}},
                    {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:y"}},
                    {"type": "input_file", "file_id": "f"},
                ]
            ),
            ChatMessage.assistant("A", [ToolCall("c", "look", "")]),
            ChatMessage.tool("c", "R"),
            ChatMessage.assistant("B"),
            ChatMessage.system("late"),
            {"role": "user", "content": "V"},
        ],
        model="n",
        temperature=0.0,
        top_p=0.5,
        max_tokens=5,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "j", "schema": schema, "strict": True},
        },
        tools=[TOOL, {"type": "web_search"}],
        tool_choice={"type": "function", "function": {"name": "look"}},
        parallel_tool_calls=False,
        reasoning_effort="low",
        extra={"reasoning": {"summary": "auto"}, "text": {"verbosity": "low"}, "user": "u"},
    )
    assert body_of(request, body={"top_p": None}) == {
        "model": "n",
        "instructions": "S\n\nD",
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "U"},
                    {"type": "input_image", "image_url": "data:x", "detail": "low"},
                    {"type": "input_file", "filename": "a.pdf", "file_data": "data:y"},
                    {"type": "input_file", "file_id": "f"},
                ],
            },
            {"role": "assistant", "content": "A"},
            {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "R"},
            {"role": "assistant", "content": "B"},
            {"role": "system", "content": "late"},
            {"role": "user", "content": "V"},
        ],
        "stream": True,
        "store": False,
        "temperature": 0.0,
        "max_output_tokens": 5,
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {
            "format": {"type": "json_schema", "name": "j", "schema": schema, "strict": True},
            "verbosity": "low",
        },
        "tools": [
            {"type": "function", "name": "look", "parameters": schema, "strict": False},
            {"type": "web_search"},
        ],
        "tool_choice": {"type": "function", "name": "look"},
        "parallel_tool_calls": False,
        "user": "u",
        "include": ["reasoning.encrypted_content"],
        "stream_options": {"include_obfuscation": False},
    }


def test_store_is_kept_only_if_asked_for():
    request = ChatRequest([USER])
    assert body_of(request)["store"] is False
    assert body_of(request, store=True)["store"] is True
    assert body_of(request, api="chat", store=True)["store"] is True
    assert "store" not in body_of(request, api="chat")


def test_instructions_alone_are_the_input():
    body = body_of(ChatRequest([ChatMessage.system("S")]))
    assert "instructions" not in body
    assert body["input"] == [{"role": "system", "content": "S"}]


ONLY_CHAT = [
    ({"stop": "x"}, "stop"),
    ({"seed": 1}, "seed"),
    ({"extra": {"logit_bias": {"1": 1}}}, "logit_bias"),
    ({"extra": {"n": 2}}, "n"),
    ({"extra": {"presence_penalty": 1}}, "presence_penalty"),
]


@pytest.mark.parametrize(("fields", "name"), ONLY_CHAT)
def test_a_field_that_only_chat_completions_has(fields, name):
    request = ChatRequest([USER], max_tokens=3, **fields)
    sent = body_of(request, api="auto")
    assert "messages" in sent
    assert sent["max_completion_tokens"] == 3
    assert "max_tokens" not in sent
    for api, asked in (("responses", request), ("auto", request.replace(tools=[TOOL]))):
        with pytest.raises(ConfigError, match="Responses API") as caught:
            body_of(asked, api=api)
        assert caught.value.setting == name


def test_a_refusal_comes_before_anything_is_sent(server):
    with client_of(server) as client:
        with pytest.raises(ConfigError, match="seed .*Responses API"):
            client.chat(ChatRequest([USER], seed=1))
    assert server.requests == []


@pytest.mark.parametrize(
    "message",
    [
        ChatMessage.user([{"type": "odd"}]),
        {"role": "function", "content": "x", "name": "f"},
        ChatMessage("user", "x", name="Ann"),
    ],
)
def test_a_message_that_the_api_cannot_express(message):
    with pytest.raises(ConfigError, match="Responses API"):
        body_of(ChatRequest([message]))


@pytest.mark.parametrize(
    ("base_url", "key"),
    [
        (None, "input"),
        ("https://eu.api.openai.com/v1", "input"),
        ("https://api.openai.com.example/v1", "messages"),
        ("http://127.0.0.1:1", "messages"),
    ],
)
def test_auto_is_the_responses_api_at_openais_own_host(base_url, key):
    with OpenAIClient("m", api_key=KEY, base_url=base_url) as client:
        assert key in client._dialect(ChatRequest([USER], tools=[TOOL])).body()


def test_an_api_that_there_is_not():
    with pytest.raises(ConfigError, match="api must be one of auto, responses, chat"):
        OpenAIClient(api_key=KEY, api="completions")
    with pytest.raises(ConfigError, match="store must be True or False"):
        OpenAIClient(api_key=KEY, store="no")


# --- asked once more ------------------------------------------------------------------------


def refuse(server, message, status=400, **fields):
    error = {"message": message, "type": "invalid_request_error", **fields}
    server.reply_json({"error": error}, status=status)


REASONERS = (
    "Unsupported parameter: 'max_tokens' is not supported with this model."
    " Use 'max_completion_tokens' instead."
)


def test_the_other_name_of_max_tokens_is_asked_for_once_and_remembered(server):
    refuse(server, REASONERS, param="max_tokens")
    server.reply(*text_chunks("Yes"))
    server.reply(*text_chunks("Yes"))
    with client_of(server, "auto") as client:
        request = ChatRequest([USER], max_tokens=7)
        first, second = ask(client, request), ask(client, request)
    assert (first.error, second.error) == (None, None)
    sent = [request.json for request in server.requests]
    assert [body.get("max_tokens") for body in sent] == [7, None, None]
    assert [body.get("max_completion_tokens") for body in sent] == [None, 7, 7]


def test_a_server_that_refuses_both_is_asked_twice(server):
    refuse(server, REASONERS)
    refuse(server, "max_completion_tokens: extra inputs are not permitted", 422)
    with client_of(server, "auto") as client:
        result = ask(client, ChatRequest([USER], max_tokens=7))
    assert result.error.status == 422
    assert len(server.requests) == 2


def test_max_tokens_that_are_too_many_are_no_other_name(server):
    refuse(server, "max_tokens is too large: 100000. This model supports at most 4096 tokens")
    with client_of(server, "auto") as client:
        assert ask(client, ChatRequest([USER], max_tokens=7)).error.status == 400
    assert len(server.requests) == 1


MOVED = (
    "Function tools with reasoning_effort are not supported for m in /v1/chat/completions."
    " Please use /v1/responses instead."
)


def test_a_server_that_says_responses_is_asked_there_and_it_is_remembered(server):
    refuse(server, MOVED)
    server.reply(*responses_chunks("Yes"), path="/v1/responses")
    server.reply(*responses_chunks("Yes"), path="/v1/responses")
    with client_of(server, "auto") as client:
        request = ChatRequest([USER], tools=[TOOL])
        first, second = ask(client, request), ask(client, request)
    assert (first.error, second.error, first.text) == (None, None, "Yes")
    assert [len(first.retries), len(second.retries)] == [1, 0]
    paths = [request.path for request in server.requests]
    assert paths == ["/v1/chat/completions", "/v1/responses", "/v1/responses"]


def test_a_server_without_that_api_said_what_counts(server):
    refuse(server, MOVED)
    refuse(server, "no such route", 404)
    refuse(server, MOVED)
    refuse(server, "no such route", 404)
    with client_of(server, "auto") as client:
        for _ in range(2):  # nothing is remembered of it
            error = ask(client, ChatRequest([USER], tools=[TOOL])).error
            assert "Please use /v1/responses" in str(error)
    assert len(server.requests) == 4


def test_who_asked_for_chat_stays_there(server):
    refuse(server, MOVED)
    with client_of(server, "chat") as client:
        assert ask(client, ChatRequest([USER], tools=[TOOL])).error.status == 400
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("Encrypted content is not supported with this model.", "include"),
        ("include: Extra inputs are not permitted", "include"),
        ("Unknown parameter: 'stream_options.include_obfuscation'.", "stream_options"),
    ],
)
def test_what_is_asked_for_besides_is_left_out_where_it_is_refused(server, message, field):
    refuse(server, message)
    server.reply(*responses_chunks("Yes"), repeat=True)
    with client_of(server) as client:
        assert ask(client).error is None
        assert ask(client).error is None
    assert [field in request.json for request in server.requests] == [True, False, False]


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (404, "The model `m` does not exist or you do not have access to it.", "model_not_found"),
        (400, "The requested model 'm' does not exist.", "model_not_found"),
        (400, "Model not found: m", None),
        (404, "The model m has been deprecated, learn more", None),
        (400, "The model `m` has been decommissioned and is no longer supported.", None),
    ],
)
@pytest.mark.parametrize("api", ["responses", "chat"])
def test_a_model_that_is_gone_says_so_and_where_another_is_set(server, api, status, message, code):
    refuse(server, message, status, code=code)
    with client_of(server, api) as client:
        error = ask(client).error
    assert message in str(error)
    assert "no model m is served, or no longer" in str(error)
    assert "--model" in str(error)


def test_an_error_of_another_kind_says_nothing_of_models(server):
    refuse(server, "this model's maximum context length is 8 tokens")
    with client_of(server) as client:
        assert "--model" not in str(ask(client).error)


@pytest.mark.parametrize("begun", [False, True])
def test_an_error_in_mid_stream_is_told_once(server, begun):
    events = [{"type": "response.output_text.delta", "output_index": 0, "delta": "x"}] * begun
    error = {"code": "server_error", "message": "out of luck"}
    events.append({"type": "error", **error})
    events.append({"type": "response.failed", "response": {"status": "failed", "error": error}})
    server.reply(*(sse(event) for event in events))
    server.reply(*responses_chunks("Yes"))
    with client_of(server, retries=None) as client:
        result = ask(client)
    if begun:
        assert "out of luck" in str(result.error)
        assert result.error.code == "server_error"
    else:
        assert (result.text, len(result.retries)) == ("Yes", 1)
