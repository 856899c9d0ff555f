"""Fixtures for pytest: `scripted_server`, `scripted_tls_server`, `recorder`; `--record`.

Use them with `pytest_plugins = ["agentstream.testing.pytest_plugin"]` in the
top conftest.py.  The only file of this package that needs pytest.
"""

from __future__ import annotations

import contextlib
import re
import zlib
from typing import Any, Callable, Iterator, Optional, Set

import pytest

from agentstream.errors import ConfigError
from agentstream.llm.client import ChatClient
from agentstream.testing import ScriptedServer
from agentstream.testing.recorder import Recorder

__all__ = ["recorder", "scripted_server", "scripted_tls_server"]

#: Bytes of a test's name in its cassette's.
_MOST_STEM = 150


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

    Its cassette is cassettes/MODULE/TEST.jsonl beside the test's file, CLASS.TEST.jsonl for a
    test of a class; a second one of a test needs a name: `recorder(client, "name")` makes it
    cassettes/MODULE/TEST-name.jsonl.  Recorders replay, or record with
    `--record` or `--record-new`, and are closed when the test ends; further keywords are
    `Recorder`'s.
    """
    path = request.path
    option = request.config.getoption
    record = option("--record") or ("new" if option("--record-new") else False)
    stem = _stem(request.node)
    made: Set[str] = set()

    with contextlib.ExitStack() as stack:

        def make(client: Optional[ChatClient] = None, name: str = "", **settings: Any) -> Recorder:
            file = f"{stem}-{name}.jsonl" if name else f"{stem}.jsonl"
            if file in made:
                raise ConfigError(
                    f"this test has a recorder of {file} already: name this one,"
                    ' recorder(client, "name")'
                )
            made.add(file)
            at = path.parent / "cassettes" / path.stem / file
            return stack.enter_context(Recorder(at, client, **{"record": record, **settings}))

        yield make


def _stem(node: Any) -> str:
    """A test's name as a file's; what that cannot hold of it is told by a checksum."""
    names = [each.name for each in node.listchain() if isinstance(each, pytest.Class)]
    whole = ".".join([*names, node.name])
    stem = re.sub(r"[^\w.-]+", "_", whole)
    if re.fullmatch(r"[\w.-]+(\[[\w.-]*\])?", whole) and len(stem.encode()) <= _MOST_STEM:
        return stem
    return f"{stem[: _MOST_STEM // 2]}-{zlib.crc32(whole.encode()):08x}"
