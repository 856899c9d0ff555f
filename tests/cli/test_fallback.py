"""`--fallback`: who is asked where the first client fails."""

from __future__ import annotations

import argparse

import pytest

from agentstream.cli.fallback import Named, named_in, tell_earlier
from agentstream.errors import ConfigError, RateLimited, ServerError, WorkflowFailed
from agentstream.testing import ScriptedServer


def test_what_may_be_named():
    rows = (
        ("llama", ("llama", None, None)),
        ("openai:gpt-x", ("openai", "gpt-x", None)),
        ("ollama:qwen3:8b", ("ollama", "qwen3:8b", None)),
        ("openai:a@b", ("openai", "a@b", None)),
        ("llama@http://h:1/v1", ("llama", None, "http://h:1/v1")),
        ("openai:a@b@https://h", ("openai", "a@b", "https://h")),
        ("embedded", ("embedded", None, None)),
    )
    for given, named in rows:
        assert named_in([given]) == [Named(*named)]


def test_what_may_not():
    for given in ("", "foo", "openai@ftp://h", "ollama", "openai@http://u:MARKEDKEY@h",
                  "openai@http://h?key=MARKEDKEY", "embedded@http://h", "llama@http://"):  # fmt: skip
        with pytest.raises(ConfigError) as found:
            named_in([given])
        assert "MARKEDKEY" not in str(found.value)


def test_the_last_error_tells_of_those_before_it_through_its_causes():
    last = ServerError("HTTP 503: no", status=503)
    last.earlier = (RateLimited("HTTP 429: slow", status=429),)
    failed = WorkflowFailed("run r failed")
    failed.__cause__ = last
    tell_earlier(failed)
    assert str(failed) == "run r failed; asked before it: RateLimited: HTTP 429: slow"
    tell_earlier(plain := ValueError("x"))
    assert str(plain) == "x"


def test_chat_asks_the_next_one_and_json_says_who_answered(here, server):
    with ScriptedServer() as other:
        server.default(status=503)
        other.default(b'data: {"choices":[{"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n')
        done = here("chat", "x", "--json", "--fallback", f"llama:m2@{other.url}")
        (answer,) = done.events
        assert (answer["content"], answer["provider"], answer["model"]) == ("hi", "llama.cpp", "m2")
        assert "authorization" not in {name.lower() for name, _ in other.requests[0].headers.pairs}
        told = here("chat", "x", "-v", "--fallback", f"llama:m2@{other.url}")
        assert "failed: HTTP 503" in told.err
        assert "asking llama.cpp m2" in told.err


def test_both_down_is_one_line_that_tells_of_both(here, server):
    with ScriptedServer() as other:
        server.default(status=503)
        other.default(status=500)
        done = here("chat", "x", "--retries", "0", "--fallback", f"llama@{other.url}", code=1)
        assert len(done.err.strip().splitlines()) == 1
        assert "HTTP 500" in done.err
        assert "asked before it: ServerError: HTTP 503" in done.err
        assert (len(server.requests), len(other.requests)) == (1, 1)


def test_the_environment_and_the_config_file_name_them_too(monkeypatch, tmp_path):
    from agentstream.cli.settings import setting  # noqa: PLC0415

    path = tmp_path / "config.toml"
    monkeypatch.setenv("AGENTSTREAM_CONFIG", str(path))
    path.write_text('fallback = ["llama", "openai:x"]')
    assert setting(argparse.Namespace(), "fallback") == ["llama", "openai:x"]
    monkeypatch.setenv("AGENTSTREAM_FALLBACK", "llama, ollama:q")
    assert setting(argparse.Namespace(), "fallback") == ["llama", "ollama:q"]
    for text in ('fallback = "llama"', "fallback = [1]", 'fallback = ["foo"]'):
        path.write_text(text)
        monkeypatch.delenv("AGENTSTREAM_FALLBACK", raising=False)
        with pytest.raises(ConfigError):
            setting(argparse.Namespace(), "fallback")
