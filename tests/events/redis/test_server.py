"""The server of a log: what is refused when it is opened, and that no text holds a secret."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from typing import Any, Callable, List

import pytest

import agentstream
from agentstream import ConfigError, EventStream, EventType, LogError, RedisStore
from agentstream.testing.stores import event
from tests.kit.redis_server import RedisServer, free_port, log_name
from tests.kit.support import wait_until

SECRET = "hunter2-is-no-word"


def texts(error: BaseException) -> str:
    """All that a traceback shows of an error."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


@pytest.mark.parametrize(
    "url",
    ["", "http://host/0", "redis://host:port/0", "redis://h/0?no_such_setting=1", 7, None],
)
def test_a_url_that_is_none_is_a_config_error(url: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        RedisStore(url)
    assert caught.value.setting == "url"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("log", ""),
        ("log", "a{b}"),
        ("log", 5),
        ("durability", "high"),
        ("max_events", 0),
        ("max_age", -1),
        ("max_bytes", 0),
        ("max_event_bytes", 10),
        ("max_queue", 0),
        ("linger", -1),
        ("lease", 0),
        ("timeout", 0),
        ("accept_eviction", "yes"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(
    redis: RedisServer, setting: str, value: Any
) -> None:
    with pytest.raises(ConfigError) as caught:
        RedisStore(redis.url, **{setting: value})
    assert caught.value.setting == setting


def test_without_the_module_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    assert agentstream.RedisStore is RedisStore
    with pytest.raises(ConfigError, match=r"pip install 'agentstream\[redis\]'"):
        RedisStore("redis://127.0.0.1/0")


def test_k09_a_server_that_evicts_is_refused_unless_one_says_so() -> None:
    with RedisServer("maxmemory-policy", "allkeys-lru") as server:
        with pytest.raises(ConfigError, match="allkeys-lru.*noeviction"):
            RedisStore(server.url)
        with RedisStore(server.url, accept_eviction=True) as store:
            store.claim("w")
            for n in (1, 2):
                store.append(event("w", n))
            store.flush()
            server.say("DEL", "agentstream:{default}:state:w", "agentstream:{default}:run:w")
            store.append(event("w", 3))
            store.flush()
            with pytest.raises(LogError, match="not there any more"):
                store.append(event("w", 4))


def test_k29_no_text_holds_the_password(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    shown: List[str] = []
    with RedisServer("requirepass", SECRET) as server:
        good = f"redis://default:{SECRET}@127.0.0.1:{server.port}/0"
        for url in (
            f"redis://app:{SECRET}@127.0.0.1:{server.port}/0",
            f"redis://:{SECRET}x@127.0.0.1:{server.port}/0",
            server.url,
            f"redis://:{SECRET}@127.0.0.1:{free_port()}/0",
            f"redis://:{SECRET}@127.0.0.1:{server.port}/0?ssl_{SECRET}=1",
            f"redis://:{SECRET}@127.0.0.1:{SECRET}/0",
            f"{SECRET}://host",
            f"rediss://:{SECRET}@127.0.0.1:{server.port}/0",
        ):
            with pytest.raises((LogError, ConfigError)) as caught:
                RedisStore(url, timeout=1.0)
            shown.append(texts(caught.value) + repr(caught.value))
        assert "refused the user or the password" in shown[0]
        assert "refused the user or the password" in shown[1]
        assert "cannot be reached" in shown[3]
        with RedisStore(good, timeout=0.5) as store:
            store.claim("w")
            server.kill()
            store.append(event("w", 1))
            for act in (store.flush, store.runs, store.bounds):
                with pytest.raises(LogError) as failed:
                    act()
                shown.append(texts(failed.value))
            shown += [repr(store), repr(store.checkpoints)]
            server.start()
    lines = [line for text in shown for line in text.splitlines()]
    # Lines of this file's own source stand in a traceback; they name the variable only.
    assert [line for line in lines if SECRET in line] == []
    assert SECRET not in caplog.text


def test_k30_a_tenant_has_its_own_log_and_no_other(redis: RedisServer) -> None:
    mine, others = log_name(), log_name()
    said = redis.say(
        *("ACL", "SETUSER", mine, "on", f">{SECRET}", f"~agentstream:{{{mine}}}:*"),
        *("+@read", "+@write", "+@scripting", "+@connection", "+time", "+wait"),
    )
    assert said == b"+OK\r\n"
    url = f"redis://{mine}:{SECRET}@127.0.0.1:{redis.port}/0"
    with pytest.raises(LogError, match="permission") as caught:
        RedisStore(url, others)
    assert not caught.value.retryable
    redis.say("ACL", "SETUSER", mine, "-time")
    with pytest.raises(LogError, match="permission"):
        RedisStore(url, mine)
    redis.say("ACL", "SETUSER", mine, "+time")
    with RedisStore(url, mine) as store:
        store.claim("w")
        store.append(event("w", 1))
        assert store.wait(0, 5.0)
        assert store.request_stop("w", "enough")
        assert [one.offset for one in store.read()] == [1]


def test_k32_a_log_of_another_version_is_refused(
    redis: RedisServer, open_store: Callable[..., RedisStore]
) -> None:
    name = log_name()
    key = f"agentstream:{{{name}}}:log"
    redis.say("HSET", key, "id", "x", "version", "2", "position", "0")
    with pytest.raises(LogError, match="version 2.*reads 1"):
        RedisStore(redis.url, name)
    redis.say("DEL", key)
    redis.say("HSET", key, "other", "1")
    with pytest.raises(LogError, match="not whole"):
        RedisStore(redis.url, name)
    redis.say("DEL", key)
    redis.say("SET", key, "text")
    with pytest.raises(LogError) as caught:
        RedisStore(redis.url, name)
    assert not caught.value.retryable


def test_k27_in_a_cluster_the_log_is_followed_to_its_node() -> None:
    bus = [str(free_port()) for _ in range(2)]
    settings = ("cluster-enabled", "yes", "cluster-port")
    with RedisServer(*settings, bus[0]) as one, RedisServer(*settings, bus[1]) as other:
        one.say("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        other.say("CLUSTER", "MEET", "127.0.0.1", str(one.port), bus[0])
        for server in (one, other):
            wait_until(lambda s=server: b"cluster_state:ok" in s.say("CLUSTER", "INFO"))
        ids = [server.say("CLUSTER", "MYID").split()[1].decode() for server in (one, other)]
        with RedisStore(other.url, "shop", linger=0.001) as store, EventStream(store) as stream:
            live = stream.subscribe(workflow_id="w", after=0)
            with RedisStore(one.url, "shop") as writer:
                writer.claim("w")
                for n in range(1, 101):
                    writer.append(event("w", n))
                writer.flush()
                key = "agentstream:{shop}:log"
                slot = one.say("CLUSTER", "KEYSLOT", key).strip(b":\r\n").decode()
                other.say("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
                one.say("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
                writer.append(event("w", 101))
                keys = one.say("CLUSTER", "GETKEYSINSLOT", slot, "1000").split(b"\r\n")[2::2]
                for name in keys:
                    arguments = ("127.0.0.1", str(other.port), name.decode(), "0", "5000")
                    one.say("MIGRATE", *arguments)
                for server in (other, one):
                    server.say("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
                writer.append(event("w", 102, EventType.WORKFLOW_COMPLETED))
                writer.flush()
                assert [e.offset for e in live] == list(range(1, 103))
                assert [e.offset for e in writer.read(limit=1000)] == list(range(1, 103))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_k28_a_forked_child_has_connections_of_its_own(
    open_store: Callable[..., RedisStore],
) -> None:
    store = open_store()
    store.claim("parent")
    for n in range(1, 200):
        store.append(event("parent", n))
        if n % 50 == 0:
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    store.claim(f"child {n}")
                    store.append(event(f"child {n}", 1))
                    store.flush()
                    code = 0 if len(store.read(workflow_id=f"child {n}")) == 1 else 2
                finally:
                    store.close()
                    os._exit(code)
            assert os.waitpid(child, 0)[1] == 0
    store.flush()
    assert [one.offset for one in store.read(workflow_id="parent")] == list(range(1, 200))
    # What the child did not end was closed with its store.
    assert [run.status for run in store.runs() if run.workflow_id != "parent"] == ["closed"] * 3
