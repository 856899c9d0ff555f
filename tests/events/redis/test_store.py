"""The published conformance suites, held against RedisStore."""

from __future__ import annotations

from typing import Callable

import pytest

from agentstream import RedisStore
from agentstream.events.store import EventStore
from agentstream.testing import CheckpointConformance, QueueConformance, StoreConformance


class RedisLogs:
    """What the suites are told: a log of its own for each test."""

    @pytest.fixture(autouse=True)
    def _opener(self, open_store: Callable[..., RedisStore]) -> None:
        self._open = open_store

    def make_store(self) -> EventStore:
        return self._open()


class TestRedisStore(RedisLogs, StoreConformance):
    pass


class TestRedisCheckpoints(RedisLogs, CheckpointConformance):
    pass


class TestRedisQueue(RedisLogs, QueueConformance):
    pass
