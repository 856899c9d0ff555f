"""A run that is killed at any of its appends and resumed; every one of them: stress/durable.py."""

from __future__ import annotations

import pathlib
from typing import Any, Iterator, Tuple

import pytest

from agentstream.testing import ScriptedServer
from tests.kit.durable_kills import EFFECTS, Kill, Nursery, Trial, Wanted, uninterrupted
from tests.kit.durable_work import play

#: Places between two kills of one kind; the kinds begin at different places.
STRIDE = 27


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: Any) -> Iterator[Tuple[Nursery, Wanted]]:
    with ScriptedServer() as server:
        play(server)
        with Nursery(server.url) as nursery:
            yield nursery, uninterrupted(nursery, tmp_path_factory.mktemp("whole"))


def try_each(
    nursery: Tuple[Nursery, Wanted], folder: pathlib.Path, how: str, moment: str, first: int
) -> None:
    it, wanted = nursery
    killed = 0
    for at in range(first, wanted.places(moment) + 1, STRIDE):
        place = folder / str(at)
        place.mkdir()
        trial = Trial(it, place, wanted)
        try:
            trial.run([Kill(at, how, moment)])
        except AssertionError as error:
            raise AssertionError(f"{how} {moment} {at}: {error}") from error
        killed += trial.kills
    assert killed >= wanted.places(moment) // STRIDE // 2


def test_a_run_killed_before_an_append_goes_on(nursery: Any, tmp_path: pathlib.Path) -> None:
    try_each(nursery, tmp_path, "kill", "before", 1)


def test_a_run_killed_after_an_append_goes_on(nursery: Any, tmp_path: pathlib.Path) -> None:
    try_each(nursery, tmp_path, "kill", "after", 3)


def test_a_run_killed_once_an_append_is_on_the_disk_goes_on(
    nursery: Any, tmp_path: pathlib.Path
) -> None:
    try_each(nursery, tmp_path, "kill", "settled", 5)


@pytest.mark.parametrize("moment", ["writing", "wrote"])
def test_a_run_killed_at_a_write_of_its_checkpoint_goes_on(
    nursery: Any, tmp_path: pathlib.Path, moment: str
) -> None:
    try_each(nursery, tmp_path, "kill", moment, 7)


def test_a_run_killed_between_an_effect_and_its_record_asks_or_makes_it_again(
    nursery: Any, tmp_path: pathlib.Path
) -> None:
    it, wanted = nursery
    for at in range(1, wanted.places("effect") + 1):
        folder = tmp_path / str(at)
        folder.mkdir()
        trial = Trial(it, folder, wanted)
        trial.run([Kill(at, moment="effect")])
        again = [call.name for call in trial.ledger.calls()].count("pay") - 2
        assert trial.kills == 1 and trial.reruns >= 1
        # The two calls of one answer are made side by side: one is asked about that had none yet.
        assert trial.approvals >= again, "a call was made again, and nobody was asked"


def test_an_effect_is_made_again_only_with_the_arguments_and_the_key_of_the_first_time(
    tmp_path: pathlib.Path,
) -> None:
    with ScriptedServer() as server:
        play(server, fickle=True)  # asked again, it would want another call, of another key
        with Nursery(server.url) as nursery:
            for at in range(2, EFFECTS + 1):
                folder = tmp_path / str(at)
                folder.mkdir()
                trial = Trial(nursery, folder, None)
                assert trial.go_on(Kill(at, moment="effect"))["exit"] != 0
                made = trial.ledger.calls()
                while trial.go_on(None)["status"] != "completed":
                    pass
                calls = [(call.of, call.key) for call in trial.ledger.calls()]
                assert len(set(calls)) == EFFECTS, calls
                assert len(calls) > EFFECTS or made[-1].name == "look", calls


def test_a_run_goes_on_with_what_was_synced_before_the_power_went(
    nursery: Any, tmp_path: pathlib.Path
) -> None:
    try_each(nursery, tmp_path, "dirty", "after", 4)


@pytest.mark.parametrize("how", ["term", "int"])
def test_a_run_that_a_signal_interrupts_goes_on(
    nursery: Any, tmp_path: pathlib.Path, how: str
) -> None:
    try_each(nursery, tmp_path, how, "after", 2 if how == "term" else 6)


def test_a_run_killed_twice_goes_on(nursery: Any, tmp_path: pathlib.Path) -> None:
    it, wanted = nursery
    trial = Trial(it, tmp_path, wanted)
    trial.run([Kill(wanted.appends // 2), Kill(wanted.appends // 4, moment="before")])
    assert trial.kills == 2
