"""Calls that fail: over a server, and as one answer becomes an error."""

from __future__ import annotations

import json

from agentstream.llm import failures
from agentstream.llm.secrets import Redactor
from agentstream.llm.settings import Retries
from tests.kit.support import ask, client_of

TWICE = Retries(2, backoff=0.01)


def asked(server, *pieces, retries=TWICE, **reply):
    """What a client makes of an answer of `pieces`, a good one waiting behind it."""
    server.reply(*pieces, **reply)
    server.reply_text("Good.")
    with client_of(server, retries=retries) as client:
        return ask(client)


def status_error(status, body="", headers=None, *, keys=()):
    text = body if isinstance(body, str) else json.dumps(body)
    return failures.status_error(status, headers or {}, text, redact=Redactor(keys), now=0.0)
