"""Fetches what tests need of the network before they run: the model, the official MCP servers.

    python -m tests.kit.fetch

Where it is not run a test fetches what it needs, but only once: a registry that is slow for
a moment would be a test that fails.
"""

from __future__ import annotations

import sys
from typing import Callable, Dict

import pytest

from agentstream import CancelToken, ConfigError
from agentstream.local.model import fetch_model
from tests.kit.mcp_support import conformance_command, everything_command, sdk_command

FETCHED: Dict[str, Callable[[], object]] = {
    "the model": fetch_model,
    "the MCP SDK for Python": sdk_command,
    "the MCP server that has everything": everything_command,
    "the MCP conformance suite": conformance_command,
}


def fetched(what: str) -> bool:
    """True once it is there, or cannot be on this machine; tries three times."""
    for wait in (5.0, 20.0, 0.0):
        try:
            FETCHED[what]()
            return True
        except pytest.skip.Exception as reason:
            print(f"fetch: {what}: {reason}")
            return True
        except (ConfigError, pytest.fail.Exception) as reason:
            print(f"fetch: {what}: {reason}", flush=True)
            CancelToken().wait(wait)
    return False


if __name__ == "__main__":
    had = [fetched(what) for what in FETCHED]
    sys.exit(0 if all(had) else 1)
