"""agentstream models; the flags that choose what is spoken: --api, --think-tags."""

from __future__ import annotations

import json

import pytest

from agentstream.testing import messages_chunks, responses_chunks, text_chunks

LIST = {"object": "list", "data": [{"id": "small"}, {"id": "large\x1b[2J"}]}


@pytest.mark.parametrize(
    ("provider", "path", "answer"),
    [
        ("llama", "/v1/models", LIST),
        ("openai", "/models", LIST),
        ("anthropic", "/v1/models?limit=1000", LIST),
        ("ollama", "/api/tags", {"models": [{"name": "small"}, {"name": "large\x1b[2J"}]}),
    ],
)
def test_the_models_of_a_server(here, server, provider, path, answer):
    server.reply_json(answer)
    done = here("models", "--provider", provider)
    assert (done.out, done.err) == ("small\nlarge[2J\n", "")
    server.reply_json(answer)
    done = here("models", "--provider", provider, "--json")
    assert json.loads(done.out) == ["small", "large\x1b[2J"]
    assert [request.path for request in server.requests] == [path, path]


def test_a_server_without_a_list(here, server):
    server.reply_json({"error": {"message": "no such page"}}, status=404)
    done = here("models", code=1)
    said = f"BadRequest: HTTP 404: no such page, from {server.url}/v1/models"
    assert (done.out, done.line) == ("", said)


def test_the_api_is_chosen(here, server, monkeypatch):
    server.reply(*responses_chunks("By responses."))
    done = here("chat", "hi", "--provider", "openai", "--model", "m", "--api", "responses")
    assert done.out == "By responses.\n"
    assert server.requests[0].path == "/responses"
    monkeypatch.setenv("AGENTSTREAM_API", "chat")
    server.reply(*text_chunks("By chat."))
    done = here("chat", "hi", "--provider", "openai", "--model", "m")
    assert done.out == "By chat.\n"
    assert server.requests[1].path == "/chat/completions"
    done = here("chat", "hi", "--provider", "openai", "--api", "other", code=2)
    assert "--api must be one of auto, responses, chat" in done.err
    # it is another provider's: refused where it was said, passed over where it stands for others
    done = here("chat", "hi", "--api", "chat", code=2)
    assert "--api is no setting of llama" in done.err
    server.reply(*messages_chunks("By messages."))
    assert here("chat", "hi", "--provider", "anthropic").out == "By messages.\n"


def test_tags_of_thinking(here, server):
    server.reply(*text_chunks("<think>Hm.</think>Yes."))
    assert here("chat", "hi", "--think-tags").out == "Yes.\n"
    server.reply(*text_chunks("<think>Hm.</think>Yes."))
    assert here("chat", "hi").out == "<think>Hm.</think>Yes.\n"
    assert "no setting of" in here("chat", "hi", "--think-tags", "--provider", "ollama", code=2).err


def test_flags_of_clients_are_refused_where_a_file_has_its_own(here, cli):
    flow = cli.write(
        "own.toml",
        '[clients.c]\nprovider = "llama"\n[agents.a]\nclient = "c"\n[[steps]]\nagent = "a"\n',
    )
    for flag in (["--api", "chat"], ["--think-tags"]):
        done = here("run", flow, "--input", "x", *flag, code=2)
        assert f"{flag[0]}: " in done.err
        assert "clients of its own" in done.err
