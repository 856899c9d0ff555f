"""Random workflows against a reference interpreter: `python -m stress.workflows [N]` (5,000).

Half of them over a MemoryStore, half over a SqliteStore; the suite runs 120 of each.  And as many
that lose their processes, up to four times each, at any operation of the log.
"""

from __future__ import annotations

import logging
import pathlib
import sys
import tempfile
from typing import Any, List

from hypothesis import given, settings, strategies as st

from agentstream import EventStream, MemoryStore, Runtime, SqliteStore
from tests.kit.profiles import LONG
from tests.kit.workflow_model import check, plans
from tests.workflow.test_random_resumed import live


def run(runtime: Runtime, count: int) -> None:
    """Run `count` random workflows; raises AssertionError with the smallest that is wrong."""

    @settings(LONG, max_examples=count)
    @given(plan=plans(), input=st.integers(-5, 20))
    def each(plan: List[Any], input: int) -> None:
        check(runtime, plan, input)

    each()


def run_dying(count: int) -> None:
    """As `run`, in processes that die."""

    @settings(LONG, max_examples=count)
    @given(
        plan=plans(),
        input=st.integers(-5, 20),
        lives=st.lists(st.integers(0, 60), min_size=1, max_size=4),
    )
    def each(plan: List[Any], input: int, lives: List[int]) -> None:
        live(plan, input, lives)

    each()


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    with tempfile.TemporaryDirectory() as folder:
        for store in (MemoryStore(10**6), SqliteStore(pathlib.Path(folder) / "log.db")):
            with Runtime(max_workers=8, event_stream=EventStream(store)) as runtime:
                run(runtime, count // 2)
            print(f"{count // 2} workflows over {type(store).__name__}: as planned", flush=True)
    logging.disable(logging.CRITICAL)  # of each death
    run_dying(count)
    print(f"{count} workflows that lost their processes: as planned", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
