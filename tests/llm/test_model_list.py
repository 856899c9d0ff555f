"""What a server offers, by each client's `models()`: one table for all protocols."""

from __future__ import annotations

import pytest

from agentstream import (
    AnthropicClient,
    CancelToken,
    LlamaClient,
    OllamaClient,
    OpenAIClient,
    errors,
)
from agentstream.llm.settings import Retries, Timeouts
from agentstream.testing import Hang, Reply, ScriptedClient
from tests.kit.support import KEY, MARKS, NO_RETRIES


def openai(server, **settings):
    return OpenAIClient("m", base_url=server.url + "/v1", **settings)


def responses(server, **settings):
    return OpenAIClient("m", base_url=server.url + "/v1", api="responses", **settings)


def anthropic(server, **settings):
    return AnthropicClient("m", base_url=server.url, **settings)


def ollama(server, **settings):
    return OllamaClient("m", server.url, **settings)


def llama(server, **settings):
    return LlamaClient(server.url, **settings)


OPENAIS = {"object": "list", "data": [{"id": "b", "object": "model"}, {"id": "a"}]}
#: How a client is made, where it asks, and what a server of the kind answers.
CLIENTS = {
    "openai": (openai, "/v1/models", OPENAIS),
    "responses": (responses, "/v1/models", OPENAIS),
    "llama": (llama, "/v1/models", {**OPENAIS, "models": [{"name": "b"}]}),
    "anthropic": (
        anthropic,
        "/v1/models?limit=1000",
        {**OPENAIS, "has_more": False, "last_id": "a"},
    ),
    "ollama": (ollama, "/api/tags", {"models": [{"name": "b", "model": "b"}, {"name": "a"}]}),
}
each_client = pytest.mark.parametrize("name", CLIENTS)


def client_of(name, server, **settings):
    clocks = {"connect": 5.0, "first_token": 5.0, **settings.pop("clocks", {})}
    settings = {"api_key": KEY, "retries": NO_RETRIES, "timeouts": Timeouts(**clocks), **settings}
    return CLIENTS[name][0](server, **settings)


@each_client
def test_the_names_in_the_servers_order(server, name):
    _, path, answer = CLIENTS[name]
    server.reply_json(answer)
    with client_of(name, server) as client:
        assert client.models() == ["b", "a"]
    (request,) = server.requests
    assert (request.method, request.path) == ("GET", path)
    assert KEY in str(dict(request.headers))
    assert request.body == b""


@each_client
def test_what_is_no_list_is_said_and_shows_no_secret(server, name):
    for reply in (
        Reply(b"<html><title>Welcome " + KEY.encode(), content_type="text/html"),
        Reply.json({"hello": 1}),
        Reply.json({"error": {"message": f"bad key {KEY}"}}),
    ):
        server.reply(*reply.actions, content_type="application/json")
        with client_of(name, server) as client, pytest.raises(errors.AgentStreamError) as info:
            client.models()
        assert not any(mark in str(info.value) for mark in MARKS)


@each_client
def test_errors_retries_and_clocks_hold(server, name):
    server.reply_json({"error": {"message": "no such key"}}, status=401)
    with client_of(name, server) as client, pytest.raises(errors.AuthError, match="no such key"):
        client.models()
    server.reply_json({"error": {"message": "busy"}}, status=503)
    server.reply_json(CLIENTS[name][2])
    with client_of(name, server, retries=Retries(1, backoff=0.01)) as client:
        assert client.models() == ["b", "a"]
    server.reply(Hang())
    with client_of(name, server, clocks={"first_token": 0.1}) as client:
        with pytest.raises(errors.FirstTokenTimeout):
            client.models()
    cancel = CancelToken()
    cancel.cancel()
    with client_of(name, server) as client, pytest.raises(errors.Cancelled):
        client.models(cancel=cancel)


def test_further_pages_are_asked_for(server):
    first = {"data": [{"id": "a"}, {"id": "b"}], "has_more": True, "last_id": "b"}
    server.reply_json(first)
    server.reply_json({"data": [{"id": "b"}, {"id": "c"}], "has_more": False, "last_id": "c"})
    with client_of("anthropic", server) as client:
        assert client.models() == ["a", "b", "c"]
    assert server.requests[1].path == "/v1/models?limit=1000&after_id=b"
    for _ in range(2):  # a server that has always more of the same
        server.reply_json(first)
    with client_of("anthropic", server) as client:
        assert client.models() == ["a", "b"]


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ([{"id": "a"}, {"name": "b"}], ["a", "b"]),
        ({"data": []}, []),
        ({"data": [{"id": "a"}, None, 3, "b", {"id": ["x"]}, {"id": "a"}]}, ["a", "b"]),
    ],
)
def test_lists_of_other_shapes(server, answer, names):
    server.reply_json(answer)
    with client_of("openai", server) as client:
        assert client.models() == names


def test_a_client_that_asks_no_server_names_its_own():
    assert ScriptedClient("hi").models() == [ScriptedClient("hi").model]
