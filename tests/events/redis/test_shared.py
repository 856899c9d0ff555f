"""The published conformance suite of logs that processes share, held against RedisStore."""

from __future__ import annotations

import contextlib
import functools
import itertools
from typing import Callable, Iterator

import pytest

from agentstream import RedisStore
from agentstream.events.redis.scripts import APPEND
from agentstream.events.store import EventStore
from agentstream.testing import SharedStoreConformance, TCPProxy
from tests.kit.redis_server import RedisServer, log_name


class TestRedisStoreShared(SharedStoreConformance):
    lease = 1.2

    @pytest.fixture(autouse=True)
    def _way(self, redis: RedisServer) -> Iterator[None]:
        with TCPProxy(redis.port) as self.proxy:
            yield

    def make_opener(self) -> Callable[[], EventStore]:
        url = f"redis://127.0.0.1:{self.proxy.port}/0"
        return functools.partial(RedisStore, url, log_name(), lease=self.lease, timeout=1.0)

    @contextlib.contextmanager
    def trouble(self) -> Iterator[None]:
        """All is written that is sent, and the answers are lost, or late."""
        turns = itertools.count()
        self.proxy.cut_after_request = lambda sent: APPEND.sha in sent and next(turns) < 3
        self.proxy.hold(replies=True)
        yield
        self.proxy.release()
