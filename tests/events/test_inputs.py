"""What a run is given is kept beside its events, never in them; and goes with the last of them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Callable, Set

import pytest

from agentstream import (
    ChatMessage,
    ConfigError,
    EventStream,
    MemoryStore,
    Runtime,
    SqliteStore,
    Workflow,
)
from agentstream.events.store import EventStore
from agentstream.testing.stores import event
from tests.kit.support import PROMPT, hunt, wait_until

Make = Callable[..., EventStore]


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    def make(capacity: int = 10_000) -> EventStore:
        if request.param == "memory":
            return MemoryStore(capacity)
        return SqliteStore(tmp_path / "runs.db", max_events=capacity)

    return make


def given(make: Make, input: Any, **settings: Any) -> Any:
    """The state of a run that was given `input`, and how a list has its input."""
    with Runtime(event_stream=EventStream(make(), **settings)) as runtime:
        run = runtime.run(Workflow("w", [lambda value: "done"]), input)
        store = runtime.event_stream.store
        state = store.run(run.workflow_id)
        assert state is not None
        (listed,) = [one for one in store.runs() if one.workflow_id == run.workflow_id]
        assert listed._replace(input=None) == state._replace(input=None, output=None)
        assert listed.listed()["input"] == listed.input
        if input == PROMPT:
            hunt(repr(state) + repr(listed) + repr(store) + repr(runtime.event_stream))
        return state.input, listed.input


def test_as_text_whole_and_its_first_line_in_lists(make: Make) -> None:
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {}}]
    for input, whole, first in (
        ("one\ntwo", "one\ntwo", "one"),
        (" \n\n  one\n", " \n\n  one\n", "one"),
        ("x" * 300, "x" * 300, "x" * 200),
        ("y" * 200_000, "y" * 100_000, "y" * 200),
        ("", "", ""),
        (None, "", ""),
        (ChatMessage.user(parts), "What is it?\n[image_url]", "What is it?"),
        (["a", 1], '["a", 1]', '["a", 1]'),
        ({"a": "b"}, "## a\n\nb", "## a"),
        (parts, "What is it?\n[image_url]", "What is it?"),
        ("lone \ud800", "lone \ufffd", "lone \ufffd"),
    ):
        assert given(make, input) == (whole, first)


def test_s05_no_event_holds_it_and_it_need_not_be_kept(make: Make) -> None:
    assert given(make, PROMPT) == (PROMPT, PROMPT)  # and conftest hunts through the events
    assert given(make, PROMPT, keep_inputs=False) == (None, None)
    with pytest.raises(ConfigError, match="keep_inputs must be True or False"):
        EventStream(keep_inputs=1)  # type: ignore[arg-type]


def test_it_goes_with_the_last_of_the_runs_events(make: Make) -> None:
    store = make(100)
    with Runtime(event_stream=EventStream(store)) as runtime:
        workflow = Workflow("w", [lambda value: "done"])
        for number in range(120):
            runtime.run(workflow, f"input {number}", workflow_id=f"run-{number}")
        store.flush()

        def left() -> Set[str]:
            return {one.workflow_id for one in store.runs(limit=1000) if one.input is not None}

        wait_until(lambda: left() == {one.workflow_id for one in store.read(limit=1000)})
        assert "run-119" in left()
        assert "run-0" not in left()


def test_a_log_of_0_1_gets_its_place_and_one_that_is_only_read_has_none(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with SqliteStore(path) as store:
        store.claim("old")
        store.append(event("old", 1))
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE inputs")
    connection.close()
    with SqliteStore(path, read_only=True) as store:
        assert [state.input for state in store.runs()] == [None]
    with Runtime(event_stream=EventStream(SqliteStore(path))) as runtime:
        runtime.run(Workflow("w", [str.upper]), "new", workflow_id="new")
        states = runtime.event_stream.store.runs()
        assert [(state.workflow_id, state.input) for state in states] == [
            ("new", "new"),
            ("old", None),
        ]
