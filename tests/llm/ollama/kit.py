"""A client of a ScriptedServer that plays Ollama, and the lines it may write."""

from __future__ import annotations

import json
from typing import Any

from agentstream import OllamaClient
from agentstream.llm.settings import Timeouts
from agentstream.testing import Reply, ScriptedServer
from tests.kit.support import KEY, NO_RETRIES, PATIENT

NDJSON = "application/x-ndjson"


def ollama_of(server: ScriptedServer, **settings: Any) -> OllamaClient:
    """A client with the marked key, patient and retrying not; clocks may be given by name."""
    clocks = {name: settings.pop(name) for name in vars(PATIENT) if name in settings}
    settings.setdefault("timeouts", Timeouts(**{**vars(PATIENT), **clocks}))
    settings.setdefault("retries", NO_RETRIES)
    settings.setdefault("api_key", KEY)
    settings.setdefault("model", "m")
    return OllamaClient(base_url=server.url, **settings)


def answer(*pieces: Any, **settings: Any) -> Reply:
    return Reply(*pieces, content_type=NDJSON, **settings)


def play(server: ScriptedServer, *pieces: Any, **settings: Any) -> None:
    """Queue an answer."""
    server.reply(*pieces, content_type=NDJSON, **settings)


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def said(content: str = "", **message: Any) -> bytes:
    """A line in mid-answer."""
    return line(model="m", message={"role": "assistant", "content": content, **message}, done=False)


def end(reason: str = "stop", **fields: Any) -> bytes:
    """The last line."""
    return line(model="m", message={"role": "assistant"}, done=True, done_reason=reason, **fields)
