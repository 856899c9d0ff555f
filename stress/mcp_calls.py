"""Many calls of MCP tools at once: `python -m stress.mcp_calls [CALLS]` (default 1,000).

Ten threads call the tools of one server, over stdio and over HTTP, in both generations
of the protocol; every eighth call is cancelled.  None may be lost, none may have
another's answer, and at the end threads and descriptors are as before.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from typing import Counter, Dict, List

from agentstream import Cancelled, CancelToken, mcp
from agentstream.testing import ScriptedMCP

THREADS = 10
CANCELLED_EACH = 8


def echo(text: str) -> str:
    """Say it again."""
    return text


def call_many(server: mcp.Server, calls: int) -> Counter[str]:
    """Make the calls; returns how many came to which end.

    Raises:
        AssertionError: an answer was another call's.
    """
    ends: Counter[str] = Counter()
    problems: List[str] = []
    lock = threading.Lock()

    def work(numbers: range) -> None:
        for number in numbers:
            end = _call(server, number, problems)
            with lock:
                ends[end] += 1

    threads = [
        threading.Thread(target=work, args=(range(first, calls, THREADS),))
        for first in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems[:5]
    assert sum(ends.values()) == calls, ends
    return ends


def _call(server: mcp.Server, number: int, problems: List[str]) -> str:
    text = f"call {number} " + "x" * (number % 500)
    token = CancelToken()
    timer = None
    if number % CANCELLED_EACH == 0:
        timer = threading.Timer(number % 7 / 1000, token.cancel)
        timer.start()
    try:
        said = server.call("echo", {"text": text}, cancel=token).text
    except Cancelled:
        return "cancelled" if timer else problems.append(f"{number}: cancelled by nobody") or "?"
    except Exception as error:  # noqa: BLE001 - it is told
        problems.append(f"{number}: {error!r}")
        return "failed"
    finally:
        if timer is not None:
            timer.join()
    if said != text:
        problems.append(f"{number}: another's answer")
    return "answered"


def open_now() -> Dict[str, int]:
    """Threads and descriptors of this process."""
    return {"threads": threading.active_count(), "descriptors": len(os.listdir("/proc/self/fd"))}


def main(calls: int) -> int:
    with ScriptedMCP(echo) as script, mcp.Server.http(script.url) as server:
        server.tools()  # the clock's thread begins, and stays
    before = open_now()
    for protocol in ("2026-07-28", "2025-11-25"):
        for way in ("stdio", "http"):
            with ScriptedMCP(echo, protocol=protocol) as script:
                server = (
                    mcp.Server.http(script.url)
                    if way == "http"
                    else mcp.Server.stdio(script.command)
                )
                began = time.monotonic()
                with server:
                    ends = call_many(server, calls)
                print(f"{protocol} {way}: {dict(ends)} in {time.monotonic() - began:.1f} s")
            gc.collect()
            end = time.monotonic() + 5
            while open_now() != before and time.monotonic() < end:
                CancelToken().wait(0.05)
            assert open_now() == before, f"{open_now()}, and {before} before"
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 1000))
