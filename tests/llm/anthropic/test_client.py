"""AnthropicClient over real sockets: what is sent, how an answer ends, fails, stops and stalls."""

from __future__ import annotations

import json

import pytest

from agentstream import errors
from agentstream.cancel import CancelToken
from agentstream.llm.anthropic.client import AnthropicClient
from agentstream.llm.messages import ChatMessage, ChatRequest, as_request
from agentstream.llm.settings import Limits, Retries, Timeouts
from agentstream.testing import Cut, Gate, Hang, Pause, messages_chunks, sse
from tests.kit.native import play
from tests.kit.support import KEY, NO_RETRIES, PATIENT, PROMPT, Task, ask, check_error, hunt

PING = sse({"type": "ping"}, event="ping")
SOON = Retries(2, backoff=0.001)
THINKING = {"type": "thinking", "thinking": "Hm.", "signature": "S"}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def client_of(server, **settings):
    clocks = {name: settings.pop(name) for name in vars(PATIENT) if name in settings}
    settings.setdefault("timeouts", PATIENT.replace(**clocks))
    settings.setdefault("retries", NO_RETRIES)
    settings.setdefault("api_key", KEY)
    return AnthropicClient("m", base_url=server.url, **settings)


def failing(kind="overloaded_error", message="Overloaded", **fields):
    error = {"type": kind, "message": message, **fields}
    return sse({"type": "error", "error": error, "request_id": "req_1"}, event="error")


# --- the request ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_where_it_goes_and_with_which_headers(server, path):
    server.reply(*messages_chunks("Hello", ", world"))
    with AnthropicClient("m", base_url=server.url + path, api_key=KEY) as client:
        response = client.chat("hi")
    assert (response.content, response.finish_reason, response.warnings) == (
        "Hello, world",
        "stop",
        (),
    )
    assert (response.model, response.usage.prompt_tokens) == ("scripted", 10)
    (request,) = server.requests
    assert request.path == "/v1/messages"
    assert request.headers["x-api-key"] == KEY
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert "Authorization" not in request.headers
    assert request.json["max_tokens"] == 32_000
    assert request.json["stream"] is True


def test_a_path_before_v1_and_a_query_stay(server):
    server.reply(*messages_chunks("a"))
    with AnthropicClient("m", base_url=server.url + "/anthropic/v1?beta=true") as client:
        client.chat("hi")
    assert server.requests[0].path == "/anthropic/v1/messages?beta=true"
    assert "x-api-key" not in server.requests[0].headers


def test_a_key_that_is_asked_for_and_headers_of_ones_own(server):
    keys = iter(["key-1", "key-2"])
    server.default(*messages_chunks("a"))
    own = {"anthropic-beta": "x", "Anthropic-Version": "2099-01-01"}
    with client_of(server, api_key=lambda: next(keys), headers=own) as client:
        client.chat("hi")
        client.chat("hi")
    first, second = server.requests
    assert [r.headers["x-api-key"] for r in (first, second)] == ["key-1", "key-2"]
    assert (first.headers["anthropic-beta"], first.headers["anthropic-version"]) == (
        "x",
        "2099-01-01",
    )


def test_the_environments_key_goes_to_the_environments_host_only(server, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    server.default(*messages_chunks("a"))
    with AnthropicClient("m", base_url=server.url) as client:
        client.chat("hi")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
    with AnthropicClient("m") as client:
        client.chat("hi")
    with AnthropicClient("m", headers={"X-API-Key": "mine"}) as client:
        client.chat("hi")
    with AnthropicClient("m", headers={"Authorization": "Bearer mine"}) as client:
        client.chat("hi")
    keys = [request.headers.get("x-api-key") for request in server.requests]
    assert keys == [None, KEY, "mine", None]


def test_settings_that_cannot_be_used():
    with pytest.raises(errors.ConfigError, match="ANTHROPIC_API_KEY"):
        AnthropicClient()
    for settings in (
        {"max_tokens": 0},
        {"cache": "always"},
        {"headers": "x"},
        {"body": 5},
        {"api_key": 5},
        {"base_url": 5},
        {"base_url": "nowhere"},
    ):
        with pytest.raises(errors.ConfigError):
            AnthropicClient(**{"base_url": "http://127.0.0.1:1", **settings})


def test_fields_of_the_client_and_of_the_request_win(server):
    server.default(*messages_chunks("a"))
    body = {"max_tokens": 5, "metadata": {"user_id": "u"}, "top_k": 3}
    with client_of(server, body=body, cache=False) as client:
        client.chat(ChatRequest([ChatMessage.user("hi")], extra={"top_k": None}))
        own = [{"role": "user", "content": "mine"}]
        client.chat(ChatRequest([ChatMessage.user("hi")], extra={"messages": own}))
    first, second = (request.json for request in server.requests)
    assert (first["max_tokens"], first["metadata"]) == (5, {"user_id": "u"})
    assert "top_k" not in first
    assert first["messages"] == [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    assert second["messages"] == own


def test_marks_and_a_server_that_takes_none(server):
    marked = [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]
    server.reply(*messages_chunks("a"))
    server.reply_json({"error": {"message": "cache_control: no such field"}}, status=400)
    server.default(*messages_chunks("a"))
    with client_of(server) as client:
        client.chat("hi")
        assert client.chat("hi").content == "a"
        assert client.chat("hi").content == "a"
    contents = [request.json["messages"][0]["content"] for request in server.requests]
    assert contents[0] == contents[1] == marked
    assert ["cache_control" in content[0] for content in contents] == [True, True, False, False]


# --- the end ----------------------------------------------------------------------------------


def test_the_end_is_message_stop_not_that_of_the_body(server):
    server.reply(*messages_chunks("a"), Hang())
    with client_of(server) as client:
        result = ask(client)
    assert result.error is None
    assert result.response.warnings == ()
    assert result.took < 2


def test_a_stop_reason_without_message_stop_is_whole_with_a_warning(server):
    server.reply(*messages_chunks("a", done=False))
    with client_of(server) as client:
        result = ask(client)
    assert result.error is None
    assert result.response.warnings == ("the stream ended without message_stop",)


def test_what_follows_message_stop_does_not_count(server):
    server.reply(*messages_chunks("a"), b"event: data\ndata: [DONE]\n\n", *messages_chunks("b"))
    with client_of(server) as client:
        assert ask(client).text == "a"


def test_done_in_mid_stream_is_no_end(server):
    pieces = messages_chunks("a", "b", stop_reason=None, done=False)
    server.reply(*pieces[:3], b"data: [DONE]\n\n", *pieces[3:])
    with client_of(server) as client:
        result = ask(client)
    assert isinstance(result.error, errors.StreamTruncated)
    assert result.text == "ab"


BODY = b"".join(
    messages_chunks(THINKING, "a\u00e9", "b", ("f", {"x": "\u00e9"}), ("g", {}), "\U0001f600")
)


def test_a_stream_cut_at_any_byte():
    """Every whole event is delivered, nothing is invented, and only the end makes it whole."""
    ended = BODY.index(b"event: message_stop")
    reasoned = BODY.index(b"\n\n", BODY.index(b"event: message_delta")) + 2
    with AnthropicClient("m", base_url="http://127.0.0.1:1", retries=NO_RETRIES) as client:
        _, whole, _ = play(client, [BODY], as_request("hi"))
        assert whole.content == "a\u00e9b\U0001f600"
        for place in range(len(BODY)):
            _, answer, error = play(client, [BODY[:place]], as_request("hi"))
            if place < reasoned:
                assert isinstance(error, errors.StreamTruncated), place
                assert answer.finish_reason is None
                assert answer.provider_state is None
            else:
                assert error is None
                late = place < ended + len(
                    b"event: message_stop\ndata: " + b'{"type":"message_stop"}'
                )
                assert bool(answer.warnings) == late
            events = BODY[:place].count(b"\n\n")
            told = [json.loads(line[6:]) for line in BODY.split(b"\n") if line[:6] == b"data: "]
            words = [event.get("delta", {}).get("text", "") for event in told[:events]]
            assert answer.content == "".join(words)
            for call, full in zip(answer.tool_calls, whole.tool_calls):
                assert full.arguments.startswith(call.arguments)


def test_an_answer_that_is_no_stream(server):
    content = [THINKING, {"type": "text", "text": "a"}]
    message = {"type": "message", "model": "m2", "content": content, "stop_reason": "max_tokens"}
    server.reply_json(message)
    server.reply_json({"type": "error", "error": {"type": "api_error", "message": "Broken."}})
    server.reply("<html>busy</html>", headers={"Content-Type": "text/html"})
    with client_of(server) as client:
        response = client.chat("hi")
        assert (response.content, response.reasoning, response.model) == ("a", "Hm.", "m2")
        assert response.finish_reason == "length"
        with pytest.raises(errors.ServerError, match="Broken"):
            client.chat("hi")
        with pytest.raises(errors.ProtocolError, match="busy"):
            client.chat("hi")


def test_an_event_that_is_no_json(server):
    server.reply(*messages_chunks("a")[:3], sse('{"type": '), *messages_chunks("b"))
    with client_of(server) as client:
        result = ask(client)
    assert isinstance(result.error, errors.ProtocolError)
    assert result.text == "a"


# --- failures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        ("overloaded_error", 529, errors.ServerError),
        ("api_error", 500, errors.ServerError),
        ("timeout_error", 504, errors.ServerError),
        ("rate_limit_error", 429, errors.RateLimited),
    ],
)
@pytest.mark.parametrize("before", [0, 1, 2])
def test_w11_a_failure_within_a_200_is_that_status_before_the_first_delta(
    server, kind, status, error, before
):
    server.reply(*[*messages_chunks("a")[:1], PING][:before], failing(kind, "Not now"))
    server.reply(*messages_chunks("a"))
    with client_of(server) as client:
        result = ask(client)
        assert type(result.error) is error
        assert (result.error.status, result.error.retryable) == (status, True)
        assert result.error.request_id == "req_1"
        assert "Not now" in str(result.error)
        assert ask(client).text == "a"


def test_w11_it_is_tried_again(server):
    server.reply(failing())
    server.reply(*messages_chunks("a"))
    with client_of(server, retries=SOON) as client:
        result = ask(client)
    assert (result.error, result.text) == (None, "a")
    assert [notice.error for notice in result.retries] == ["ServerError"]


@pytest.mark.parametrize("kind", ["invalid_request_error", "authentication_error", "brand_new"])
def test_a_failure_that_will_not_pass_is_not(server, kind):
    server.default(failing(kind, "Never"))
    with client_of(server, retries=SOON) as client:
        result = ask(client)
    assert type(result.error) is errors.ProviderStreamError
    assert (result.error.code, result.error.retryable) == (kind, False)
    assert len(server.requests) == 1


@pytest.mark.parametrize("block", ["a", THINKING, ("f", {"x": 1})])
def test_a_failure_after_the_first_delta_keeps_the_partial_answer(server, block):
    pieces = messages_chunks(block, stop_reason=None, done=False)
    server.default(*pieces, failing(), *messages_chunks("more"))
    with client_of(server, retries=SOON) as client:
        result = ask(client)
    assert type(result.error) is errors.ProviderStreamError
    assert result.error.code == "overloaded_error"
    assert not result.error.retryable
    answer = result.response
    assert answer.content or answer.reasoning or answer.tool_calls
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "piece",
    [
        b'event: error\ndata: {"error": {"message": "Broken."}}\n\n',
        b'data: {"error": {"message": "Broken."}}\n\n',
        b'data: {"error": "Broken."}\n\n',
        b"event: error\ndata: Broken.\n\n",
        b'{"type":"error","error":{"message":"Broken."}}\n',
        sse({"type": "message_delta", "delta": {"stop_reason": "error"}}),
    ],
)
def test_failures_in_other_shapes(server, piece):
    server.reply(*messages_chunks("a", stop_reason=None, done=False), piece)
    with client_of(server) as client:
        result = ask(client)
    assert type(result.error) is errors.ProviderStreamError
    assert "Broken." in str(result.error) or "ended with error" in str(result.error)
    assert result.text == "a"


def test_a_status_that_passes_is_tried_again(server):
    for status in (529, 503, 429):
        server.reply_json(
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            status=status,
            headers={"retry-after-ms": "1"},
        )
    server.reply(*messages_chunks("a"))
    with client_of(server, retries=Retries(3, backoff=0.001)) as client:
        result = ask(client)
    assert (result.error, len(result.retries)) == (None, 3)


def test_a_model_that_is_loading_is_waited_for(server):
    loading = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
    server.reply_json(loading, status=503)
    server.reply(*messages_chunks("a"))
    with client_of(server) as client:
        assert ask(client).text == "a"


def test_no_secret_in_an_error(server):
    echo = f"no: {KEY} said {PROMPT}"
    server.reply_json({"type": "error", "error": {"type": "x", "message": echo}}, status=400)
    server.reply(failing("invalid_request_error", echo))
    server.reply(sse(f"{{{echo}"))
    with client_of(server) as client:
        for _ in range(3):
            result = ask(client)
            assert result.error is not None
            check_error(result.error)
        hunt(repr(client))


# --- clocks -----------------------------------------------------------------------------------


def test_pings_do_not_end_the_wait_for_the_first_token(server):
    pings = [piece for _ in range(250) for piece in (PING, Pause(0.02))]
    server.reply(*messages_chunks("a")[:1], *pings)
    with client_of(server, first_token=0.3) as client:
        result = ask(client)
    assert type(result.error) is errors.FirstTokenTimeout
    assert result.took < 3.0


def test_pings_are_a_sign_of_life(server):
    pings = [piece for _ in range(8) for piece in (PING, Pause(0.1))]
    pieces = messages_chunks("a", "b")
    server.reply(*pieces[:3], *pings, *pieces[3:])
    with client_of(server, stall=0.6, first_token=5.0) as client:
        result = ask(client)
    assert (result.error, result.text) == (None, "ab")


def test_pings_have_a_bound_of_their_own(server):
    pings = [piece for _ in range(200) for piece in (PING, Pause(0.02))]
    server.reply(*messages_chunks("a")[:3], *pings)
    with client_of(server, stall=0.4, first_token=0.5) as client:
        result = ask(client)
    assert type(result.error) is errors.StallTimeout
    assert 0.3 < result.took < 2.5


def test_silence_is_a_stall(server):
    server.reply(*messages_chunks("a")[:3], Hang())
    with client_of(server, stall=0.2) as client:
        assert type(ask(client).error) is errors.StallTimeout


def test_a_deadline(server):
    pieces = [piece for _ in range(200) for piece in (*messages_chunks("a")[2:3], Pause(0.02))]
    server.reply(*messages_chunks("a")[:2], *pieces)
    with client_of(server, total=0.3) as client:
        assert type(ask(client).error) is errors.DeadlineExceeded


def test_default_clocks():
    with AnthropicClient("m", base_url="http://127.0.0.1:1") as client:
        assert client.timeouts == Timeouts(first_token=600.0)


# --- stop -------------------------------------------------------------------------------------

PHASES = {
    "headers": (),
    "start": messages_chunks("a")[:1],
    "pings": [*messages_chunks("a")[:2], PING, PING],
    "text": messages_chunks("a", "b")[:4],
    "thinking": messages_chunks(THINKING)[:3],
    "call": messages_chunks(("f", {"x": 1}))[:3],
    "stop_reason": messages_chunks("a", done=False),
}


@pytest.mark.parametrize("phase", PHASES)
def test_stop(server, phase):
    gate = Gate()
    if phase == "headers":
        server.reply(gate, Hang(), *messages_chunks("a"))
    else:
        server.reply(*PHASES[phase], gate, Hang())
    token = CancelToken()
    with client_of(server) as client:
        task = Task(lambda: ask(client, cancel=token))
        assert gate.wait_reached()
        token.cancel("enough")
        result = task.result()
    assert type(result.error) is errors.Cancelled
    assert result.took < 3
    if phase == "text":
        assert result.text in ("", "a", "ab")


# --- limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "blocks"),
    [
        ({"answer": 50}, ["a" * 30, "b" * 30]),
        ({"answer": 50}, [{**THINKING, "thinking": "x" * 60}]),
        ({"tool_arguments": 50}, [("f", {"x": "y" * 60})]),
        ({"event": 500}, ["a" * 600]),
        ({"line": 500}, [{"type": "web_search_tool_result", "content": "x" * 600}]),
    ],
)
def test_limits(server, limits, blocks):
    server.reply(*messages_chunks(*blocks))
    with client_of(server, limits=Limits(**limits)) as client:
        result = ask(client)
    assert type(result.error) is errors.LimitExceeded
    assert result.error.limit == next(iter(limits))


def test_a_connection_that_breaks(server):
    server.reply(*messages_chunks("a", "b")[:3], Cut())
    with client_of(server) as client:
        result = ask(client)
    assert type(result.error) is errors.StreamTruncated
    assert (result.text, result.error.retryable) == ("a", True)
