"""Where a log's server is: what URLs say, and how a server is found that is elsewhere by now."""

from __future__ import annotations

from typing import Callable

import pytest
import redis
import redis.backoff
import redis.connection
import redis.retry

from agentstream import ConfigError, LogError, RedisStore
from agentstream.events.redis.address import Address
from tests.kit.redis_server import log_name
from tests.kit.support import free_port


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://", "redis://localhost:6379"),
        ("redis://user:secret@h/2?ssl_x=secret", "redis://h:6379/2"),
        ("rediss://:secret@[::1]:7000/0", "rediss://[::1]:7000/0"),
        ("unix:///tmp/redis.sock?password=secret", "unix:///tmp/redis.sock"),
        ("redis://secret@a,b:7001/0", "redis://a:6379,b:7001/0"),
        ("redis+sentinel://u:secret@a,b:1/m", "redis+sentinel://a:26379,b:1/m"),
        ("rediss+sentinel://a/m/3?sentinel_password=secret", "rediss+sentinel://a:26379/m/3"),
    ],
)
def test_what_is_shown_of_a_url_is_no_secret(url: str, shown: str) -> None:
    assert Address(redis, url, 1.0).shown == shown


@pytest.mark.parametrize(
    "url",
    ["redis+sentinel://a:1", "http+sentinel://a/m", "redis://a,b:x/0", ","],
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="sentinel"):
        Address(redis, url, 1.0)


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:12/34@h/0",
        "redis://u:12?34@h/0",
        "redis://u:12#34@h/0",
        "redis://u:12/0?a=b&34@h",
        "redis+sentinel://u:12/34@h/m",
        "redis+sentinel://h/m/shop",
        "redis://h/shop",
        "rediss://h/-1",
        "redis://h/0#shop",
    ],
)
def test_k29_a_password_that_is_not_encoded_and_a_database_that_is_none_are_refused(
    url: str,
) -> None:
    with pytest.raises(ConfigError, match="percent-encoded") as refused:
        Address(redis, url, 1.0)
    assert "34" not in str(refused.value)
    assert "shop" not in str(refused.value)


def test_settings_of_the_url_are_the_connections() -> None:
    url = "redis+sentinel://me:pass@h/m/3?sentinel_username=s&sentinel_password=p&client_name=x"
    connection = Address(redis, url, 1.0).connection(2.0)
    assert (connection.db, connection.username, connection.password) == (3, "me", "pass")
    assert (connection.client_name, connection.socket_timeout) == ("x", 3.0)


def test_of_several_hosts_one_that_answers_is_taken(
    open_store: Callable[..., RedisStore],
) -> None:
    closed = free_port()
    port = open_store()._server._address.connection(0.0).port
    hosts = f"127.0.0.1:{closed},127.0.0.1:{closed},127.0.0.1:{port}"
    with RedisStore(f"redis://{hosts}/0", log_name(), timeout=1.0) as store:
        assert store.bounds() == (0, 0)
    with pytest.raises(LogError, match="cannot be reached") as caught:
        RedisStore(f"redis://127.0.0.1:{closed},127.0.0.1:{closed}/0", timeout=1.0)
    assert caught.value.retryable
    with pytest.raises(LogError, match="cannot be reached"):
        RedisStore(f"redis+sentinel://127.0.0.1:{closed}/m", timeout=1.0)
