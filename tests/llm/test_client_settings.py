"""Clients: what they can be told, and what they refuse to be told; conventions."""

from __future__ import annotations

import base64

import pytest

from agentstream import errors
from agentstream.llm.clients import InsecureWarning, LlamaClient, OpenAIClient
from agentstream.llm.messages import (
    ChatMessage,
    ChatRequest,
)
from agentstream.llm.settings import Limits, Retries, Timeouts
from agentstream.testing import Reply
from tests.kit.client_support import ANSWER, ASIDE, body_of, no_environment  # noqa: F401
from tests.kit.support import KEY, ask, client_of, hunt

# --- settings ---


@pytest.mark.parametrize("name", ["connect", "first_token", "stall", "total"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "5", True, [1]])
def test_timeouts_refuse(name, value):
    with pytest.raises(errors.ConfigError, match=rf"Timeouts\.{name} must be a positive number"):
        Timeouts(**{name: value})


def test_timeouts_accept():
    assert Timeouts(connect=None, first_token=1, stall=0.5, total=None).stall == 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attempts", -1),
        ("attempts", 1.5),
        ("attempts", "2"),
        ("attempts", None),
        ("attempts", True),
        ("backoff", -0.1),
        ("backoff", "1"),
        ("max_backoff", None),
        ("max_backoff", float("nan")),
        ("max_retry_after", -1),
        ("resume", "yes"),
    ],
)
def test_retries_refuse(name, value):
    with pytest.raises(errors.ConfigError, match=rf"Retries\.{name} must be"):
        Retries(**{name: value})


@pytest.mark.parametrize("name", ["line", "event", "tool_arguments", "answer", "pool_size"])
@pytest.mark.parametrize("value", [0, -5, 1.5, "9", True])
def test_limits_refuse(name, value):
    with pytest.raises(
        errors.ConfigError, match=rf"Limits\.{name} must be (a whole number|1 or more), not"
    ):
        Limits(**{name: value})


def test_limits_refuse_an_endless_pool():
    with pytest.raises(errors.ConfigError, match=r"Limits\.pool_size"):
        Limits(pool_size=None)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"timeouts": 5}, "timeouts must be a Timeouts, not int"),
        ({"retries": 3}, "retries must be a Retries, not int"),
        ({"limits": {}}, "limits must be a Limits, not dict"),
    ],
)
def test_client_refuses_settings_of_another_kind(setting, message):
    if setting == {"limits": {}}:
        setting = {"limits": {"line": 5}}
    with pytest.raises(errors.ConfigError, match=message):
        LlamaClient(**setting)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8080",
        "ftp://host",
        "http://",
        "http:///v1",
        "http://host:99999",
        "http://h:x",
        "http://h:0",
        "host",
        "http://[::1",
        "//host",
    ],
)
@pytest.mark.parametrize("kind", [LlamaClient, OpenAIClient])
def test_url_refused(kind, url):
    if kind is OpenAIClient and not url:
        return  # none at all means OpenAI's own
    with pytest.raises(errors.ConfigError, match="base URL must look like"):
        kind(base_url=url)


def test_url_shows_no_password():
    with pytest.raises(errors.ConfigError) as info:
        LlamaClient("ftp://user:MARKEDKEY@host/?key=MARKEDKEY")
    hunt(str(info.value))
    with LlamaClient("http://user:MARKEDKEY@127.0.0.1:1") as client:
        hunt(repr(client))
        assert repr(client) == ("<LlamaClient 'default' at http://127.0.0.1:1/v1/chat/completions>")


@pytest.mark.parametrize("key", ["", "sk-MARKEDKEY\n", "sk-\u00e9MARKEDKEY", "a\r\nX: y", "  "])
def test_key_refused(key):
    with pytest.raises(errors.ConfigError, match="API key") as info:
        LlamaClient(**ASIDE, api_key=key)
    hunt(str(info.value) + repr(info.value))


@pytest.mark.parametrize("headers", [{"X-Key": "MARKEDKEY\n"}, {"X\n": "y"}, {"": "y"}, {"X": 5}])
def test_header_refused(headers):
    with pytest.raises(errors.ConfigError) as info:
        LlamaClient(**ASIDE, headers=headers)
    hunt(str(info.value))


@pytest.mark.parametrize("prompt", [None, 5, [], (), [5], [None], ChatRequest([]), {"a": 1}, b"x"])
def test_prompt_refused(prompt):
    with LlamaClient(**ASIDE) as client, pytest.raises(errors.ConfigError):
        client.chat(prompt)


def test_unknown_role_refused():
    with pytest.raises(errors.ConfigError, match="role must be one of system, .* not 'robot'"):
        ChatMessage("robot", "hi")


@pytest.mark.parametrize("extra", [{"x": float("nan")}, {"x": {1, 2}}, {"x": object()}])
def test_body_that_json_cannot_hold_refused(server, extra):
    with client_of(server) as client:
        result = ask(client, ChatRequest([ChatMessage.user("hi")], extra=extra))
    assert type(result.error) is errors.ConfigError
    assert server.connections == 0


# --- conventions ---


def test_openai_key_and_url_of_the_environment(monkeypatch, server):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url + "/some/v1/")
    server.reply(*ANSWER)
    with OpenAIClient("gpt-x") as client:
        assert ask(client).text == "Hello, world"
        assert (client.model, client.provider) == ("gpt-x", "openai")
        hunt(repr(client))
    request = server.requests[0]
    assert request.path == "/some/v1/chat/completions"
    assert request.headers["Authorization"] == f"Bearer {KEY}"


def test_openai_arguments_win_over_the_environment(monkeypatch, server):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1")
    server.reply(*ANSWER)
    with OpenAIClient(api_key=KEY, base_url=server.url) as client:
        assert ask(client).text == "Hello, world"
    assert server.requests[0].headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("value", [None, ""])
def test_openai_itself_needs_a_key(monkeypatch, value):
    if value is not None:
        monkeypatch.setenv("OPENAI_API_KEY", value)
    with pytest.raises(errors.ConfigError, match="OPENAI_API_KEY"):
        OpenAIClient()


def test_openai_server_of_ones_own_needs_no_key(server):
    server.reply(*ANSWER)
    with OpenAIClient(base_url=server.url) as client:
        assert ask(client).text == "Hello, world"
    assert "Authorization" not in server.requests[0].headers


def test_llama_takes_no_key_from_the_environment(monkeypatch, server):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with client_of(server, api_key=None) as client:
        body_of(server, client)
        assert (client.model, client.provider) == ("default", "llama.cpp")
    assert "Authorization" not in server.requests[0].headers


@pytest.mark.parametrize("form", ["", "/", "/v1", "/v1/"])
def test_llama_url_forms(server, form):
    with client_of(server.url + form) as client:
        body_of(server, client)
    assert server.requests[0].path == "/v1/chat/completions"


def test_llama_under_a_path(server):
    with client_of(server.url + "/llama/v1") as client:
        body_of(server, client)
    assert server.requests[0].path == "/llama/v1/chat/completions"


def test_user_and_password_of_the_url(server):
    url = server.url.replace("http://", "http://us%40er:pass@")
    with client_of(url, api_key=None) as client:
        body_of(server, client)
    said = server.requests[0].headers["Authorization"].split()
    assert (said[0], base64.b64decode(said[1])) == ("Basic", b"us@er:pass")


def test_defaults_for_a_slow_cpu_and_for_a_hosted_model():
    with LlamaClient(**ASIDE) as llama, OpenAIClient(**ASIDE) as hosted:
        assert llama.timeouts.first_token == 600.0
        assert hosted.timeouts.first_token == 120.0
        assert llama.timeouts.total is hosted.timeouts.total is None


def test_insecure_warns_once_and_verifies_nothing(tls_server):
    with pytest.warns(InsecureWarning, match="are not verified") as caught:
        client = LlamaClient.insecure(tls_server.url, api_key=KEY)
    assert len(caught) == 1
    with client:
        for _ in range(2):  # and no warning of urllib3's: warnings are errors here
            assert body_of(tls_server, client)


# --- which key goes where ---


@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION"])
@pytest.mark.parametrize("value", ["Bearer of-the-header", "Basic dTpw", "Token t"])
def test_e04_a_header_that_was_given_wins_over_the_environments_key(
    monkeypatch, server, name, value
):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    server.reply(*ANSWER)
    with OpenAIClient(headers={name: value}) as client:
        assert ask(client).text == "Hello, world"
    assert server.requests[0].headers["Authorization"] == value


def test_e04_openai_itself_needs_no_key_beside_such_a_header():
    OpenAIClient(headers={"authorization": "Bearer x"}).close()
    with pytest.raises(errors.ConfigError, match="needs a key"):
        OpenAIClient(headers={"X-Other": "Bearer x"})


@pytest.mark.parametrize("own_url", [None, "https://api.openai.com/v1", "http://127.0.0.1:1/v1"])
def test_e05_the_environments_key_stays_from_a_host_given_in_python(monkeypatch, server, own_url):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    if own_url is not None:
        monkeypatch.setenv("OPENAI_BASE_URL", own_url)
    server.reply(*ANSWER, repeat=True)
    with OpenAIClient(base_url=server.url + "/v1") as client:
        assert ask(client).text == "Hello, world"
    with OpenAIClient(base_url=server.url + "/v1", api_key="sk-meant-for-it") as client:
        assert ask(client).text == "Hello, world"
    sent = [request.headers.get("Authorization") for request in server.requests]
    assert sent == [None, "Bearer sk-meant-for-it"]


def test_e05_the_environments_key_goes_to_the_environments_host_however_it_is_named(
    monkeypatch, server
):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url + "/v1")
    server.reply(*ANSWER, repeat=True)
    for url in (None, server.url + "/v1", server.url + "/other"):
        with OpenAIClient(base_url=url) as client:
            assert ask(client).text == "Hello, world"
    assert {r.headers["Authorization"] for r in server.requests} == {f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://api.openai.com/v1", True),
        ("https://API.openai.com:443/v1", True),
        ("https://eu.api.openai.com/v1", True),
        ("https://api.openai.com.evil.example/v1", False),
        ("https://evil-api.openai.com/v1", False),
        ("https://api.openai.com@evil.example/v1", False),
        ("https://x.openai.azure.com/openai/v1", False),
        ("http://127.0.0.1:1/api.openai.com", False),
    ],
)
def test_e05_which_hosts_are_openais(monkeypatch, url, sent):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with OpenAIClient(base_url=url) as client:
        known = client._redactor(ChatRequest([ChatMessage.user("hi")]))(KEY) != KEY
    assert known is sent


# --- a base URL with a query ---


@pytest.mark.parametrize(
    "base", ["/v1?api-version=1", "/v1/?api-version=1", "/v1/?api-version=1#x"]
)
def test_e01_the_query_of_a_base_url_stays_behind_the_path(server, base):
    server.reply(*ANSWER, repeat=True)
    with OpenAIClient(base_url=server.url + base) as client:
        assert ask(client).text == "Hello, world"
    with OpenAIClient(base_url=server.url + base, query={"b": "2 3"}) as client:
        assert ask(client).text == "Hello, world"
    with LlamaClient(server.url + base) as client:
        assert ask(client).text == "Hello, world"
    assert [request.path for request in server.requests] == [
        "/v1/chat/completions?api-version=1",
        "/v1/chat/completions?api-version=1&b=2+3",
        "/v1/chat/completions?api-version=1",
    ]


def test_e01_the_template_is_asked_for_under_the_same_query(server):
    server.route("/props", lambda request: Reply.json({"chat_template_caps": {}}))
    server.reply(*ANSWER)
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    with LlamaClient(server.url + "/v1?key=k", model="m") as client:
        ask(client, ChatRequest([ChatMessage.user("hi")], tools=[tool]))
    assert [request.path for request in server.requests][0] == "/props?key=k&model=m"


# --- what is asked for wrongly ---


@pytest.mark.parametrize("kind", [OpenAIClient, LlamaClient])
@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": 5},
        {"base_url": b"http://127.0.0.1:1"},
        {"model": 5, **ASIDE},
        {"headers": "X: y", **ASIDE},
        {"headers": ["X"], **ASIDE},
        {"body": [("a", 1)], **ASIDE},
        {"api_key": 5, **ASIDE},
        {"timeouts": 5, **ASIDE},
    ],
)
def test_a_setting_of_the_wrong_kind_is_a_config_error(kind, settings):
    with pytest.raises(errors.ConfigError):
        kind(**settings)


def test_no_base_url_at_all_is_a_config_error():
    with pytest.raises(errors.ConfigError, match="base_url must be a str, not NoneType"):
        LlamaClient(None)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("", "the prompt is empty"),
        ([{"role": "bogus", "content": "hi"}], "role must be one of .* not 'bogus'"),
        ([{"role": 5, "content": "hi"}], "role must be a str, not int"),
        ([{"role": ["user"], "content": "hi"}], "role must be"),
        ([{"content": "hi"}], "role must be a str, not NoneType"),
        (ChatRequest([{"role": "USER", "content": "hi"}]), "not 'USER'"),
    ],
)
def test_a_prompt_that_no_server_takes_is_refused_before_it_is_sent(prompt, says):
    with LlamaClient(**ASIDE) as client:
        for ask_for in (client.chat, client.chat_stream):
            with pytest.raises(errors.ConfigError, match=says):
                ask_for(prompt)
