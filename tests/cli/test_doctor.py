"""agentstream doctor: what would be used and why, whether it works, and no secret in any of it."""

from __future__ import annotations

import importlib.util
import json
import sys
import time

import pytest

from agentstream.testing import Gate, Reply, ScriptedServer
from tests.kit.support import KEY, PROMPT, hunt

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and modes of POSIX")


#: What is wrong with an embedded model that is not there.
EMBEDDED = (
    "there is no model x.gguf"
    if importlib.util.find_spec("xllamacpp")
    else "--provider embedded needs: pip install 'agentstream[local]'"
)


def listing(*names):
    body = json.dumps({"object": "list", "data": [{"id": name} for name in names]}).encode()
    return Reply(body, content_type="application/json")


@pytest.fixture
def models(server):
    """A server that lists two models."""
    for path in ("/v1/models", "/models"):
        server.route(path, lambda request: listing("m1", "m2"))
    return server


def report(here, *words, code=0):
    return json.loads(here("doctor", "--json", *words, code=code).out)


def test_it_says_what_would_be_used_and_where_that_comes_from(here, cli, models, monkeypatch):
    folder = cli.home / ".config/agentstream"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(f'model = "m2"\nsystem = "{PROMPT}"\nlog = "runs.db"\n')
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://user:{KEY}@127.0.0.1:9/v1?key={KEY}")
    monkeypatch.setenv("AGENTSTREAM_TOKEN", KEY)
    monkeypatch.setenv("AGENTSTREAM_CONFIG", str(folder / "config.toml"))
    found = report(here, "--provider", "openai")  # `here` hunts for the key and the prompt
    assert found["works"] is True
    assert found["advice"] == []
    config = str(folder / "config.toml")
    wanted = {
        "provider": ("openai", "--provider"),
        "model": ("m2", config),
        "base_url": (models.url, "AGENTSTREAM_BASE_URL"),
        "api_key": ("set", "AGENTSTREAM_API_KEY"),
        "system": (f"{len(PROMPT)} characters", config),
        "log": (str(folder / "runs.db"), config),
        "token": ("set", "AGENTSTREAM_TOKEN"),
        "config": (config, "AGENTSTREAM_CONFIG"),
        "OPENAI_API_KEY": ("set", "environment, of no use here"),
        "OPENAI_BASE_URL": ("http://127.0.0.1:9/v1", "environment, of no use here"),
    }
    assert found["settings"] == {
        name: {"value": value, "source": source} for name, (value, source) in wanted.items()
    }
    assert set(found["versions"]) == {
        "agentstream",
        "Python",
        "requests",
        "urllib3",
        "sseclient-py",
    }
    assert set(found["extras"]) == {"local", "server", "redis", "otel"}
    assert found["servers"][0]["state"] == "fine"
    assert [request.path for request in models.requests] == ["/models"]
    shown = here("doctor", "--provider", "openai").out
    assert "\nIt would work.\n" in shown
    assert f"  model       m2  ({config})\n" in shown
    # Nothing is made by looking.
    assert not (folder / "runs.db").exists()
    assert not (cli.home / ".local").exists()


@pytest.mark.parametrize(
    ("words", "env", "reply", "advice"),
    [
        (["--base-url", "http://127.0.0.1:9"], {}, None, "cannot connect to 127.0.0.1:9"),
        ([], {"AGENTSTREAM_RETRIES": "many"}, None, "AGENTSTREAM_RETRIES must be a number"),
        ([], {"AGENTSTREAM_CONFIG": "nowhere.toml"}, None, "AGENTSTREAM_CONFIG names nowhere.toml"),
        (["--model", "m3", "--provider", "openai"], {}, None, "'m3' is none of its 2 models"),
        (["--log", "no/such/runs.db"], {}, None, "/no/such cannot be written"),
        (["--log", "notes.txt"], {}, None, "notes.txt"),
        ([], {}, Reply(b"no", status=401, content_type="text/plain"), "HTTP 401"),
        ([], {}, Reply(b"no", status=500, content_type="text/plain"), "HTTP 500"),
        (
            ["--provider", "openai"],
            {"AGENTSTREAM_API_KEY": "", "AGENTSTREAM_BASE_URL": ""},
            None,
            "OpenAI needs a key: set OPENAI_API_KEY",
        ),
        (["--provider", "embedded", "--model", "x.gguf"], {}, None, EMBEDDED),
    ],
)
def test_what_would_not_work_is_told_with_what_to_do(
    here, cli, models, monkeypatch, words, env, reply, advice
):
    cli.write("notes.txt", "no log at all")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    if reply is not None:
        models.route("/v1/models", lambda request: reply)
    found = report(here, *words, code=1)
    assert found["works"] is False
    assert any(advice in line for line in found["advice"]), found["advice"]
    assert f"  - {found['advice'][0]}" in here("doctor", *words, code=1).out


def test_an_embedded_model_to_fall_back_to_is_looked_at_and_not_started(here, cli, models):
    pytest.importorskip("xllamacpp")
    cli.write("x.gguf", "no model")
    found = report(here, "--fallback", "embedded:x.gguf", "--fallback", f"llama@{models.url}")
    assert sorted(one["what"] for one in found["servers"]) == [
        f"'default' at {models.url}",
        f"'default' at {models.url}",
        "embedded",
    ]
    assert {one["state"] for one in found["servers"]} == {"fine"}
    found = report(here, "--fallback", "embedded:y.gguf", code=1)
    assert any("y.gguf" in line for line in found["advice"])


def test_offline_asks_nobody_and_a_model_that_is_not_listed_may_do(here, models):
    found = report(here, "--offline")
    assert [finding["said"] for finding in found["servers"]] == ["not asked"]
    assert models.requests == []
    found = report(here, "--model", "m3")  # llama-server has one model, whatever it is called
    assert found["servers"][0] == {
        "state": "note",
        "what": f"'m3' at {models.url}",
        "said": "'m3' is none of its 2 models",
    }
    models.route("/v1/models", lambda request: Reply(b"", status=404, content_type="text/plain"))
    assert report(here)["servers"][0]["said"] == "answers, and has no list of models"


def test_one_that_works_of_several_will_do(here, models):
    other = f"llama:m@{models.url}"
    found = report(here, "--base-url", "http://127.0.0.1:9", "--fallback", other)
    assert [finding["state"] for finding in found["servers"][:2]] == ["fault", "note"]


def test_servers_are_asked_at_the_same_time_and_silent_ones_are_left(here, monkeypatch):
    monkeypatch.setattr("agentstream.cli.examine._PATIENCE_S", 1.0)
    gate = Gate()
    with ScriptedServer() as one, ScriptedServer() as other:
        for server in (one, other):
            server.route("/v1/models", lambda request: Reply(gate, b"{}"))
        began = time.monotonic()
        words = ("--base-url", one.url, "--fallback", f"llama:m@{other.url}")
        found = report(here, *words, code=1)
        assert time.monotonic() - began < 1.9  # and not one after the other
        assert [f["said"] for f in found["servers"]] == ["has not answered within 1 s"] * 2
        gate.open()


def test_ctrl_c_ends_it_at_once(cli, server):
    gate = Gate()
    server.route("/v1/models", lambda request: Reply(gate, b"{}"))
    asking = cli.start("doctor")
    deadline = time.monotonic() + 10
    while not server.requests and time.monotonic() < deadline:
        asking._pump(0.02)
    asking.send(2)
    sent = time.monotonic()
    assert asking.finish() == 130
    assert asking.line == "stopped by Ctrl-C"
    assert asking.ended - sent < 3  # not the five seconds of its patience
    hunt(asking.shown)
    gate.open()
