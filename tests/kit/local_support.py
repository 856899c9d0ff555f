"""The embedded server, asked by hand."""

from __future__ import annotations

import http.client
import json
import os
from typing import Any, Dict
from urllib.parse import urlsplit

import pytest

from agentstream.local import LocalServer

posix_only = pytest.mark.skipif(os.name != "posix", reason="signals and process groups")
BOUND = 10.0  # seconds; far more than any of it takes


def ask(server: LocalServer, text: str, key: str = "", **fields: Any) -> Dict[str, Any]:
    """One answer, unstreamed, with nothing of ours between."""
    body = {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 12}
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    try:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        path = "/v1/chat/completions"
        connection.request("POST", path, json.dumps({**body, **fields}), headers)
        answer: Dict[str, Any] = json.loads(connection.getresponse().read())
        return answer
    finally:
        connection.close()
