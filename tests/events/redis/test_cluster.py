"""A log in a real cluster: found whatever node is asked, and when it moves or its node dies."""

from __future__ import annotations

import contextlib
from typing import Iterator, Tuple

from agentstream import EventStream, EventType, RedisStore
from agentstream.testing.stores import event
from tests.kit.redis_server import RedisServer, is_written, offsets
from tests.kit.support import free_port, wait_until


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


@contextlib.contextmanager
def cluster(masters: int) -> Iterator[Tuple[RedisServer, ...]]:
    """So many masters with an equal part of the slots each, and a replica of the first."""
    bus = [str(free_port()) for _ in range(masters + 1)]
    settings = ("cluster-enabled", "yes", "cluster-node-timeout", "1000", "cluster-port")
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(RedisServer(*settings, port)) for port in bus]
        for n, node in enumerate(nodes[:masters]):
            first, last = n * 16384 // masters, (n + 1) * 16384 // masters - 1
            node.say("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
        for n, node in enumerate(nodes[1:], 1):
            nodes[0].say("CLUSTER", "MEET", "127.0.0.1", str(node.port), bus[n])
        for node in nodes:
            wait_until(lambda s=node: b"cluster_state:ok" in s.say("CLUSTER", "INFO"))
        first_id = nodes[0].say("CLUSTER", "MYID").split()[1].decode()
        wait_until(lambda: nodes[-1].say("CLUSTER", "REPLICATE", first_id) == b"+OK\r\n")
        wait_until(lambda: b"master_link_status:up" in nodes[-1].say("INFO", "replication"))
        yield tuple(nodes)


def write(store: RedisStore, first: int, last: int) -> None:
    for n in range(first, last + 1):
        store.append(event("w", n))


def test_k27_logs_spread_over_masters_and_outlive_the_death_of_one() -> None:
    with cluster(3) as nodes, contextlib.ExitStack() as stack:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        stores = {}
        for n, name in enumerate("abcdefgh"):  # by any node's address, or all of them
            url = nodes[n % 3].url if n < 4 else f"redis://{hosts}/0"
            with contextlib.closing(RedisStore(url, name)) as store:
                store.claim("w")
                write(store, 1, 20)
                store.flush()
            stores[name] = stack.enter_context(RedisStore(f"redis://{hosts}/0", name, timeout=2.0))
            assert offsets(stores[name].read()) == list(range(1, 21))
        homes = {name: [node for node in nodes[:3] if has(node, name)] for name in stores}
        assert all(len(found) == 1 for found in homes.values())
        assert len({found[0].port for found in homes.values()}) == 3

        name = next(name for name, found in homes.items() if found == [nodes[0]])
        with RedisStore(f"redis://{hosts}/0", name, timeout=2.0) as writer:
            stream = EventStream(stores[name])
            live = stream.subscribe(workflow_id="v", after=0)
            writer.claim("v")
            for n in range(1, 101):
                writer.append(event("v", n))
            writer.flush()
            wait_until(lambda: nodes[3].reach() >= nodes[0].reach())
            nodes[0].kill()
            for n in range(101, 201):
                writer.append(event("v", n))
            writer.append(event("v", 201, EventType.WORKFLOW_COMPLETED))
            assert nodes[3].say("CLUSTER", "FAILOVER", "TAKEOVER") == b"+OK\r\n"
            wait_until(lambda: is_written(writer))
            assert offsets(live) == list(range(1, 202))
            assert offsets(writer.read(workflow_id="v")) == list(range(1, 202))


def has(node: RedisServer, log: str) -> bool:
    """True if a log is on a node, which asked for others says MOVED."""
    return node.say("EXISTS", f"agentstream:{{{log}}}:log") == b":1\r\n"
