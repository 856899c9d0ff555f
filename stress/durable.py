"""Kill and resume a run of five steps: each finished call is made once, and the end is the same.

    python -m stress.durable 2000 [--seed S]     so many random kills, every fourth run twice
    python -m stress.durable --every             at every append, write of a checkpoint and effect

The run is tests/kit/durable_work.py's, what must hold tests/kit/durable_kills.py's; a trial
that fails is told with its kills, and its folder kept.  Prints a summary as JSON.
"""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
import random
import shutil
import sys
import tempfile
import time
from typing import Any, Counter, Iterator, List

from agentstream.testing import ScriptedServer
from tests.kit.durable_kills import Kill, Nursery, Trial, Wanted, uninterrupted
from tests.kit.durable_work import play

WAYS = [
    ("kill", "before"),
    ("kill", "after"),
    ("kill", "settled"),
    ("kill", "writing"),
    ("kill", "wrote"),
    ("kill", "effect"),
    ("dirty", "after"),
    ("term", "after"),
    ("int", "after"),
]


def at_random(count: int, seed: int, wanted: Wanted) -> Iterator[List[Kill]]:
    """The kills of runs, `count` kills in all."""
    draw = random.Random(seed)

    def kill() -> Kill:
        # Half of them kill -9; and not beyond the end, where nothing is killed.
        how, moment = draw.choice(WAYS[:6] if draw.random() < 0.5 else WAYS)
        return Kill(draw.randrange(1, wanted.places(moment) + 1), how, moment)

    while count > 0:
        kills = [kill()]
        if draw.random() < 0.25:
            kills.append(kill())
        yield kills
        count -= len(kills)


def everywhere(wanted: Wanted) -> Iterator[List[Kill]]:
    """A kill at each place, in each way."""
    for how, moment in WAYS:
        for at in range(1, wanted.places(moment) + 1):
            yield [Kill(at, how, moment)]


def main(arguments: List[str]) -> int:
    """Try them all; 1 if something did not hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int, nargs="?", default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", action="store_true")
    parser.add_argument("--most-wrong", type=int, default=20, help="stop after so many failures")
    options = parser.parse_args(arguments)
    found: Counter[str] = collections.Counter()
    began = time.monotonic()
    root = pathlib.Path(tempfile.mkdtemp(prefix="durable-"))
    with ScriptedServer() as server:
        play(server)
        with Nursery(server.url) as nursery:
            whole = root / "whole"
            whole.mkdir()
            wanted = uninterrupted(nursery, whole)
            found["appends of a run"], found["writes"] = wanted.appends, wanted.writes
            some = at_random(options.count, options.seed, wanted)
            for number, kills in enumerate(everywhere(wanted) if options.every else some):
                attempt(nursery, root / str(number), wanted, kills, found)
                if found["wrong"] >= options.most_wrong:
                    break
                if number % 100 == 99:
                    print(json.dumps(found), file=sys.stderr, flush=True)
    summary: Any = {**found, "seconds": round(time.monotonic() - began, 1), "seed": options.seed}
    print(json.dumps(summary))
    if not found["wrong"]:
        shutil.rmtree(root)
    return 1 if found["wrong"] else 0


def attempt(
    nursery: Nursery, folder: pathlib.Path, wanted: Wanted, kills: List[Kill], found: Counter[str]
) -> None:
    """One run; its folder is kept if something did not hold."""
    folder.mkdir()
    trial = Trial(nursery, folder, wanted)
    found["runs"] += 1
    found["wrong"] += 0
    try:
        trial.run(kills)
    except AssertionError as error:
        found["wrong"] += 1
        print(f"{kills}: {str(error)[:3000]}\n  in {folder}", file=sys.stderr, flush=True)
    else:
        shutil.rmtree(folder)
    found["kills"] += trial.kills
    found["calls made again"] += trial.reruns
    found["calls asked about"] += trial.approvals


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
