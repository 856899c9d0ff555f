"""Replicas, Sentinels and their failovers: nothing is lost while its writer lives, nothing doubled."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time

import pytest

from agentstream import EventStream, EventType, LogError, RedisStore
from agentstream.testing.stores import event
from tests.kit.redis_server import RedisSentinel, RedisServer, is_written, log_name, offsets
from tests.kit.support import wait_until

CHUNK = EventType.AGENT_LLM_STREAM_CHUNK


def test_k07_replicated_is_what_a_replica_has() -> None:
    with RedisServer() as master, RedisServer() as replica:
        replica.replicate(master.port)
        wait_until(lambda: b"state=online" in master.say("INFO", "replication"))
        name = log_name()
        with EventStream(RedisStore(master.url, name, "replicated", timeout=1.0)) as stream:
            for n in range(1, 21):
                stream.append(CHUNK, "w", {"chunk": f"{n}"})
                if n % 5 == 0:  # it is there, without having to wait
                    newest = replica.say("XREVRANGE", f"agentstream:{{{name}}}:run:w", "+", "-")
                    assert b"\r\n%d-%d\r\n" % (n, n) in newest
            replica.freeze()
            began = time.monotonic()
            with pytest.raises(LogError) as caught:
                stream.append(CHUNK, "w", {"chunk": "21"})
            assert (caught.value.outcome, caught.value.retryable) == ("unknown", True)
            assert (caught.value.phase, time.monotonic() - began < 5.0) == ("log", True)
            replica.thaw()
            wait_until(lambda: is_written(stream.store))
            stream.append(EventType.WORKFLOW_COMPLETED, "w", {})
            assert offsets(stream.store.read(workflow_id="w")) == list(range(1, 23))


@pytest.mark.parametrize("planned", [True, False])
def test_k05_k06_sentinels_are_asked_where_the_master_is(planned: bool) -> None:
    with contextlib.ExitStack() as stack:
        old, new = (stack.enter_context(RedisServer()) for _ in range(2))
        new.replicate(old.port)  # before the Sentinel looks, which it does each 10 s
        sentinel = stack.enter_context(RedisSentinel(old))
        wait_until(lambda: sentinel.knows(new))
        name = log_name()
        writer = RedisStore(sentinel.url, name, max_queue=100_000)
        stream = EventStream(RedisStore(sentinel.url, name))
        live = stream.subscribe(workflow_id="w", after=0)
        numbers, enough = itertools.count(1), threading.Event()
        writer.claim("w")

        def write() -> None:
            while not enough.wait(0.01):
                writer.append(event("w", next(numbers)))

        thread = threading.Thread(target=write)
        thread.start()
        try:
            wait_until(lambda: written(new, name) > 20)
            if planned:
                assert sentinel.say("SENTINEL", "FAILOVER", sentinel.NAME) == b"+OK\r\n"
            else:
                old.kill()
            wait_until(lambda: b"role:master" in new.say("INFO", "replication"), 60.0)
            if planned:
                last = written(old, name)
                wait_until(lambda: written(old, name) > last + 20)  # in vain
                old.say("REPLICAOF", "127.0.0.1", str(new.port))  # as a Sentinel does after 10 s
        finally:
            enough.set()
            thread.join(10)
        last = next(numbers)
        writer.append(event("w", last, EventType.WORKFLOW_COMPLETED))
        wait_until(lambda: is_written(writer), 60.0)
        assert written(new, name) == last
        with contextlib.closing(stream):
            assert offsets(list(live)) == list(range(1, last + 1))
            assert offsets(writer.read(workflow_id="w", limit=1 << 20)) == list(range(1, last + 1))
        writer.close()


def written(server: RedisServer, name: str) -> int:
    """How many events of the run a server has."""
    return int(server.say("XLEN", f"agentstream:{{{name}}}:run:w")[1:])
