"""Fixtures for pytest: `scripted_server`, `scripted_tls_server`, `recorder`; `--record`.

Use them with `pytest_plugins = ["agentstream.testing.pytest_plugin"]` in the
top conftest.py.  The only file of this package that needs pytest.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any, Callable, Iterator, Optional

import pytest

from agentstream.llm.client import ChatClient
from agentstream.testing import ScriptedServer
from agentstream.testing.recorder import Recorder

__all__ = ["recorder", "scripted_server", "scripted_tls_server"]


def pytest_addoption(parser: Any) -> None:
    """Add `--record` and `--record-new`."""
    group = parser.getgroup("agentstream")
    group.addoption(
        "--record",
        action="store_true",
        help="have the fixture `recorder` ask servers, and write its cassettes anew",
    )
    group.addoption(
        "--record-new",
        action="store_true",
        help="the same, but only for requests that its cassettes do not hold",
    )


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


@pytest.fixture
def recorder(request: Any) -> Iterator[Callable[..., Recorder]]:
    """A function that makes a `Recorder` of a client: `recorder(client)`.

    Its cassette is cassettes/MODULE/TEST.jsonl beside the test's file; `recorder(client,
    "name")` makes it cassettes/MODULE/TEST-name.jsonl.  Recorders replay, or record with
    `--record` or `--record-new`, and are closed when the test ends; further keywords are
    `Recorder`'s.
    """
    path = request.path
    option = request.config.getoption
    record = option("--record") or ("new" if option("--record-new") else False)
    stem = re.sub(r"[^\w.-]+", "_", request.node.name)

    with contextlib.ExitStack() as stack:

        def make(client: Optional[ChatClient] = None, name: str = "", **settings: Any) -> Recorder:
            file = f"{stem}-{name}.jsonl" if name else f"{stem}.jsonl"
            at = path.parent / "cassettes" / path.stem / file
            return stack.enter_context(Recorder(at, client, **{"record": record, **settings}))

        yield make
