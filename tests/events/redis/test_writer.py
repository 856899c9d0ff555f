"""What the writer does when the server, or the way to it, fails: nothing lost, nothing twice."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any, Callable, Iterator, List, Tuple

import pytest

from agentstream import EventStream, EventType, LogError, RedisStore
from agentstream.events.redis.scripts import APPEND
from agentstream.testing import TCPProxy
from agentstream.testing.stores import event
from tests.kit.redis_server import RedisServer, log_name
from tests.kit.support import wait_until

CHUNK = EventType.AGENT_LLM_STREAM_CHUNK


@pytest.fixture
def proxy(redis: RedisServer) -> Iterator[TCPProxy]:
    with TCPProxy(redis.port) as proxy:
        yield proxy


def url_of(proxy: TCPProxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}/0"


def offsets(store: RedisStore, workflow_id: str) -> List[int]:
    return [one.offset for one in store.read(workflow_id=workflow_id, limit=100_000)]


def append_all(store: RedisStore, workflow_id: str, first: int, last: int) -> float:
    """Append events; returns how long the slowest append took."""
    slowest = 0.0
    for n in range(first, last + 1):
        began = time.monotonic()
        store.append(event(workflow_id, n))
        slowest = max(slowest, time.monotonic() - began)
    return slowest


def follow(store: RedisStore, **where: Any) -> Tuple[EventStream, Any]:
    stream = EventStream(store)
    return stream, stream.subscribe(**where)


def test_k01_k02_a_server_that_is_killed_has_all_when_it_is_back() -> None:
    with RedisServer("appendonly", "yes", "appendfsync", "everysec") as server:
        name = log_name()
        writer = RedisStore(server.url, name, lease=1.0)
        stream, every = follow(RedisStore(server.url, name, lease=1.0))
        one = stream.subscribe(workflow_id="w", after=0)
        try:
            writer.claim("w")
            for turn in range(3):
                append_all(writer, "w", turn * 300 + 1, turn * 300 + 100)
                if turn:
                    writer.flush()
                server.kill()
                slowest = append_all(writer, "w", turn * 300 + 101, turn * 300 + 300)
                assert slowest < 2.0, slowest
                threading.Event().wait(1.2 if turn == 1 else 0.0)  # longer than the lease
                server.start()
            writer.append(event("w", 901, EventType.WORKFLOW_COMPLETED))
            writer.flush()
            assert offsets(writer, "w") == list(range(1, 902))
            assert [e.offset for e in one] == list(range(1, 902))
            found = [every.get(10) for _ in range(901)]
            assert [e.offset for e in found if e] == list(range(1, 902))
            assert writer.runs()[0].status == "completed"  # nobody took it for dead
        finally:
            stream.close()
            writer.close()


def test_k03_a_link_cut_after_the_request_doubles_nothing(
    proxy: TCPProxy, open_store: Callable[..., RedisStore]
) -> None:
    store = open_store(url=url_of(proxy), linger=0.001)
    store.claim("w")
    checkpoints = store.checkpoints
    assert checkpoints is not None
    checkpoints.begin("w")
    turns = itertools.count()
    proxy.cut_after_request = lambda data: APPEND.sha in data and next(turns) % 2 == 0
    n = 0
    while proxy.cuts < 40:
        n += 1
        store.append(event("w", n))
        checkpoints.write("w", {f"{n}": b"1"}, discard=[f"{n - 1}"], wait=False)
        store.flush()
    store.append(event("w", n + 1, EventType.WORKFLOW_COMPLETED))
    store.flush()
    proxy.cut_after_request = None
    assert offsets(store, "w") == list(range(1, n + 2))
    assert [one.position for one in store.read(limit=1000)] == list(range(1, n + 2))
    assert n >= 40


@pytest.mark.parametrize("replies", [False, True])
def test_k04_a_network_that_swallows_all_holds_up_nobody(
    proxy: TCPProxy, redis: RedisServer, open_store: Callable[..., RedisStore], replies: bool
) -> None:
    told: List[str] = []

    class Watcher:
        def stop(self, workflow_id: str, reason: str) -> bool:
            told.append(reason)
            return True

    watcher = Watcher()
    store = open_store(url=url_of(proxy), timeout=1.0)
    store.watch_stops(watcher.stop)
    other = open_store()
    store.claim("w")
    append_all(store, "w", 1, 10)
    proxy.hold(replies=replies)
    assert append_all(store, "w", 11, 500) < 0.5
    assert other.request_stop("w", "enough")  # the watch does not hear of it now
    with pytest.raises(LogError) as caught:
        store.flush()
    assert caught.value.retryable
    assert caught.value.phase == "log"
    proxy.release()
    proxy.cut()
    store.flush()
    assert offsets(other, "w") == list(range(1, 501))
    wait_until(lambda: told == ["enough"])


def test_k05_k06_what_a_promoted_replica_lacks_is_sent_again() -> None:
    with RedisServer() as master, RedisServer() as replica, TCPProxy(master.port) as way:
        with TCPProxy(master.port) as replication:
            replica.replicate(replication.port)
            name = log_name()
            writer = RedisStore(url_of(way), name)
            stream, live = follow(RedisStore(url_of(way), name), workflow_id="goes on", after=0)
            try:
                for workflow_id in ("goes on", "ends"):
                    writer.claim(workflow_id)
                    append_all(writer, workflow_id, 1, 50)
                writer.flush()
                wait_until(lambda: b"slave0" in master.say("INFO", "replication"))
                # WAIT would ask for what its own connection has written.
                wait_until(lambda: replica.reach() >= master.reach())
                replication.hold()
                append_all(writer, "goes on", 51, 250)
                append_all(writer, "ends", 51, 60)
                writer.append(event("ends", 61, EventType.WORKFLOW_COMPLETED))
                writer.claim("begun")
                writer.append(event("begun", 1))
                writer.flush()
                assert writer.bounds().last == 312
                replication.cut()
                replica.say("REPLICAOF", "NO", "ONE")
                way.upstream = replica.port
                way.cut()
                writer.append(event("goes on", 251))
                writer.append(event("goes on", 252, EventType.WORKFLOW_COMPLETED))
                writer.flush()
                assert offsets(writer, "goes on") == list(range(1, 253))
                assert offsets(writer, "ends") == list(range(1, 62))
                assert offsets(writer, "begun") == [1]
                assert writer.has_ended("ends")
                assert writer.bounds().last > 312  # positions never go back
                assert [one.offset for one in live] == list(range(1, 253))
            finally:
                stream.close()
                writer.close()


def test_k05_a_taking_that_a_promoted_replica_lacks_has_not_been() -> None:
    with RedisServer() as master, RedisServer() as replica, TCPProxy(master.port) as way:
        with TCPProxy(master.port) as replication, RedisStore(url_of(way)) as store:
            replica.replicate(replication.port)
            checkpoints = store.checkpoints
            assert checkpoints is not None
            store.claim("lost")
            append_all(store, "lost", 1, 3)
            store.claim("w")
            checkpoints.begin("w")
            checkpoints.write("w", {"a": b"1"}, wait=False)
            store.append(event("w", 1, EventType.WORKFLOW_SUSPENDED, {"status": "suspended"}))
            store.flush()
            wait_until(lambda: replica.reach() >= master.reach())
            replication.hold()
            assert checkpoints.resume("w").fence == 2
            store.append(event("w", 2))
            append_all(store, "lost", 4, 6)
            store.flush()
            del store._committer._tails["lost"]  # as if it were half a minute ago
            replication.cut()
            replica.say("REPLICAOF", "NO", "ONE")
            way.upstream = replica.port
            way.cut()
            store.append(event("w", 3))
            store.append(event("lost", 7))
            store.flush()
            with pytest.raises(LogError, match="suspended"):
                store.append(event("w", 4))
            with pytest.raises(LogError, match="lost events"):
                store.append(event("lost", 8))
            wait_until(lambda: store.has_ended("lost"))
            assert offsets(store, "lost") == [1, 2, 3, 4]
            entry = checkpoints.resume("w")
            assert (entry.last, entry.fence, entry.records) == (1, 2, {"a": b"1"})
            store.append(event("w", 2))
            store.flush()
            assert offsets(store, "w") == [1, 2]


def test_k07_what_no_replica_has_is_not_said_to_be_kept(
    open_store: Callable[..., RedisStore],
) -> None:
    store = open_store(durability="replicated", timeout=0.3)
    store.claim("w")
    for _ in range(2):
        store.append(event("w", 1))
        with pytest.raises(LogError) as caught:
            store.settle(event("w", 1))
        assert caught.value.outcome == "unknown"
    assert offsets(store, "w") == [1]


def test_full_durability_is_refused_where_the_server_cannot_promise_it(
    open_store: Callable[..., RedisStore],
) -> None:
    from agentstream import ConfigError

    with RedisServer("appendonly", "yes", "appendfsync", "always") as server:
        with RedisStore(server.url, durability="full") as store:
            with EventStream(store) as stream:
                stream.append(CHUNK, "w", {"chunk": "kept"})
                server.kill()
                server.start()
                assert [e.data["chunk"] for e in store.read()] == ["kept"]
        if b"redis_version:7.0" in server.say("INFO", "server"):
            with pytest.raises(ConfigError, match="appendfsync always"):
                open_store(durability="full")


def test_k08_a_full_memory_is_told_and_stop_and_beat_still_work() -> None:
    with RedisServer() as server, RedisStore(server.url, max_queue=50, lease=0.3) as store:
        store.claim("w")
        append_all(store, "w", 1, 5)
        store.flush()
        server.say("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(LogError, match="out of memory") as caught:
            append_all(store, "w", 6, 100)
        assert caught.value.retryable
        assert [one.offset for one in store.read(workflow_id="w")][:5] == [1, 2, 3, 4, 5]
        assert store.request_stop("w", "enough")
        beat = server.say("HVALS", "agentstream:{default}:owners")
        wait_until(lambda: server.say("HVALS", "agentstream:{default}:owners") != beat)
        server.say("CONFIG", "SET", "maxmemory", "0")
        store.flush()
        taken = store.bounds("w").last
        assert taken >= 50
        assert offsets(store, "w") == list(range(1, taken + 1))


def test_k10_a_log_that_was_flushed_takes_nothing_in_silence() -> None:
    with RedisServer() as server, RedisStore(server.url, "shop", timeout=1.0) as store:
        store.claim("w")
        append_all(store, "w", 1, 3)
        store.flush()
        server.say("FLUSHALL")
        store.append(event("w", 4))
        for act in (store.flush, lambda: store.append(event("w", 5)), store.bounds):
            with pytest.raises(LogError, match="'shop'.*gone") as caught:
                act()
            assert not caught.value.retryable
        assert server.say("EXISTS", "agentstream:{shop}:log") == b":0\r\n"


def test_k11_scripts_that_were_flushed_are_sent_again(
    redis: RedisServer, open_store: Callable[..., RedisStore]
) -> None:
    store = open_store()
    store.claim("w")
    for n in range(1, 20):
        redis.say("SCRIPT", "FLUSH")
        store.append(event("w", n))
        store.flush()
    assert offsets(store, "w") == list(range(1, 20))


def test_k31_a_large_event_is_cut_and_large_batches_are_split(
    redis: RedisServer, open_store: Callable[..., RedisStore]
) -> None:
    store = open_store(max_event_bytes=10_000)
    store.claim("w")
    for n in range(1, 401):
        store.append(event("w", n, data={"chunk": "x" * 20_000}))
    store.flush()
    assert offsets(store, "w") == list(range(1, 401))
    found = store.read(workflow_id="w", limit=1)[0]
    assert found.data["chunk"].startswith("xxx")
    assert "cut: " in found.data["chunk"]
    assert len(found.data["chunk"]) < 10_000
