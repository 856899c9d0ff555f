"""What both test files of the clients need."""

from __future__ import annotations

import pytest

from agentstream.testing import text_chunks
from tests.kit.support import ask

ANSWER = text_chunks("Hello", ", ", "world")

#: Settings that no server need be there for.
ASIDE = {"base_url": "http://127.0.0.1:1"}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def body_of(server, client, prompt="hi"):
    server.reply(*ANSWER)
    result = ask(client, prompt)
    assert result.error is None
    return server.requests[-1].json
