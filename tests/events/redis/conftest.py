"""One redis-server for the tests that only need some; each test has a log of its own."""

from __future__ import annotations

from typing import Any, Callable, Iterator

import pytest

from agentstream import RedisStore
from tests.kit.redis_server import RedisServer, log_name


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def open_store(redis: RedisServer) -> Iterator[Callable[..., RedisStore]]:
    """Opens stores on one log that is this test's own, and closes them."""
    name = log_name()
    stores = []

    def open_one(**options: Any) -> RedisStore:
        stores.append(RedisStore(options.pop("url", redis.url), name, **options))
        return stores[-1]

    yield open_one
    for store in reversed(stores):
        store.close()
