"""Clients: what they can be told, and what they refuse to be told; conventions."""

from __future__ import annotations

import base64

import pytest

from agentstream import errors
from agentstream.llm.clients import InsecureWarning, LlamaClient, OpenAIClient
from agentstream.llm.messages import ChatMessage, ChatRequest
from agentstream.testing import Reply
from tests.kit.client_support import ANSWER, ASIDE, body_of, no_environment  # noqa: F401
from tests.kit.support import KEY, ask, client_of, hunt


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
