"""Threads and processes at one rate limit:

    python -m stress.rate_limit [REQUESTS] [PER] [WINDOWS] [THREADS] [PROCESSES] [PATH]

Defaults: 600 requests in 60 s, for 2 windows, by 50 threads in all of 4 processes, which share a
file.  PATH may be a Redis server's URL.  Real clients ask one scripted server, which notes when
each request came.  Told: the rate, the most within any window, how long requests waited, how
many each thread had, and how long a cancel took to end a wait.  The suite runs it small.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List, NamedTuple

from agentstream.testing import Reply, ScriptedServer
from agentstream.testing.request import Request

WORKER = """
import sys, threading, time
from agentstream import CancelToken, Cancelled, LlamaClient, RateLimit, Retries

url, path, requests, per, threads, seconds = sys.argv[1:]
limit = RateLimit(int(requests), per=float(per), path=path or None)
stop = CancelToken()
lines, cancels = [], []

def work(client, number):
    count, longest = 0, 0.0
    while not stop.cancelled:
        began = time.monotonic()
        try:
            client.chat("hi", cancel=stop)
        except Cancelled:
            cancels.append(time.monotonic() - stopped)
            break
        count, longest = count + 1, max(longest, time.monotonic() - began)
    lines.append(f"{number} {count} {longest}")

with LlamaClient(url, rate_limit=limit, retries=Retries(0)) as client:
    each = [threading.Thread(target=work, args=(client, n)) for n in range(int(threads))]
    print("ready", flush=True)
    sys.stdin.readline()
    [thread.start() for thread in each]
    time.sleep(float(seconds))
    stopped = time.monotonic()
    stop.cancel("time is up")
    [thread.join() for thread in each]
print(*lines, sep=chr(10))
print("cancels", *cancels)
print("waiting", limit.waiting)
"""


class Tally(NamedTuple):
    """What came of it.

    Attributes:
        times: when each request came, from the first on.
        most: the most requests within any window.
        by_thread: how many each thread had answered.
        longest: seconds that a call took at most.
        cancels: seconds that a cancel took to end a wait.
        left: threads that still waited at the end.
    """

    times: List[float]
    most: int
    by_thread: List[int]
    longest: float
    cancels: List[float]
    left: int


def play(
    requests: int, per: float, seconds: float, threads: int, processes: int, path: str
) -> Tally:
    """Have so many threads, in all processes together, ask for `seconds`."""
    times: List[float] = []
    answer = [b'data: {"choices":[{"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'
              b"data: [DONE]\n\n"]  # fmt: skip

    def reply(_: Request) -> Reply:
        times.append(time.monotonic())
        return Reply(*answer)

    with ScriptedServer() as server:
        server.route("/v1/chat/completions", reply)
        shares = [threads // processes + (n < threads % processes) for n in range(processes)]
        settings = [server.url, path, str(requests), str(per)]
        programs = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER, *settings, str(share), str(seconds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for share in shares
        ]
        for program in programs:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
        for program in programs:
            assert program.stdin is not None
            program.stdin.write("go\n")
            program.stdin.flush()
        lines: List[str] = []
        for program in programs:
            lines += program.communicate(timeout=seconds + 60)[0].splitlines()
            assert program.returncode == 0
    words: List[List[str]] = [line.split() for line in lines]
    numbers = [line for line in words if line[0].isdigit()]
    began = times[0]
    return Tally(
        [at - began for at in times],
        most_within(times, per),
        [int(line[1]) for line in numbers],
        max(float(line[2]) for line in numbers),
        sorted(float(took) for line in words if line[0] == "cancels" for took in line[1:]),
        sum(int(line[1]) for line in words if line[0] == "waiting"),
    )


def most_within(times: List[float], per: float) -> int:
    """The most of them within any `per` seconds."""
    ordered = sorted(times)
    first = most = 0
    for last, at in enumerate(ordered):
        while ordered[first] <= at - per:
            first += 1
        most = max(most, last - first + 1)
    return most


def main(arguments: List[str]) -> int:
    """Play once, and tell."""
    defaults: List[Any] = [600, 60.0, 2.0, 50, 4]
    given = [kind(text) for kind, text in zip((int, float, float, int, int), arguments)]
    requests, per, windows, threads, processes = [*given, *defaults[len(given) :]]
    with tempfile.TemporaryDirectory() as folder:
        path = arguments[5] if len(arguments) > 5 else str(pathlib.Path(folder, "limit.db"))
        tally = play(requests, per, windows * per, threads, processes, path)
    expected = requests * windows
    slowest = max(tally.cancels, default=0.0) * 1000
    told: Dict[str, object] = {
        "requests": f"{len(tally.times)} of {expected:g} ({len(tally.times) / expected - 1:+.2%})",
        "most in a window": f"{tally.most} of {requests} ({tally.most / requests - 1:+.2%})",
        "by thread": f"{min(tally.by_thread)} to {max(tally.by_thread)}",
        "longest call": f"{tally.longest:.2f} s",
        "cancels": f"{len(tally.cancels)}, the slowest {slowest:.1f} ms",
        "left waiting": tally.left,
    }
    for name, value in told.items():
        print(f"{name:18} {value}")
    close = abs(len(tally.times) / expected - 1) <= 0.02 and tally.most <= requests * 1.02
    return 0 if close and not tally.left and min(tally.by_thread) > 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
