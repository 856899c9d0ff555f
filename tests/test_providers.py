"""Providers: a name and settings become a client; what is taken where nothing is set."""

from __future__ import annotations

import ast
import inspect
import pathlib

import pytest

import agentstream
from agentstream import ConfigError, LlamaClient, OllamaClient, OpenAIClient, Timeouts
from agentstream.providers import EMBEDDED, NAMES, PROVIDERS, make_client

PACKAGE = pathlib.Path(agentstream.__file__).parent


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for provider in PROVIDERS.values():
        for name in filter(None, (provider.key_env, provider.url_env)):
            monkeypatch.delenv(name, raising=False)


def test_a_name_and_settings_become_a_client():
    with make_client("openai", api_key="k", model=None, base_url=None) as client:
        assert isinstance(client, OpenAIClient)
        assert client.model == "gpt-6-luna"
        assert "https://api.openai.com/v1" in repr(client)
    with make_client("llama", timeouts=Timeouts(total=5)) as client:
        assert isinstance(client, LlamaClient)
        assert (client.model, client.timeouts.total) == ("default", 5)
        assert "http://127.0.0.1:8080" in repr(client)
    with make_client(EMBEDDED, base_url="http://127.0.0.1:9", tool_mode="auto") as client:
        assert isinstance(client, LlamaClient)
    with make_client("ollama", model="m", num_ctx=8192) as client:
        assert isinstance(client, OllamaClient)
    with pytest.raises(ConfigError, match="ollama list"):
        make_client("ollama")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        make_client("openai")
    with pytest.raises(ConfigError, match=r"provider must be one of llama, openai, .*embedded"):
        make_client("none")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_of_a_provider_is_what_its_client_does(name):
    provider = PROVIDERS[name]
    named = {} if provider.model else {"model": "m"}
    with provider.make(api_key="k", **named) as client:
        parameters = inspect.signature(type(client)).parameters
        assert set(provider.own) <= set(parameters)
        default = parameters["model"].default
        if provider.model:
            assert client.model == provider.model == default
        else:
            assert default is inspect.Parameter.empty
        assert client.timeouts == provider.timeouts
        assert provider.base_url in repr(client)


def texts(path: pathlib.Path):
    """The texts of a file's code; docstrings are none."""
    tree = ast.parse(path.read_text("utf-8"))
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def test_a_default_stands_once():
    said = {
        str(path.relative_to(PACKAGE)): "\n".join(texts(path)) for path in PACKAGE.rglob("*.py")
    }
    for default in ("127.0.0.1:8080", "127.0.0.1:11434", "api.openai.com/v1", "gpt-"):
        files = [name for name, text in said.items() if default in text]
        assert files == ["llm/settings.py"], default
