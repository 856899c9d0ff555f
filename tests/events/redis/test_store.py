"""The published conformance suites, held against RedisStore."""

from __future__ import annotations

from typing import Callable

import pytest

from agentstream import RedisStore
from agentstream.events.store import EventStore
from agentstream.testing import CheckpointConformance, QueueConformance, StoreConformance


class TestRedisStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def _opener(self, open_store: Callable[..., RedisStore]) -> None:
        self._open = open_store

    def make_store(self) -> EventStore:
        return self._open()


class TestRedisCheckpoints(CheckpointConformance):
    @pytest.fixture(autouse=True)
    def _opener(self, open_store: Callable[..., RedisStore]) -> None:
        self._open = open_store

    def make_store(self) -> EventStore:
        return self._open()


class TestRedisQueue(QueueConformance):
    @pytest.fixture(autouse=True)
    def _opener(self, open_store: Callable[..., RedisStore]) -> None:
        self._open = open_store

    def make_store(self) -> EventStore:
        return self._open()
