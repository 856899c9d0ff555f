"""What `stress.day` holds a day's history against: it finds what it is to find."""

from __future__ import annotations

import pathlib
from typing import Any, List

from agentstream import EventType
from agentstream.testing.stores import event
from stress.day import check_events, check_stints, read_ledger

DONE = [f"workflow_step_completed {step}" for step in range(5)]


def history(*kinds: str) -> List[Any]:
    """Events with these types and steps, numbered from 1."""
    found = []
    for offset, kind in enumerate(kinds, 1):
        name, _, step = kind.partition(" ")
        found.append(event("run", offset, EventType(name), {"step": step}))
    return found


def test_a_history_that_is_right_passes_and_each_fault_is_found() -> None:
    right = history("workflow_started", *DONE, "workflow_completed")
    assert list(check_events("run", right)) == []
    assert "offsets" in next(check_events("run", [*right[:2], *right[1:]]))
    assert "offsets" in next(check_events("run", right[1:]))
    assert "ends" in next(check_events("run", right[:-1]))
    twice = history("workflow_started", *DONE, "workflow_completed", "workflow_failed")
    assert "2 ends" in next(check_events("run", twice))
    again = history("workflow_started", DONE[0], *DONE, "workflow_completed")
    assert "completed steps" in next(check_events("run", again))


def test_two_processes_at_once_are_found_and_one_after_a_killed_one_is_right(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "ledger").write_text(
        "1.0 7 begin run one\n2.0 7 end run one\n"
        "3.0 7 begin run two\n5.0 8 begin run two\n6.0 8 end run two\n"
    )
    stints = read_ledger(tmp_path)["run"]
    assert [(one.pid, one.end) for one in stints] == [(7, 2.0), (7, None), (8, 6.0)]
    assert list(check_stints("run", stints, {7: 4.0})) == []
    assert "at once" in next(check_stints("run", stints, {7: 5.5}))
    assert "was not killed" in next(check_stints("run", stints, {}))
    overlap = [stints[0], stints[2]._replace(begin=1.5)]
    assert "at once" in next(check_stints("run", overlap, {}))
