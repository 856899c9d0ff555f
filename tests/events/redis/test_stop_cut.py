"""A request to stop a run that nobody has, while the way to the server breaks."""

from __future__ import annotations

from typing import Callable

import pytest

from agentstream import Busy, LogError, RedisStore
from agentstream.events.model import EventType
from agentstream.events.redis.run_scripts import STOP
from agentstream.testing import TCPProxy
from tests.kit.redis_server import RedisServer
from tests.kit.support import wait_until


def _status(store: RedisStore, run: str) -> str:
    state = store.run(run)
    assert state is not None
    return state.status


def test_k03_a_stop_whose_answer_is_lost_ends_the_run(
    redis: RedisServer, open_store: Callable[..., RedisStore], caplog: pytest.LogCaptureFixture
) -> None:
    with TCPProxy(redis.port) as proxy:
        store = open_store(url=redis.url.replace(str(redis.port), str(proxy.port)))
        for number in range(3):  # the server does not know the script at first
            run = f"run-{number}"
            store.checkpoints.queue(run, "reply", {"a": b"1"})
            cuts = proxy.cuts
            proxy.cut_after_request = lambda _, known=cuts: proxy.cuts == known
            assert store.request_stop(run, "the user")
            assert proxy.cuts == cuts + 1
            assert _status(store, run) == "cancelled"
            assert [event.type for event in store.read(workflow_id=run)] == [
                EventType.WORKFLOW_CANCELLED
            ]
        store.close()
    assert "ended by somebody else" not in caplog.text


def test_k04_a_stop_that_is_not_answered_in_time_ends_the_run_later(
    redis: RedisServer, open_store: Callable[..., RedisStore]
) -> None:
    with TCPProxy(redis.port) as proxy:
        url = redis.url.replace(str(redis.port), str(proxy.port))
        store = open_store(url=url, timeout=0.3, lease=1.0)
        for run in ("one", "two"):
            store.checkpoints.queue(run, "reply", {"a": b"1"})
        assert store.request_stop("one", "the user")
        proxy.hold(replies=True)
        with pytest.raises(LogError, match="does not answer|cannot be reached"):
            store.request_stop("two", "the user")
        proxy.release()
        other = open_store()
        wait_until(lambda: _status(other, "two") == "cancelled")
        store.close()


def test_k23_a_run_that_this_process_is_about_to_end_is_not_taken_by_it(
    open_store: Callable[..., RedisStore],
) -> None:
    store = open_store(lease=1.0)
    store.checkpoints.queue("run", "reply", {"a": b"1"})
    owner, beat = store._committer.owner, store._owners.beat
    store._server.run(STOP, store._committer.log_id, owner, beat, "run", "the user")
    with pytest.raises(Busy, match="under way here"):
        store.checkpoints.resume("run")
    assert store.request_stop("run", "the user")
    assert [event.type for event in store.read(workflow_id="run")] == [EventType.WORKFLOW_CANCELLED]


def test_a_store_that_is_closed_amid_a_stop_leaves_the_run_to_others_and_nothing_of_itself(
    open_store: Callable[..., RedisStore],
) -> None:
    store, other = open_store(), open_store()
    store.checkpoints.queue("run", "reply", {"a": b"1"})
    owner, beat = store._committer.owner, store._owners.beat
    store._server.run(STOP, store._committer.log_id, owner, beat, "run", "the user")
    store._owners.enter()
    store.close()
    assert _status(other, "run") == "interrupted"
    (left,) = other._server.call((b"EXISTS", other._server.prefix + b"ends:" + owner.encode()))
    assert left == 0
    assert other.request_stop("run", "the user")
    assert _status(other, "run") == "cancelled"
