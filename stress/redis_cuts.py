"""K03 and K28 by the thousand: links cut after the request, and forks with connections in use.

    python -m stress.redis_cuts [--cuts 1000] [--forks 1000] [--seconds 300]

Cuts: a proxy passes on what a writer sends, and cuts the connection when the server answers,
each second time: the commit is done, and nobody knows.  Four runs with checkpoints write at once,
another process follows them.  At the end each offset, position and record is there once.

Forks: while threads append, read, follow and stop, the process forks; each child reads the
parent's run, writes one of its own, and leaves.  Every child's answers are its own (a reply
that was crossed is another run's event, or no event at all), and so are the parent's.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import random
import signal
import sys
import threading
import time
import warnings
from typing import Any, Callable, Iterator, List

from agentstream import EventStream, EventType, LogError, RedisStore
from agentstream.events.redis.scripts import APPEND
from agentstream.testing import TCPProxy
from agentstream.testing.stores import event
from tests.kit.redis_server import RedisServer

_RUNS = 4


def offsets(events: List[Any]) -> List[int]:
    return [one.offset for one in events]


def whole(store: RedisStore, name: str) -> List[int]:
    return offsets(store.read(workflow_id=name, limit=1 << 30))


def cut_links(server: RedisServer, cuts: int, end: float) -> int:
    """Write while the link is cut after every second commit; returns how often it was."""
    turns = itertools.count()
    with TCPProxy(server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        proxy.cut_after_request = lambda sent: APPEND.sha in sent and next(turns) % 2 == 0
        with RedisStore(url, "cuts", linger=0.0) as store:
            follower = EventStream(RedisStore(server.url, "cuts"))
            every = follower.subscribe(max_queue=100)
            last = in_threads(_RUNS, lambda n: _write(store, f"run {n}", proxy, cuts, end))
            proxy.cut_after_request = None
            store.flush()
            total = sum(last)
            for n in range(_RUNS):
                assert whole(store, f"run {n}") == list(range(1, last[n] + 1)), n
                records = store.need_checkpoints().read(f"run {n}")
                assert records == {"count": b"%d" % (last[n] - 1)}, (n, records)
            places = [one.position for one in store.read(limit=1 << 30)]
            assert places == list(range(1, total + 1))
            found = [every.get(20) for _ in range(total)]
            assert sorted(one.position for one in found if one) == places
            assert every.get(0.1) is None
            for n in range(_RUNS):
                store.append(event(f"run {n}", last[n] + 1, EventType.WORKFLOW_COMPLETED))
            follower.close()
        print(f"{proxy.cuts} links cut after the request, {total} events: none lost, none twice")
        return proxy.cuts


def _write(store: RedisStore, name: str, proxy: TCPProxy, cuts: int, end: float) -> int:
    checkpoints = store.need_checkpoints()
    store.claim(name)
    checkpoints.begin(name)
    n = 0
    while n < 2 or (proxy.cuts < cuts and time.monotonic() < end):
        n += 1
        store.append(event(name, n))
        if n > 1:
            checkpoints.write(name, {"count": b"%d" % (n - 1)}, discard=["count"], wait=False)
        try:
            store.flush()
        except LogError as error:
            assert error.retryable, error
    return n


def in_threads(count: int, act: Callable[[int], Any]) -> List[Any]:
    """What something returns in each of so many threads."""
    found: List[Any] = [None] * count
    failed: List[BaseException] = []

    def run(n: int) -> None:
        try:
            found[n] = act(n)
        except BaseException as error:  # noqa: BLE001 - raised below
            failed.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return found


def fork_in_use(server: RedisServer, forks: int, end: float) -> int:
    """Fork while threads use the store; returns how often."""
    over, ready = threading.Event(), threading.Barrier(5)
    with RedisStore(server.url, "forks", linger=0.0) as store:
        for name in ("parent", "busy"):
            store.claim(name)
            for n in range(1, 101):
                store.append(event(name, n))
        store.flush()
        work = [lambda: _append(store), lambda: _read(store), lambda: _ask(store)]
        work.append(lambda: store.wait(store.bounds().last, 0.01))
        failed: List[BaseException] = []

        def keep_at(act: Callable[[], object]) -> None:
            ready.wait()
            try:
                while not over.is_set():
                    act()
            except BaseException as error:  # noqa: BLE001 - raised below
                failed.append(error)

        threads = [threading.Thread(target=keep_at, args=(act,)) for act in work]
        for thread in threads:
            thread.start()
        ready.wait()
        done = 0
        try:
            while done < forks and time.monotonic() < end and not failed:
                _fork(store, done)
                done += 1
        finally:
            over.set()
            for thread in threads:
                thread.join()
        if failed:
            raise failed[0]
        store.flush()
        last = store.bounds("busy").last
        assert whole(store, "busy") == list(range(1, last + 1))
        children = [run.workflow_id for run in store.runs(limit=done + 10)]
        assert len([name for name in children if name.startswith("child ")]) == done
        print(f"{done} forks with connections in use, {last} events beside: no crossed reply")
    return done


_numbers = itertools.count(101)


def _append(store: RedisStore) -> None:
    store.append(event("busy", next(_numbers)))
    if random.random() < 0.1:
        store.flush()


def _read(store: RedisStore) -> None:
    first = random.randrange(90)
    found = store.read(workflow_id="parent", after=first, limit=10)
    assert [one.id for one in found] == [f"parent:{n}" for n in range(first + 1, first + 11)]


def _ask(store: RedisStore) -> None:
    state = store.run("parent")
    assert state is not None
    assert (state.workflow_id, state.last_offset) == ("parent", 100)
    assert not store.request_stop("nobody", "no such run")


def _fork(store: RedisStore, n: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: there are threads
        child = os.fork()
    if child == 0:
        signal.alarm(60)
        code = 1
        try:
            _be_the_child(store, f"child {n}")
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert status == 0, f"child {n} ended with {status}"


def _be_the_child(store: RedisStore, name: str) -> None:
    for _ in range(3):
        _read(store)
    store.claim(name)
    for n in _some(name):
        store.append(n)
    store.flush()
    found = store.read(workflow_id=name)
    assert [one.id for one in found] == [f"{name}:{n}" for n in range(1, 6)]
    store.close()


def _some(name: str) -> Iterator[Any]:
    return (event(name, n) for n in range(1, 6))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cuts", type=int, default=1000)
    parser.add_argument("--forks", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=300.0, help="at most, for each of the two")
    arguments = parser.parse_args()
    logging.getLogger("agentstream").setLevel(logging.CRITICAL)  # it tells of each cut
    with RedisServer() as server:
        cuts = cut_links(server, arguments.cuts, time.monotonic() + arguments.seconds)
        forks = fork_in_use(server, arguments.forks, time.monotonic() + arguments.seconds)
    return 0 if cuts >= arguments.cuts and forks >= arguments.forks else 1


if __name__ == "__main__":
    sys.exit(main())
