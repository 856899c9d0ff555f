"""The session's real llama.cpp, as a fixture; imported by conftest.py.

Where it cannot be had the tests that ask for it are skipped with the reason, but
on CI they fail: a part that CI does not see is a part that nobody tests.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Iterator

import pytest

from agentstream.errors import ConfigError
from agentstream.local import LocalServer, tool_template

__all__ = ["llama_server", "llama_tool_server", "without_llama"]


def without_llama(reason: str) -> None:
    """Skip this test, or fail it on CI."""
    if os.environ.get("CI"):
        pytest.fail(f"no llama.cpp on CI: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def llama_server() -> Iterator[LocalServer]:
    """A running `LocalServer` with SmolLM2-135M-Instruct, one for the whole session."""
    yield from _running()


@pytest.fixture(scope="session")
def llama_tool_server() -> Iterator[LocalServer]:
    """The same with a chat template that knows tools."""
    yield from _running(chat_template=tool_template())


def _running(**settings: Any) -> Iterator[LocalServer]:
    if sys.version_info < (3, 10):
        pytest.skip("xllamacpp needs Python 3.10")
    try:
        server = LocalServer(**settings)
    except ConfigError as error:
        without_llama(str(error))
    else:
        with server:
            yield server
