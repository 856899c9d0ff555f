"""What a log in Redis does, beside what the prototype of ../shared/MACHINES.md did, in brackets.

    python -m benchmarks.machines                  all figures, as a table
    python -m benchmarks.machines append replay    some of them
    python -m benchmarks.machines --quick          a tenth of everything: does it work?
    python -m benchmarks.machines --write          and put the table into docs/redis.rst

Real redis-servers on this machine, each figure on a log of its own; writers and followers are
processes of their own.  Events have 80 bytes of data.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import threading
import time
from typing import Callable, Dict, List, NamedTuple, Tuple

from agentstream import EventStream, EventType
from benchmarks.fleet import (
    CHUNK,
    DATA,
    LEASE,
    ROOT,
    Bench,
    Other,
    events_of,
    log_url,
    other,
)
from tests.kit.redis_server import RedisServer, log_name

DOCS = ROOT / "docs" / "redis.rst"
BEGIN, END = ".. figures begin\n", ".. figures end\n"


class Figure(NamedTuple):
    """A row of the table: what, what was measured, what the prototype did, the aim."""

    what: str
    value: str
    prototype: str
    aim: str


def spread(times: List[float]) -> Tuple[float, float]:
    """Median and 99th percentile, in milliseconds."""
    times.sort()
    return times[len(times) // 2] * 1e3, times[len(times) * 99 // 100] * 1e3


def in_threads(act: Callable[[int], object], count: int) -> float:
    """Do something in so many threads; returns how many seconds it took."""
    threads = [threading.Thread(target=act, args=(n,)) for n in range(count)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


# --- what one process does ------------------------------------------------------------------


def append(bench: Bench) -> List[Figure]:
    """8 threads append, and wait for the log at the end."""
    count = bench.times(20_000)
    with bench.open(max_queue=1 << 20, timeout=60.0) as store:
        ready = [list(events_of(f"run {n}", count)) for n in range(8)]
        for n in range(8):
            store.claim(f"run {n}")
        spent, began = time.process_time(), time.perf_counter()

        def write(n: int) -> None:
            for one in ready[n]:
                store.append(one)

        in_threads(write, 8)
        store.flush()
        took = time.perf_counter() - began
        spent = time.process_time() - spent
    rate, cpu = 8 * count / took, spent / (8 * count) * 1e6
    return [
        Figure("append, 8 threads, group commit", f"{rate / 1e3:.0f} k/s", "103 k/s", ">= 60 k/s"),
        Figure("... of it this process's CPU", f"{cpu:.1f} us an event", "8 us", "<= 12 us"),
    ]


def token_path(bench: Bench) -> List[Figure]:
    """An append through a stream, 200/s, while the server is frozen half of the time."""
    times: List[float] = []
    with EventStream(bench.open()) as stream:
        log, pause = stream.open_log("run"), threading.Event()
        count = bench.times(2000)
        for n in range(count):
            if n % 100 == 25:
                bench.server.freeze()
            if n % 100 == 75:
                bench.server.thaw()
            began = time.perf_counter()
            log.append(CHUNK, DATA)
            times.append(time.perf_counter() - began)
            pause.wait(0.005)
        bench.server.thaw()
        stream.store.flush()
    half, most = spread(times)
    value = f"{half:.2f} / {most:.2f} ms, worst {times[-1] * 1e3:.1f}"
    what = "token path: append p50 / p99, the server frozen half of the time"
    return [Figure(what, value, "worst 2.4 ms", "p99 <= 1 ms")]


def acked(bench: Bench) -> List[Figure]:
    """8 threads append, each waiting until a replica has it."""
    times: List[float] = []
    with RedisServer() as replica:
        replica.replicate(bench.server.port)
        with EventStream(bench.open(durability="replicated")) as stream:
            count = bench.times(4000)

            def write(n: int) -> None:
                log = stream.open_log(f"run {n}")
                for _ in range(count):
                    began = time.perf_counter()
                    log.append(CHUNK, DATA)
                    times.append(time.perf_counter() - began)

            took = in_threads(write, 8)
    half, most = spread(times)
    value = f"{len(times) / took / 1e3:.1f} k/s, {half:.1f} / {most:.1f} ms"
    aim = ">= 6 k/s, p99 <= 5 ms"
    return [Figure("acked by a replica, 8 threads, p50 / p99", value, "9.2 k/s, 0.8 / 1.6 ms", aim)]


def replay(bench: Bench) -> List[Figure]:
    """One run is read from its beginning to its end, and the log with all runs."""
    count, found = bench.times(100_000), []
    before = bench.memory()
    with bench.open(max_queue=1 << 20, timeout=60.0) as store:
        store.claim("run")
        for one in events_of("run", count):
            store.append(one)
        store.flush()
        size = (bench.memory() - before) / count
        for where in ({"workflow_id": "run"}, {}):
            after, began = 0, time.perf_counter()
            while after < count:
                after += len(store.read(after=after, limit=500, **where))  # type: ignore[arg-type]
            found.append(count / (time.perf_counter() - began) / 1e3)
    return [
        Figure("replay of a run", f"{found[0]:.0f} k/s", "236 k/s", ">= 100 k/s"),
        Figure("replay of all", f"{found[1]:.0f} k/s", "161 k/s", ""),
        Figure("bytes an event, of 80 of data", f"{size:.0f}", "177", "<= 200"),
    ]


# --- what several do ------------------------------------------------------------------------


def follow(bench: Bench) -> List[Figure]:
    """A process follows a run of another, 30 events a second."""
    name, count = log_name(), bench.times(600)
    with other("write", log=log_url(bench, name), count=count, rate=30) as writer:
        with EventStream(bench.open(name)) as stream:
            subscription = stream.subscribe(workflow_id="run", after=0)
            writer.say()
            times = [time.time() - one.timestamp for one in subscription]
    half, most = spread(times)
    value = f"{half:.1f} / {most:.1f} ms"
    return [Figure("follower, 30/s, p50 / p99", value, "6.2 / 7.1 ms", "p99 <= 15 ms")]


def stop(bench: Bench) -> List[Figure]:
    """A run of another process is stopped; until it hears of it, and until its end is here."""
    heard, ended = [], []
    name, count = log_name(), bench.times(300)
    with other("stopped", log=log_url(bench, name), count=count) as process:
        with EventStream(bench.open(name)) as stream:
            for n in range(count):
                subscription = stream.subscribe(workflow_id=f"run {n}", after=0)
                assert subscription.get(10) is not None
                began = time.time()
                assert stream.store.request_stop(f"run {n}", "enough")
                end = list(subscription)[-1]
                ended.append(time.time() - began)
                heard.append(end.data["heard"] - began)
                process.say()
    values = ["{:.1f} / {:.1f} ms".format(*spread(times)) for times in (heard, ended)]
    return [
        Figure("stop, other process, p50 / p99", values[0], "0.7 / 4.1 ms", "p99 <= 20 ms"),
        Figure("... until its end has come back", values[1], "2 ms", "<= 50 ms"),
    ]


def takeover(bench: Bench) -> List[Figure]:
    """A worker is killed; until its run has an end, with a lease of 3 s."""
    took = []
    for _ in range(3):
        name = log_name()
        with bench.open(name, lease=LEASE) as store:
            with other("write", log=log_url(bench, name), count=10**6, rate=30) as process:
                process.say()
                while store.run("run") is None or store.run("run").last_offset < 5:
                    store.wait(0, 0.01)
                assert not store.wait(1 << 40, LEASE)  # it has been watched for a while
                process.kill()
                began = time.monotonic()
                while not store.has_ended("run"):
                    store.wait(1 << 40, 0.01)
                took.append(time.monotonic() - began)
    value = f"{max(took):.1f} s, the slowest of {len(took)}"
    return [Figure("take-over after kill -9, lease 3 s", value, "3.9 s", "<= 5 s")]


def passing(bench: Bench) -> List[Figure]:
    """The CPU of a process that follows one run, or all, while 4,000 events/s of others pass."""
    rows = []
    seconds = max(2.0, 10 * min(1.0, bench.times(1000) / 1000))
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("Redis", "SQLite"):
            shares = []
            for which in ("one", "all"):
                file = os.path.join(folder, f"{which}.db")
                log = log_url(bench, log_name()) if kind == "Redis" else file
                with other("crowd", log=log, seconds=seconds + 2) as crowd:
                    with other("follower", log=log, which=which, seconds=seconds) as follower:
                        crowd.say()
                        shares.append(float(follower.hear()["share"]) * 100)
            value = f"{shares[0]:.1f} %; of all runs {shares[1]:.0f} %"
            prototype = "10 %; 16 %" if kind == "Redis" else ""
            what = f"CPU of a follower of one run while 4,000 events/s pass, {kind}"
            rows.append(Figure(what, value, prototype, ""))
    return rows


# --- what one node carries ------------------------------------------------------------------


def most(bench: Bench) -> List[Figure]:
    """4 processes append to one log as fast as they can."""
    name, count = log_name(), bench.times(50_000)
    processes = [Other("append", {"log": log_url(bench, name), "count": count}) for _ in range(4)]
    spent, began = bench.server_cpu(), time.perf_counter()
    for process in processes:
        process.say()
    for process in processes:
        process.hear()
    took = time.perf_counter() - began
    spent = bench.server_cpu() - spent
    for process in processes:
        process.end()
    value = f"{4 * count / took / 1e3:.0f} k/s, {spent / (4 * count) * 1e6:.1f} us of the server"
    return [Figure("append, 4 processes, one log", value, "90 k/s, 1.9 us", "")]


def carry(bench: Bench) -> List[Figure]:
    """256 runs in 4 processes, each with 30 events a second; one process follows one of them."""
    name, seconds = log_name(), max(3.0, bench.times(1000) / 100)
    arguments = {"log": log_url(bench, name), "runs": 64, "rate": 30, "seconds": seconds}
    processes = [Other("carry", {**arguments, "first": 64 * n}) for n in range(4)]
    with EventStream(bench.open(name)) as stream:
        subscription = stream.subscribe(workflow_id="run 7", after=0)
        spent, began = bench.server_cpu(), time.perf_counter()
        for process in processes:
            process.say()
        times = [time.time() - one.timestamp for one in subscription]
        found = [process.hear() for process in processes]
        took = time.perf_counter() - began
        spent = (bench.server_cpu() - spent) / took
        last = stream.store.bounds().last
        commits = bench.count(f"agentstream:{{{name}}}:all", "XLEN") / took
    for process in processes:
        process.end()
    times.sort()
    share = sum(one["share"] for one in found) / 4
    rows = [
        (
            "256 runs at 30/s in 4 processes",
            f"{last / took:,.0f} events/s, {commits:.0f} commits/s",
        ),
        ("... CPU of the server; of each writer", f"{spent:.0%}; {share:.0%} of a core"),
        ("... follower p50 / p99", "{:.1f} / {:.1f} ms".format(*spread(times))),
    ]
    prototype = ("622 commits/s", "; 10 %", "5.3 / 14 ms")
    return [Figure(*row, old, "") for row, old in zip(rows, prototype)]


def runs(bench: Bench) -> List[Figure]:
    """Runs of five events, begun and ended; what each keeps, and the sockets of who does that."""
    count, name = bench.times(5000), log_name()
    before = bench.memory()
    with bench.open(name, max_queue=1 << 20, timeout=60.0) as store:
        stream = EventStream(store)
        began = time.perf_counter()
        for n in range(count):
            log = stream.open_log(f"run {n}")
            log.append(EventType.WORKFLOW_STARTED, {"workflow": "demo"})
            for _ in range(3):
                log.append(CHUNK, DATA)
            log.append(EventType.WORKFLOW_COMPLETED, {"output": "x" * 44})
        store.flush()
        rate = count / (time.perf_counter() - began)
        size = (bench.memory() - before) / count
        followed = [stream.subscribe(workflow_id=f"none {n}") for n in range(300)]
        store.wait(1 << 40, 0.1)
        sockets = bench.server.say("CLIENT", "LIST").count(b"addr=") - 1
        for subscription in followed:
            subscription.close()
        stream.close()
    return [
        Figure("runs of 5 events, begun and ended, one process", f"{rate:,.0f}/s", "", ""),
        Figure("bytes a run, its 5 events among them", f"{size:,.0f}", "", ""),
        Figure("sockets of a process with runs and 300 followers", f"{sockets}", "O(workers)", ""),
    ]


FIGURES: Dict[str, Callable[[Bench], List[Figure]]] = {
    "append": append,
    "token": token_path,
    "acked": acked,
    "replay": replay,
    "follow": follow,
    "stop": stop,
    "takeover": takeover,
    "passing": passing,
    "most": most,
    "carry": carry,
    "runs": runs,
}


# --- the table ------------------------------------------------------------------------------


def table(rows: List[Figure]) -> str:
    """A list-table of reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (Figure("", "measured", "prototype", "aim"), *rows):
        for at, text in enumerate((row.what, row.value, f"[{row.prototype}]", row.aim)):
            shown = "" if text == "[]" else text
            lines.append(f"   {'*' if at == 0 else ' '} - {shown}".rstrip())
    return "\n".join(lines) + "\n"


def write(text: str) -> None:
    """Put the table between its marks in docs/redis.rst."""
    docs = DOCS.read_text("utf-8")
    start, end = docs.index(BEGIN) + len(BEGIN), docs.index(END)
    DOCS.write_text(f"{docs[:start]}\n{text}\n{docs[end:]}", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("figures", nargs="*", help=", ".join(FIGURES))
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--write", action="store_true", help="put the table into docs/redis.rst")
    arguments = parser.parse_args()
    rows = []
    with RedisServer() as server:
        version = server.say("INFO", "server").partition(b"redis_version:")[2].split()[0].decode()
        for name in arguments.figures or FIGURES:
            found = FIGURES[name](Bench(server, 0.1 if arguments.quick else 1.0))
            print(*(f"{row.what}: {row.value}  [{row.prototype}]" for row in found), sep="\n")
            rows += found
    about = f"{os.cpu_count()} cores, Python {platform.python_version()}, Redis {version}.\n\n"
    print("\n" + about + table(rows))
    if arguments.write:
        write(about + table(rows))


if __name__ == "__main__":
    main()
