"""The rows of the table: each asks its processes, ours and the peers' in turn, and sums up.

A row is a function of the `Lab`; what it returns goes into results.json as it is.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from contextlib import ExitStack
from typing import Any, Callable, Dict, Iterator, List

from benchmarks.clients import COLD, MODULES
from benchmarks.lab import ROOT, Failed, Lab, environment, median, percentile
from benchmarks.wires import PAIRS

_COSTS = [
    "raw socket",
    "requests",
    "agentstream",
    "agentstream, whole way",
    "openai",
    "langchain-openai",
    "litellm",
    "smolagents",
]


#: What costs little to measure, and must be told apart by a quarter: on a machine whose pace
#: changes under it, five samples are not enough.
_CLOSE = ("raw socket", "requests", "agentstream", "agentstream, whole way", "agentstream chat")


def _turns(names: List[str], rounds: int) -> Iterator[str]:
    """Whose turn it is: everyone's in each round, and that of those close together three times."""
    close = [name for name in names if name in _CLOSE]
    for _ in range(rounds):
        yield from names
        if rounds > 1:  # no smoke run
            yield from close + close


def cpu(lab: Lab) -> Dict[str, Any]:
    """CPU a chunk of every client, in microseconds."""
    names, chunks = lab.there(_COSTS), lab.sizes["chunks"]
    raw: Dict[str, List[float]] = {name: [] for name in names}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(lab.worker()) for name in names}
        for name in names:  # imports, connections, caches
            workers[name].ask("cpu", client=name, url=lab.url, chunks=50)
        for name in _turns(names, lab.sizes["rounds"]):
            value = workers[name].ask("cpu", client=name, url=lab.url, chunks=chunks[name])
            raw[name].append(value["us_a_chunk"])
    return {
        "us_a_chunk": {name: median(values) for name, values in raw.items()},
        "chunks": chunks,
        "raw": raw,
    }


def first_token(lab: Lab) -> Dict[str, Any]:
    """Milliseconds from the call to the first text in the caller's hands."""
    names = lab.there(_COSTS)
    raw: Dict[str, List[float]] = {name: [] for name in names}
    rounds, calls = lab.sizes["first_token"]
    peer_rounds, peer_calls = lab.sizes["first_token_peers"]
    with ExitStack() as stack:
        workers = {name: stack.enter_context(lab.worker()) for name in names}
        for name in names:
            workers[name].ask("first_token", client=name, url=lab.url, calls=5)
        for number in range(rounds):
            for name in names:
                ours = name == "requests" or name.startswith(("agentstream", "raw"))
                if ours or number < peer_rounds:
                    many = calls if ours else peer_calls
                    raw[name] += workers[name].ask(
                        "first_token", client=name, url=lab.url, calls=many
                    )
    return {
        "p50_ms": {name: median(values) for name, values in raw.items()},
        "p99_ms": {name: percentile(values, 0.99) for name, values in raw.items()},
        "calls": {name: len(values) for name, values in raw.items()},
        "raw": {name: [round(value, 3) for value in values] for name, values in raw.items()},
    }


def crowd(lab: Lab) -> Dict[str, Any]:
    """Paced streams at once in one process: lateness and CPU, and twice as many."""
    streams, chunks = lab.sizes["crowd"]
    ways = ["whole way", "whole way, 20 ms", "chat_stream"]
    ways += ["AsyncOpenAI"] * bool(lab.there(["openai"]))
    raw: Dict[str, List[Dict[str, float]]] = {way: [] for way in ways}
    with ExitStack() as stack:
        workers = {way: stack.enter_context(lab.worker()) for way in ways}
        for way in ways:
            workers[way].ask("crowd", way=way, url=lab.url, streams=1, chunks=5, rate=30)
        for _ in range(lab.sizes["crowd_rounds"]):
            for way in ways:
                raw[way].append(
                    workers[way].ask(
                        "crowd", way=way, url=lab.url, streams=streams, chunks=chunks, rate=30
                    )
                )
        most = workers["whole way"].ask(
            "crowd",
            way="whole way",
            url=lab.url,
            streams=lab.sizes["crowd_most"],
            chunks=chunks,
            rate=30,
        )
    sums = {
        way: {key: median([one[key] for one in runs]) for key in runs[0]}
        for way, runs in raw.items()
    }
    return {**sums, "most": most, "raw": raw}


def memory(lab: Lab) -> Dict[str, Any]:
    """MiB beyond the text, of a short answer and of a very long one, with four subscribers."""
    raw: Dict[str, List[Dict[str, float]]] = {}
    for _ in range(lab.sizes["rounds"]):
        for chunks in lab.sizes["memory"]:
            with lab.worker() as worker:
                value = worker.ask("memory", url=lab.url, chunks=chunks)
            raw.setdefault(str(chunks), []).append(value)
    short, long = (
        median([one["peak"] - one["text"] for one in raw[str(chunks)]])
        for chunks in lab.sizes["memory"]
    )
    return {
        "beyond_text_mib": {"short": short, "long": long},
        "more_mib": long - short,
        "text_mib": raw[str(lab.sizes["memory"][1])][0]["text"],
        "raw": raw,
    }


_IMPORT = """
import sys, time
began = time.process_time()
__import__(sys.argv[1])
took = time.process_time() - began
from benchmarks.costs import peak_memory
print(took * 1000, time.process_time() * 1000, peak_memory())
"""


def imports(lab: Lab) -> Dict[str, Any]:
    """CPU milliseconds and peak MiB of processes that import one thing."""
    names = [
        "requests",
        "agentstream",
        "openai",
        "langchain-openai",
        "litellm",
        "smolagents",
        "ollama",
        "llm",
    ]
    modules = {"python": "sys", **{name: MODULES[name] for name in lab.there(names)}}
    raw: Dict[str, List[List[float]]] = {name: [] for name in modules}
    for number, name in enumerate([*modules, *_turns(list(modules), lab.sizes["rounds"])]):
        done = subprocess.run(
            [lab.python, "-c", _IMPORT, modules[name]],
            check=True,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment(),
            stderr=subprocess.DEVNULL,
            timeout=120,
        )
        if number >= len(modules):  # the first one wrote the bytecode
            raw[name].append([float(word) for word in done.stdout.split()[-3:]])

    def of(place: int) -> Dict[str, float]:
        return {name: median([one[place] for one in runs]) for name, runs in raw.items()}

    return {"import_cpu_ms": of(0), "process_cpu_ms": of(1), "peak_mib": of(2), "raw": raw}


def cold(lab: Lab) -> Dict[str, Any]:
    """Milliseconds from a process's start to the first byte that it printed."""
    names = lab.there(list(COLD))
    raw: Dict[str, List[float]] = {name: [] for name in names}
    for number, name in enumerate([*names, *_turns(names, lab.sizes["rounds"])]):
        took = _first_byte_ms(lab, name)
        if number >= len(names):
            raw[name].append(took)
    return {"first_token_ms": {name: median(values) for name, values in raw.items()}, "raw": raw}


def _first_byte_ms(lab: Lab, name: str) -> float:
    began = time.perf_counter()
    process = subprocess.Popen(
        [lab.python, "-W", "ignore", "-c", COLD[name], f"{lab.url}/chunks=5/v1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment(),
        bufsize=0,
    )
    assert process.stdout is not None
    guard = threading.Timer(60, process.kill)
    guard.start()
    first = process.stdout.read(1)
    took = (time.perf_counter() - began) * 1000
    process.communicate()
    guard.cancel()
    if not first:
        raise Failed(f"the script of {name} printed nothing")
    return took


def bus(lab: Lab) -> Dict[str, Any]:
    """Events a second into one, ten and fifty subscribers; and what a stuck one costs."""
    raw: Dict[str, Any] = {}
    found: Dict[str, Any] = {}
    with lab.worker() as worker:
        for subscribers in (1, 10, 50):
            events = max(20, lab.sizes["bus_deliveries"] // (subscribers + 2))
            rates: Dict[str, List[float]] = {}
            for _ in range(2 * lab.sizes["rounds"] - 1):
                for way in ("ours", "bare events", "bare dicts"):
                    value = worker.ask("bus", way=way, events=events, subscribers=subscribers)
                    rates.setdefault(way, []).append(value["events_a_second"])
            raw[str(subscribers)] = rates
            found[str(subscribers)] = {way: median(values) for way, values in rates.items()}
        events, rate = lab.sizes["stuck"]
        runs: Dict[str, List[Dict[str, float]]] = {"without": [], "with": []}
        for _ in range(lab.sizes["rounds"]):
            for which in runs:
                value = worker.ask("stuck", events=events, rate=rate, with_stuck=which == "with")
                runs[which].append(value)
    raw["stuck"] = runs
    late = {
        which: {key: median([one[key] for one in values]) for key in values[0]}
        for which, values in runs.items()
    }
    return {"events_a_second": found, "stuck": late, "raw": raw}


def conformance(lab: Lab) -> Dict[str, Any]:
    """The corpus through each client."""
    if lab.corpus is None:
        return {"skipped": "../shared/conformance is not here: a clone without the corpus"}
    scores = {}
    for name in lab.there(["agentstream", "openai", "langchain-openai", "litellm"]):
        with lab.worker() as worker:
            scores[name] = worker.ask(
                "score", client=name, url=lab.url, corpus=lab.corpus, most=lab.sizes["streams"]
            )
    return {"scores": scores}


def cancel(lab: Lab) -> Dict[str, Any]:
    """Milliseconds until a blocked reader is free, and its canceller."""
    found: Dict[str, Any] = {}
    with lab.worker() as worker:
        for beside in (0, lab.sizes["beside"]):
            for hang in ("body", "headers"):
                name = "agentstream" + (f", beside {beside} streams" if beside else "")
                found.setdefault(name, {})[hang] = worker.ask(
                    "stop",
                    client="agentstream",
                    url=lab.url,
                    hang=hang,
                    times=lab.sizes["stops"],
                    beside=beside,
                )
    # The peers side by side: who is blocked costs nobody anything.
    peers = lab.there(["openai", "langchain-openai", "litellm", "ollama"])
    problems: List[str] = []

    def measure(name: str) -> None:
        try:
            with lab.worker() as worker:
                found[name] = {
                    hang: worker.ask(
                        "stop", client=name, url=lab.url, hang=hang, times=lab.sizes["stops_peers"]
                    )
                    for hang in ("body", "headers")
                }
        except Failed as problem:
            problems.append(str(problem))

    threads = [threading.Thread(target=measure, args=(name,)) for name in peers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise Failed("; ".join(problems))
    return found


def curves(lab: Lab) -> Dict[str, Any]:
    """How cost grows: with chunks, with subscribers, with streams at once."""
    sizes, url = lab.sizes, lab.url
    chunks, subscribers, streams = [], [], []
    with lab.worker() as worker:
        for count in sizes["curve_chunks"]:
            point: Dict[str, Any] = {"n": count}
            for name in ("agentstream", "agentstream, whole way", "requests"):
                runs = 5 if count < 200_000 else 1
                point[name] = median(
                    [
                        worker.ask("cpu", client=name, url=url, chunks=count)["us_a_chunk"]
                        for _ in range(runs)
                    ]
                )
            chunks.append(point)
        for count in sizes["curve_subscribers"]:
            settings = {"url": url, "chunks": sizes["curve_events"], "subscribers": count}
            costs = [
                worker.ask("cpu_with_subscribers", **settings)["us_a_chunk"]
                for _ in range(sizes["rounds"])
            ]
            subscribers.append({"n": count, "agentstream, whole way": median(costs)})
        for count in sizes["curve_streams"]:
            point = {"n": count}
            ways = ["whole way"] + ["AsyncOpenAI"] * (
                bool(lab.there(["openai"])) and count <= sizes["curve_streams_peer"]
            )
            for way in ways:
                point[way] = worker.ask(
                    "crowd", way=way, url=url, streams=count, chunks=sizes["curve_length"], rate=30
                )
            streams.append(point)
    return {"chunks": chunks, "subscribers": subscribers, "streams": streams}


def typed(lab: Lab) -> Dict[str, Any]:
    """A typed answer in small pieces: its values, its text, and its JSON parsed at once."""
    size, piece = lab.sizes["typed"]
    with lab.worker() as worker:
        runs = [worker.ask("values", size=size, piece=piece) for _ in range(lab.sizes["rounds"])]
    middle = {name: median([run[name] for run in runs]) for name in runs[0]}
    return {**middle, "characters": size, "piece": piece}


def wires(lab: Lab) -> Dict[str, Any]:
    """CPU a chunk in each protocol, ours beside the vendor's own client."""
    sizes = lab.sizes["wires"]
    ours = [pair[0] for pair in PAIRS.values()]
    names = lab.there([name for pair in PAIRS.values() for name in pair])
    raw: Dict[str, List[float]] = {name: [] for name in names}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(lab.worker()) for name in names}
        for name in names:
            workers[name].ask("cpu", client=name, url=lab.url, chunks=50)
        for _ in range(lab.sizes["rounds"]):
            for name in [*names, *ours]:  # what lies close together more often
                many = sizes["ours" if name in ours else "theirs"]
                value = workers[name].ask("cpu", client=name, url=lab.url, chunks=many)
                raw[name].append(value["us_a_chunk"])
    return {"us_a_chunk": {name: median(values) for name, values in raw.items()}, "raw": raw}


def mcp(lab: Lab) -> Dict[str, Any]:
    """CPU of one call of an MCP server's tool, and of the bare POST."""
    calls = lab.sizes["mcp_calls"]
    with lab.worker() as worker:
        runs = [worker.ask("mcp_calls", calls=calls) for _ in range(lab.sizes["rounds"])]
    return {"us_a_call": {way: median([run[way] for run in runs]) for way in runs[0]}}


ROWS: Dict[str, Callable[[Lab], Dict[str, Any]]] = {
    "conformance": conformance,
    "cancel": cancel,
    "memory": memory,
    "imports": imports,
    "cold": cold,
    "cpu": cpu,
    "first_token": first_token,
    "bus": bus,
    "crowd": crowd,
    "curves": curves,
    "typed": typed,
    "wires": wires,
    "mcp": mcp,
}


def dump(results: Dict[str, Any]) -> str:
    """As the file has it: a list of numbers on one line."""
    return (
        re.sub(
            r"\[\s+([^\[\]{}]*?)\s+\]",
            lambda found: "[" + re.sub(r"\s*\n\s*", " ", found[1]) + "]",
            json.dumps(_rounded(results), indent=1),
        )
        + "\n"
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
