"""The time since the machine was started, which nobody sets and all its processes share."""

from __future__ import annotations

import time

__all__ = ["uptime"]


def uptime() -> float:
    """Seconds since the machine was started, those it slept included where it can be told."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
