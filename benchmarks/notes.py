"""What the figures mean: why an aim is missed, and where a curve stops being linear."""

from __future__ import annotations

from typing import Any, Dict, List

WHOLE = "agentstream, whole way"

_THREADS = (
    "threads that wake up and change places are what costs. In the same pace and number, with"
    " others using the machine, 256 threads that do nothing but read a bare socket took 54 to 70"
    " µs of CPU a chunk (half of it in the system), requests' loop 70 to 120, `chat_stream` 84 to"
    " 124, and bare sockets alone had a p99 of 7 to 58 ms. The whole way asks for {busy:.0%} of the"
    " one core that an interpreter can use: what comes in a burst waits its turn, and a thread that"
    " has waited for 5 ms, Python's switch interval, takes the interpreter from one at work."
    " A program that calls sys.setswitchinterval(0.02), which is its own to decide, has a p99 of"
    " {late:.0f} ms at {cost:.0f} µs a chunk"
)


def why(what: str, rows: Dict[str, Any]) -> str:
    """Why an aim about `what` is out of reach, or what is left of it."""
    try:
        return _why(what, rows)
    except KeyError:
        return "see the figures below"


def _why(what: str, rows: Dict[str, Any]) -> str:
    if what == "import, CPU":
        cost = rows["imports"]["import_cpu_ms"]
        return f"{cost['agentstream'] - cost['requests']:.0f} ms are ours, of 100 modules' bytecode"
    if what == "import, memory":
        peaks = rows["imports"]["peak_mib"]
        return (
            f"the interpreter and requests alone take {peaks['requests']:.1f} MiB, we add"
            f" {peaks['agentstream'] - peaks['requests']:.1f}; less than that is not to be had with"
            " requests as the transport"
        )
    if what == "CPU a chunk, Ollama":
        theirs, bare = rows["wires"]["us_a_chunk"]["ollama"], rows["cpu"]["us_a_chunk"]["requests"]
        return (
            f"ollama-python makes one pydantic model of a line and does no more: {theirs:.0f} µs."
            f" A bare requests loop takes {bare:.1f}, so that a tenth is out of anybody's reach"
        )
    if what.startswith("256 streams"):
        it = rows["crowd"]["whole way"]
        busy = min(1.0, it["streams"] * 30 * it["us_a_chunk"] / 1e6)
        other = rows["crowd"]["whole way, 20 ms"]
        return _THREADS.format(busy=busy, late=other["p99_ms"], cost=other["us_a_chunk"])
    if what.startswith("bus, 1"):
        return (
            "an event costs its publisher about 2.5 µs: frozen data, id and offset, the store, the"
            " lock that gives all subscribers one order; a SimpleQueue in C costs 0.1"
        )
    if what.startswith("first token at"):
        return (
            "on its way to a callback the first text crosses two threads, the run's and the"
            " subscriber's, and the run writes five events before it"
        )
    if what.startswith("first token"):
        return "the 99th percentile of a few hundred calls is the machine's, not the client's"
    return "see the figures below"


def growth(rows: Dict[str, Any]) -> List[str]:
    """Where each curve is linear, and where and why it stops being so."""
    try:
        points = rows["curves"]
        first, last = points["chunks"][0], points["chunks"][-1]
        few, many = points["subscribers"][0], points["subscribers"][-1]
        crowd = points["streams"][-1]
        each = (many[WHOLE] - few[WHOLE]) / (many["n"] - few["n"])
        knee = 1e6 / 30 / crowd["whole way"]["us_a_chunk"]
    except (KeyError, IndexError, ZeroDivisionError):
        return []
    text = [
        f"*Chunks*: linear. The whole way costs {last[WHOLE]:.1f} µs a chunk at"
        f" {last['n']:,} chunks, {first[WHOLE]:.1f} at {first['n']:,}, whose run and request fewer"
        f" chunks share. *Subscribers*: linear, {each:.1f} µs of"
        " CPU a chunk for each: putting the event into its queue, and calling it."
        " *Streams at once*: the cost of a chunk falls a little at first, as one waking of the"
        " callback's thread serves more events, and is then the same; the lateness is not linear."
        f" All threads of a process share one interpreter, and {knee:.0f} streams of 30 tokens/s"
        f" at {crowd['whole way']['us_a_chunk']:.0f} µs each keep it busy all the time: near that"
        " point the wait for it grows without bound, as any queue's does. AsyncOpenAI's loop comes"
        " to that point with fewer streams.",
    ]
    return ["", *text]
