"""What a soak says of itself: on its way, and at its end."""

from __future__ import annotations

import gc
import sys
import threading
import time
from typing import Any

from stress.soak.measures import fds, listing, quantiles, rss_mib
from stress.soak.record import (
    note,
)
from stress.soak.session import Soak


def progress(soak: Soak, seconds: float, cpu: float) -> None:
    record = soak.record
    total = sum(record.outcomes.values())
    ok = record.outcomes["ok"]
    cancels = quantiles(record.samples.get("cancel all", ()))
    note(
        f"{seconds / 60:.0f} min: {total} outcomes, {ok} ok; cancel {cancels}; events "
        f"{soak.checker.events}; rss {rss_mib():.0f} MiB; cpu {cpu:.0%}; pace {soak.pace:.2f} s; "
        f"broken {sum(record.broken.values())}"
    )


def check_memory(soak: Soak) -> None:
    """I8: what is held at rest does not grow with time."""
    half = soak.rss[len(soak.rss) // 3 :]
    if len(half) >= 3:
        growth = sum(half[-2:]) / 2 - sum(half[:2]) / 2
        if growth > 24.0:
            soak.record.break_("I8 memory", f"+{growth:.0f} MiB: {[round(r) for r in soak.rss]}")


def check_baseline(soak: Soak, threads: set[Any], descriptors: int) -> None:
    """I6: threads and descriptors as before the first of it."""
    until = time.monotonic() + 10.0
    while True:
        gc.collect()
        left = [
            t.name
            for t in threading.enumerate()
            if t not in threads and t.name != "agentstream-clock"
        ]
        if (not left and fds() <= descriptors) or time.monotonic() > until:
            break
        threading.Event().wait(0.05)
    if left:
        soak.record.break_("I6 threads", str(left))
    if fds() > descriptors:
        soak.record.break_("I6 descriptors", f"{descriptors} -> {fds()}: {listing()}")


def summary(soak: Soak, seconds: float, cpu: float) -> None:
    record = soak.record
    print(
        f"soak: {seconds / 60:.1f} min, seed {record.seed}, {soak.streams} streams at once, "
        f"Python {sys.version.split()[0]}, cpu {cpu / seconds:.0%} of a core, "
        f"{sum(p.connections for p in soak.proxies)} connections, "
        f"{soak.checker.events} events"
    )
    print("\noutcomes")
    for what, count in record.outcomes.most_common():
        print(f"  {what:34} {count:7}")
    print("\nby kind                    ok  failed unknown    left/other")
    for kind in sorted({k for k, _ in record.kinds}):
        row = {w: c for (k, w), c in record.kinds.items() if k == kind}
        other = sum(row.values()) - sum(row.get(w, 0) for w in ("ok", "failed", "unknown"))
        print(
            f"  {kind:18} {row.get('ok', 0):8} {row.get('failed', 0):7} "
            f"{row.get('unknown', 0):7} {other:13}"
        )
    print("\nby toxic         given   fired  |   ok  failed unknown of the calls it met")
    for toxic, counts in record.by_toxic.items():
        given = sum(p.given[toxic] for p in soak.proxies)
        fired = sum(p.fired[toxic] for p in soak.proxies)
        sums = {
            w: sum(c for k, c in counts.items() if k.startswith(w))
            for w in ("ok", "failed", "unknown")
        }
        print(
            f"  {toxic:12} {given:7} {fired:7}  {sums['ok']:7} {sums['failed']:7} "
            f"{sums['unknown']:7}"
        )
    print("\ntimes")
    for name, values in sorted(record.samples.items()):
        print(f"  {name:22} {quantiles(values)}")
    print("\ncounts")
    for name, count in sorted(record.counts.items()):
        print(f"  {name:34} {count:8}")
    print(f"  rss at rest, MiB: {[round(r, 1) for r in soak.rss][:: max(1, len(soak.rss) // 12)]}")
    if soak.log is None:
        print("  not in it: I5 and the remote follower; see --log")
    print(f"\ninvariants broken: {sum(record.broken.values())}")
    for name, count in record.broken.most_common():
        print(f"  {name:34} {count:7}")
    sys.stdout.flush()
