"""Fixtures for pytest: `scripted_server` and `scripted_tls_server`, a fresh one a test.

Use them with `pytest_plugins = ["agentstream.testing.pytest_plugin"]` in the
top conftest.py.  The only file of this package that needs pytest.
"""

from __future__ import annotations

from typing import Iterator

import pytest

from agentstream.testing import ScriptedServer

__all__ = ["scripted_server", "scripted_tls_server"]


@pytest.fixture
def scripted_server() -> Iterator[ScriptedServer]:
    """A ScriptedServer; closed when the test ends."""
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def scripted_tls_server() -> Iterator[ScriptedServer]:
    """A ScriptedServer with TLS; verify against its `ca_file`."""
    with ScriptedServer(tls=True) as server:
        yield server
