"""URLs, keys and headers that are refused, and what is shown of them."""

from __future__ import annotations

import pytest

from agentstream import errors
from agentstream.llm.clients import LlamaClient, OpenAIClient
from tests.kit.client_support import ANSWER, ASIDE, body_of, no_environment  # noqa: F401
from tests.kit.support import hunt


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
