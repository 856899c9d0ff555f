"""Jobs over each kind of store, and over one log in several stores."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Iterator

import pytest

from agentstream import EventStream, MemoryStore, RedisStore, Runtime, SqliteStore, Workflow
from agentstream.events.store import EventStore
from agentstream.jobs import Jobs
from tests.kit.redis_server import RedisServer, log_name


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def maker(kind: str, request: pytest.FixtureRequest) -> Callable[[], EventStore]:
    """Makes stores of a kind, on one log but for those in memory."""
    if kind == "memory":
        return MemoryStore
    if kind == "sqlite":
        path = request.getfixturevalue("tmp_path") / "runs.db"
        return lambda: SqliteStore(path)
    url, name = request.getfixturevalue("redis").url, log_name()
    return lambda: RedisStore(url, name, lease=1.0)


@pytest.fixture(params=["sqlite", "redis"])
def shared(request: pytest.FixtureRequest) -> Callable[[], EventStore]:
    return maker(request.param, request)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def open_store(request: pytest.FixtureRequest) -> Callable[[], EventStore]:
    return maker(request.param, request)


@pytest.fixture
def jobs_of() -> Iterator[Callable[..., Jobs]]:
    """Makes `Jobs` over a store; their runtimes are shut down at the end."""
    with contextlib.ExitStack() as stack:

        def make(store: EventStore, *steps: Any, name: str = "reply", **options: Any) -> Jobs:
            runtime = Runtime(event_stream=EventStream(store), grace=1.0)
            stack.callback(runtime.shutdown, cancel=True)
            return Jobs(runtime, [Workflow(name, list(steps) or [str.upper])], **options)

        yield make
