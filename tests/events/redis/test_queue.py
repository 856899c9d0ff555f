"""Runs that are queued while the way to the server breaks, and as durably as was asked for."""

from __future__ import annotations

import time
from typing import Callable

import pytest

from agentstream import LogError, RedisStore
from agentstream.testing import TCPProxy
from tests.kit.redis_server import RedisServer


def test_k03_one_that_is_queued_as_the_link_is_cut_after_the_request_is_there_once(
    redis: RedisServer, open_store: Callable[..., RedisStore]
) -> None:
    with TCPProxy(redis.port) as proxy:
        url = redis.url.replace(str(redis.port), str(proxy.port))
        store = open_store(url=url)
        for number in range(30):
            cuts = proxy.cuts
            proxy.cut_after_request = lambda _, known=cuts: proxy.cuts == known
            store.checkpoints.queue(f"run-{number}", "reply", {"a": b"1"})
            assert proxy.cuts == cuts + 1
            if number % 2:  # the next one is the first on its connection
                proxy.cut()
        proxy.cut_after_request = None
        store.close()
    store = open_store()
    assert len(store.runs()) == 30
    assert len(store.checkpoints.take_due(["reply"])) == 30
    with pytest.raises(LogError, match="has a log already"):
        store.checkpoints.queue("run-1", "reply", {})


def test_k07_a_run_is_queued_as_durably_as_events_are_appended(
    open_store: Callable[..., RedisStore],
) -> None:
    store = open_store(durability="replicated", timeout=1.0)  # there is no replica
    began = time.monotonic()
    with pytest.raises(LogError, match="not as safely") as unsafe:
        store.checkpoints.queue("run", "reply", {})
    assert (unsafe.value.outcome, unsafe.value.retryable) == ("unknown", True)
    assert time.monotonic() - began < 5.0


def test_k12_the_id_of_one_that_is_queued_is_nobodys_to_begin(
    open_store: Callable[..., RedisStore],
) -> None:
    store = open_store()
    store.checkpoints.queue("run", "reply", {"a": b"1"})
    for one in (store, open_store()):
        with pytest.raises(LogError, match="has a log already"):
            one.claim("run")
    assert store.checkpoints.resume("run").records == {"a": b"1"}
    with pytest.raises(LogError, match="another owner"):
        open_store().claim("run")
