"""Clients: what they send, what they make of usage, what a TextStream promises."""

from __future__ import annotations

import gc
import json
import threading
import weakref

import pytest
import responses

from agentstream import errors
from agentstream.cancel import CancelToken
from agentstream.llm.clients import ChatClient, LlamaClient, OpenAIClient
from agentstream.llm.messages import ChatMessage, ChatRequest, Delta, ToolCallDelta
from agentstream.llm.settings import Limits, Retries
from agentstream.results import ToolCall, Usage
from agentstream.testing import Gate, Pause, ScriptedServer, text_chunks
from agentstream.testing.pieces import chat_chunk
from tests.kit.client_support import ANSWER, ASIDE, body_of, no_environment  # noqa: F401
from tests.kit.support import KEY, Task, ask, client_of, wait_until

# --- what is sent ---


def test_body_of_a_text(server):
    with client_of(server) as client:
        body = body_of(server, client, "Tell me")
    assert body == {
        "model": "default",
        "messages": [{"role": "user", "content": "Tell me"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_body_of_a_whole_request(server):
    request = ChatRequest(
        [
            ChatMessage.system("S"),
            {"role": "user", "content": "U", "odd": 1},
            ChatMessage.assistant(None, [ToolCall("c", "f", "")]),
            ChatMessage.tool("c", "R"),
        ],
        model="m",
        temperature=0.0,
        top_p=0.5,
        max_tokens=5,
        seed=0,
        stop=["a"],
        response_format={"type": "json_object"},
        tools=[{"type": "function"}],
        tool_choice="auto",
        parallel_tool_calls=False,
        extra={"min_p": 0.1},
        reasoning_effort="low",
    )
    with client_of(server) as client:
        body = body_of(server, client, request)
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "S"},
            {"role": "user", "content": "U", "odd": 1},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "R", "tool_call_id": "c"},
        ],
        "stream": True,
        "temperature": 0.0,
        "top_p": 0.5,
        "max_tokens": 5,
        "seed": 0,
        "stop": ["a"],
        "response_format": {"type": "json_object"},
        "tools": [{"type": "function"}],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
        "min_p": 0.1,
        "stream_options": {"include_usage": True},
    }


def test_extra_wins_and_none_takes_a_field_out(server):
    extra = {"temperature": 1, "stream_options": None, "max_tokens": None, "cache_prompt": True}
    request = ChatRequest([ChatMessage.user("hi")], temperature=0.5, max_tokens=9, extra=extra)
    with client_of(server, body={"temperature": 0.7, "top_k": 3, "cache_prompt": 0}) as client:
        body = body_of(server, client, request)
    assert body["temperature"] == 1
    assert body["cache_prompt"] is True
    assert body["top_k"] == 3
    assert "stream_options" not in body
    assert "max_tokens" not in body


def test_query_headers_and_body_fields_of_a_client(server):
    server.reply(*ANSWER)
    with OpenAIClient(
        base_url=server.url,
        query={"api-version": "2024-02-01", "a b": "\u00e4&"},
        headers={"api-key": KEY, "X-Title": "t"},
        body={"user": "u"},
    ) as client:
        assert ask(client).error is None
    request = server.requests[0]
    assert request.path == "/chat/completions?api-version=2024-02-01&a+b=%C3%A4%26"
    assert (request.headers["api-key"], request.headers["X-Title"]) == (KEY, "t")
    assert request.json["user"] == "u"
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.headers["Content-Type"] == "application/json"


def test_message_parts_are_sent_as_they_are(server):
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    ]
    with client_of(server) as client:
        body = body_of(server, client, [ChatMessage.user(parts)])
    assert body["messages"][0]["content"] == parts


def test_text_beyond_ascii_and_a_lone_surrogate(server):
    with client_of(server) as client:
        body = body_of(server, client, "\u20ac \U0001f600 \ud83d")
    assert body["messages"][0]["content"] == "\u20ac \U0001f600 \ud83d"


# --- usage ---


@pytest.mark.parametrize(
    "message",
    [
        "Unknown parameter: 'stream_options'.",
        "extra fields not permitted: include_usage",
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_stream_options_refused(server, status, message):
    """One more try without it, whatever the setting; and the client remembers."""
    server.reply_json({"error": {"message": message}}, status=status)
    with client_of(server, retries=Retries(0)) as client:
        server.reply(*text_chunks("Hello", usage=False))
        result = ask(client)
        assert result.error is None
        assert result.text == "Hello"
        assert len(result.retries) == 1
        body_of(server, client)
    sent = ["stream_options" in request.json for request in server.requests]
    assert sent == [True, False, False]


def test_stream_options_refused_twice(server):
    server.reply_json({"error": {"message": "no stream_options"}}, status=400, repeat=True)
    with client_of(server, retries=Retries(0)) as client:
        result = ask(client)
    assert type(result.error) is errors.BadRequest
    assert len(server.requests) == 2


def test_usage_as_the_server_gives_it(server):
    counts = {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 40}
    server.reply_text("a", "b", usage=counts)
    with client_of(server) as client:
        assert client.chat("hi").usage == Usage(3, 9, 40)


def test_usage_estimated(server):
    server.reply_text("a", "b", "c", usage=False)
    with client_of(server) as client:
        assert client.chat("hi").usage == Usage(None, 3, None, estimated=True)


def test_times_and_rate(server):
    pieces = text_chunks("a", "b", "c", "d", usage=False)
    server.reply(Pause(0.1), *pieces[:3], Pause(0.4), *pieces[3:5], Pause(0.1), *pieces[5:])
    with client_of(server) as client:
        response = client.chat("hi")
    assert 0.1 <= response.first_token_s
    took = response.duration_s - response.first_token_s
    assert took > 0.2  # of half a second, from the server's first word to its last
    assert response.tokens_per_second == pytest.approx(3 / took)


# --- TextStream ---


def test_chat_and_chat_stream_agree(server):
    server.reply(*ANSWER, repeat=True)
    with client_of(server, model="m") as client:
        whole = client.chat("hi")
        with client.chat_stream("hi") as stream:
            assert iter(stream) is stream
            assert list(stream) == ["Hello", ", ", "world"]
            assert next(stream, None) is None
        assert str(stream.response) == str(whole) == "Hello, world"
    for response in (whole, stream.response):
        assert (response.finish_reason, response.model) == ("stop", "scripted")
        assert response.warnings == ()


def test_response_while_running(server):
    gate = Gate()
    server.reply(*ANSWER[:3], gate, *ANSWER[3:])
    with client_of(server) as client, client.chat_stream("hi") as stream:
        assert stream.response.content == ""
        assert stream.response.first_token_s is None
        assert [next(stream), next(stream)] == ["Hello", ", "]
        seen = []
        thread = threading.Thread(target=lambda: seen.append(stream.response))
        thread.start()
        thread.join(5)
        assert seen[0].content == "Hello, "
        assert seen[0].finish_reason is None
        assert seen[0].usage == Usage(None, 2, None, estimated=True)
        first = stream.response.duration_s
        assert stream.response.duration_s >= first
        gate.open()
        assert list(stream) == ["world"]
        assert stream.response.duration_s == stream.response.duration_s  # the clock has stopped


def test_two_threads_on_one_stream(server):
    gate = Gate()
    server.reply(*ANSWER[:2], gate, *ANSWER[2:])
    with client_of(server) as client, client.chat_stream("hi") as stream:
        assert next(stream) == "Hello"
        reader = Task(lambda: list(stream))
        wait_until(lambda: stream._items.gi_running)
        assert gate.wait_reached()
        with pytest.raises(RuntimeError, match="another thread"):
            next(stream)
        gate.open()
        assert reader.result() == [", ", "world"]


def test_nothing_is_sent_before_the_first_text_is_asked_for(server):
    with client_of(server) as client:
        stream = client.chat_stream("hi")
        stream.close()
        with pytest.raises((StopIteration, errors.Cancelled)):
            next(stream)
    assert server.connections == 0


def test_dropping_a_stream_frees_its_socket(server):
    server.reply(*ANSWER[:3], Pause(5))
    with client_of(server) as client:
        stream = client.chat_stream("hi")
        assert next(stream) == "Hello"
        gone = weakref.ref(stream)
        gc.disable()
        try:
            del stream
            assert gone() is None
            assert server.wait_client_gone()
        finally:
            gc.enable()


def test_stream_lets_go_of_its_token(server):
    token = CancelToken()
    server.reply(*ANSWER, repeat=True)
    with client_of(server) as client:
        for _ in range(3):
            assert list(client.chat_stream("hi", cancel=token))
    assert not token._callbacks


def test_reasoning_and_tool_calls_are_no_text(server):
    parts = [chat_chunk({"reasoning_content": "Hm."}), chat_chunk({"content": ""})]
    server.reply(*parts, *ANSWER)
    with client_of(server) as client, client.chat_stream("hi") as stream:
        assert list(stream) == ["Hello", ", ", "world"]
    assert stream.response.reasoning == "Hm."


class Other(ChatClient):
    """A client of somebody else's: one method."""

    model = "other"

    def __init__(self, *deltas):
        self._deltas = deltas

    def stream_deltas(self, request, *, cancel=None):
        for delta in self._deltas:
            if isinstance(delta, Exception):
                raise delta
            yield delta


def test_client_of_ones_own():
    call = ToolCallDelta(0, "", "f", "{}")
    client = Other(Delta("a"), Delta("", "b"), Delta(tool_calls=(call,)), Delta("c"))
    with client:
        response = client.chat("hi")
    assert (response.content, response.reasoning, response.model) == ("ac", "b", "other")
    assert response.tool_calls[0].id
    failing = Other(Delta("a"), errors.StreamTruncated("cut"))
    with pytest.raises(errors.StreamTruncated) as info:
        failing.chat("hi")
    assert info.value.partial.content == "a"


# --- `responses`, as users' tests have it ---


@responses.activate
def test_with_the_responses_library():
    body = b"".join(ANSWER)
    url = "http://model.invalid/v1/chat/completions"
    responses.post(url, body=body, content_type="text/event-stream")
    responses.post(url, json={"error": {"message": "no such model"}}, status=404)
    with LlamaClient("http://model.invalid", retries=Retries(0)) as client:
        assert client.chat("hi").content == "Hello, world"
        with pytest.raises(errors.BadRequest, match="no such model"):
            client.chat("hi")
    assert json.loads(responses.calls[0].request.body)["stream"] is True


def test_many_threads_share_a_client():
    with ScriptedServer() as server:
        server.reply(*ANSWER, repeat=True)
        answers = []
        with client_of(server, limits=Limits(pool_size=3)) as client:

            def run():
                for _ in range(5):
                    answers.append(client.chat("hi").content)

            threads = [threading.Thread(target=run) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
        assert answers == ["Hello, world"] * 40
        assert server.connections <= 12
