"""Random workflows against a reference interpreter: `python -m stress.workflows [N]` (5,000).

Half of them over a MemoryStore, half over a SqliteStore.  The suite runs 120 of each.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile
from typing import Any, List

from hypothesis import given, settings, strategies as st

from agentstream import EventStream, MemoryStore, Runtime, SqliteStore
from tests.kit.profiles import LONG
from tests.kit.workflow_model import check, plans


def run(runtime: Runtime, count: int) -> None:
    """Run `count` random workflows; raises AssertionError with the smallest that is wrong."""

    @settings(LONG, max_examples=count)
    @given(plan=plans(), input=st.integers(-5, 20))
    def each(plan: List[Any], input: int) -> None:
        check(runtime, plan, input)

    each()


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    with tempfile.TemporaryDirectory() as folder:
        for store in (MemoryStore(10**6), SqliteStore(pathlib.Path(folder) / "log.db")):
            with Runtime(max_workers=8, event_stream=EventStream(store)) as runtime:
                run(runtime, count // 2)
            print(f"{count // 2} workflows over {type(store).__name__}: as planned", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
