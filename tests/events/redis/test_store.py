"""The published conformance suites, held against RedisStore as the user that docs/redis.rst makes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agentstream import RedisStore
from agentstream.events.store import EventStore
from agentstream.testing import CheckpointConformance, QueueConformance, StoreConformance
from tests.kit.redis_server import RedisServer, log_name

DOCS = Path(__file__).resolve().parents[3] / "docs" / "redis.rst"


class Tenant:
    """A log of its own for each test, and a user who may use that one only: K30."""

    @pytest.fixture(autouse=True)
    def _user(self, redis: RedisServer) -> None:
        self.name = log_name()
        (line,) = re.findall(r"^    (ACL SETUSER shop .*)$", DOCS.read_text("utf-8"), re.MULTILINE)
        assert redis.say(*line.replace("shop", self.name).split()) == b"+OK\r\n"
        self.url = f"redis://{self.name}:SECRET@127.0.0.1:{redis.port}/0"

    def make_store(self) -> EventStore:
        return RedisStore(self.url, self.name)


class TestRedisStore(Tenant, StoreConformance):
    pass


class TestRedisCheckpoints(Tenant, CheckpointConformance):
    pass


class TestRedisQueue(Tenant, QueueConformance):
    pass
