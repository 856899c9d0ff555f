"""Calls over connections with bytes left over: `python -m stress.reuse [N]` (10,000).

Half of them over TLS.  Prints how many were lost (failed though nothing hindered them),
crossed (got another answer than their own) and hung; none may be.
"""

from __future__ import annotations

import random
import sys
import time
from typing import List

from tests.kit.reuse import FRAMINGS, HEADS, SURPLUS, WHEN, Plan, Reuser

#: Seconds after which a call has hung; none waits for more than a drain's 100 ms.
_HUNG_S = 3.0


def run(count: int, seed: int, *, tls: bool) -> List[int]:
    """Make `count` calls; returns how many were lost, crossed and hung."""
    chance = random.Random(seed)
    hung = 0
    with Reuser(tls=tls) as reuser:
        for _ in range(count):
            plan = Plan(
                chance.choice(FRAMINGS),
                chance.choice(list(SURPLUS)),
                chance.choice(WHEN),
                chance.choice(HEADS),
                chance.choice((1, 2, 500)),
            ).made_fair()
            began = time.monotonic()
            chance.choice((reuser.call, reuser.chat))(plan)
            took = time.monotonic() - began
            if took > _HUNG_S:
                hung += 1
                print(f"  hung: {took:.1f} s, {plan}", flush=True)
        for sort, examples in (("lost", reuser.lost), ("crossed", reuser.crossed)):
            for example in examples[:3]:
                print(f"  {sort}: {example}")
        how = ", ".join(f"{n} {name}" for name, n in sorted(reuser.came_to.items()))
        over = f"{reuser.server.connections} connections{' of TLS' if tls else ''}"
        print(f"{count} calls over {over}: {how}", flush=True)
    return [len(reuser.lost), len(reuser.crossed), hung]


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    figures = [run(count // 2, seed, tls=tls) for seed, tls in enumerate((False, True))]
    lost, crossed, hung = (sum(column) for column in zip(*figures))
    print(f"{count} calls: {lost} lost, {crossed} crossed, {hung} hung")
    return 1 if lost or crossed or hung else 0


if __name__ == "__main__":
    sys.exit(main())
