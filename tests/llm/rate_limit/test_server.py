"""A rate limit on a Redis server, which machines share."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any, Iterator, List

import pytest

from agentstream import Cancelled, CancelToken, ConfigError, RateLimit
from stress.rate_limit import play
from tests.kit.redis_server import RedisServer, log_name

SECRET = "hunter2-is-no-word"


def told(caplog: Any) -> List[str]:
    """The warnings."""
    return [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.mark.parametrize(
    "path",
    ["redis://h:port/0", "redis://h/0?no_such=1", "redis://[::1", "redis://u:1/2@h:port/0"],
)
def test_a_url_that_is_none_is_a_config_error(path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RateLimit(1, path=path)
    assert caught.value.setting == "path"
    assert "h:port" not in str(caught.value)


def test_processes_hold_a_limit_there(redis: RedisServer) -> None:
    for _ in range(3):  # a busy machine may come late
        tally = play(50, 1.0, 2.0, 12, 2, f"{redis.url}#{log_name()}")
        assert tally.left == 0
        if 97 <= len(tally.times) <= 103 and tally.most <= 53 and min(tally.by_thread) >= 3:
            return
    raise AssertionError(f"{len(tally.times)} of 100, {tally.most} of 50, {tally.by_thread}")


def test_a_url_names_a_limit_and_one_is_nothing_to_another(redis: RedisServer) -> None:
    name = log_name()
    with RateLimit(1, path=f"{redis.url}#{name}-a") as one:
        with (
            RateLimit(1, path=f"{redis.url}#{name}-b") as other,
            RateLimit(1, path=redis.url) as third,
        ):
            for limit in (one, other, third):
                limit.take()
    key = f"agentstream:{{{name}-a}}:rate_limit"
    assert 0 < int(redis.say("PTTL", key).decode().strip(":\r\n")) < 200_000  # nothing stays


def test_a_server_that_is_not_there_is_told_once_without_its_password(caplog: Any) -> None:
    with RateLimit(1, per=0.4, path=f"redis://me:{SECRET}@127.0.0.1:1/0#x") as limit:
        began = time.monotonic()
        limit.take()
        limit.take()
        assert 0.38 < time.monotonic() - began < 2
    assert len(told(caplog)) == 1
    assert "'x' at redis://127.0.0.1:1/0 cannot be reached" in caplog.text
    assert SECRET not in caplog.text + repr(limit)


def test_a_password_that_is_wrong_is_told_as_that(caplog: Any) -> None:
    with RedisServer("requirepass", "right") as server:
        url = server.url.replace("//", f"//:{SECRET}@")
        with RateLimit(1, path=url) as limit:
            limit.take()
    assert "refused the user or the password" in caplog.text
    assert SECRET not in caplog.text


def test_a_cancel_ends_a_wait_for_a_server_that_hangs(redis: RedisServer, caplog: Any) -> None:
    with RateLimit(10, path=f"{redis.url}#{log_name()}") as limit:
        limit.take()
        redis.freeze()
        try:
            stop = CancelToken()
            threading.Timer(0.1, stop.cancel).start()
            began = time.monotonic()
            with pytest.raises(Cancelled):
                limit.take(cancel=stop)
            assert time.monotonic() - began < 0.5
            assert told(caplog) == []
            limit.take()  # after a second, without it
            assert time.monotonic() - began < 5
        finally:
            redis.thaw()
    assert "does not answer" in caplog.text


def test_a_connection_that_was_cut_is_made_again(redis: RedisServer, caplog: Any) -> None:
    with RateLimit(10, path=f"{redis.url}#{log_name()}") as limit:
        limit.take()
        redis.say("CLIENT", "KILL", "TYPE", "normal")
        limit.take()
    assert told(caplog) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_a_connection_of_its_own(redis: RedisServer) -> None:
    with RateLimit(100, path=f"{redis.url}#{log_name()}") as limit:
        limit.take()
        child = os.fork()
        if not child:
            try:
                limit.take()
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        for _ in range(3):
            limit.take()
