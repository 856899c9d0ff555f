"""Random workflows against a reference interpreter, over each store; longer in stress/workflows.py."""

from __future__ import annotations

import pathlib
from typing import Any, List

import pytest
from hypothesis import given, settings, strategies as st

from agentstream import EventStream, MemoryStore, Runtime, SqliteStore
from tests.kit.profiles import SUITE
from tests.kit.workflow_model import check, plans

RUNS = settings(SUITE, max_examples=120, derandomize=True)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_random_workflow_does_what_its_plan_says(kind: str, tmp_path: pathlib.Path) -> None:
    store = MemoryStore(10**6) if kind == "memory" else SqliteStore(tmp_path / "log.db")
    with Runtime(max_workers=4, event_stream=EventStream(store)) as runtime:

        @RUNS
        @given(plan=plans(), input=st.integers(-5, 20))
        def each(plan: List[Any], input: int) -> None:
            check(runtime, plan, input)

        each()
