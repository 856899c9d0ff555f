"""Recorded streams, bent at random: `python -m stress.fuzz [N] [seed]` (100,000 of each protocol).

Prints what came of them: answers and AgentStreamErrors; the first other error ends it.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter

from tests.kit import fuzz


def run(protocol: str, count: int, seed: int) -> Counter[str]:
    """Play `count` bent streams; returns how many came to what."""
    streams = fuzz.recordings(protocol)
    ends: Counter[str] = Counter()
    with fuzz.client_of(protocol) as client:
        for number in range(seed, seed + count):
            chance = random.Random(number)
            body = fuzz.bend(chance.choice(streams), chance)
            began = time.monotonic()
            try:
                ends[fuzz.play(client, protocol, body, chance)] += 1
            except BaseException:
                print(f"{protocol} {number}: {body[:2000]!r}")
                raise
            if time.monotonic() - began > 5.0:
                ends["slow"] += 1
    return ends


def main() -> int:
    count, seed = [int(word) for word in sys.argv[1:]] + [100_000, 0][len(sys.argv[1:]) :]
    for protocol in fuzz.PROTOCOLS:
        ends = run(protocol, count, seed)
        print(
            f"{protocol}: " + ", ".join(f"{n} {end}" for end, n in ends.most_common()), flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
