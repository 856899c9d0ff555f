"""What a process holds and uses: descriptors, memory, CPU; and quantiles of times."""

from __future__ import annotations

import os
import resource
from typing import Any, List


def rss_mib() -> float:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def listing() -> List[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            pass
    return sorted(found)


def fds() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def cpu_s() -> float:
    mine, theirs = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime


def quantiles(values: Any) -> str:
    found = sorted(values)
    if not found:
        return "none"
    p = [found[min(len(found) - 1, int(len(found) * q))] * 1000 for q in (0.5, 0.99)]
    return f"p50 {p[0]:.2f} p99 {p[1]:.2f} max {found[-1] * 1000:.2f} ms (n {len(found)})"
