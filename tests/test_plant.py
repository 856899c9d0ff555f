"""The table of plant.py is whole and fits the source; that it catches is seen once."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Set

import pytest

from tests.kit.plant import PLANTS, ROOT, Copy, Plant, main, occurrences

#: What docs/design.rst, section 4, promises of the bus.
RULES = {
    "order",
    "once",
    "many publishers",
    "isolation: stuck",
    "isolation: raising",
    "catch-up",
    "seam",
    "events_missed",
    "events_missed: the end gone too",
    "OffsetGone",
    "close inside",
    "close delivers",
    "close is bounded",
    "calls from inside a callback",
    "no lock around a callback",
    "the terminal event is the last",
    "iterators end",
    "dropped iterators free themselves",
    "events cannot be changed",
    "what JSON lacks",
    "memory is bounded",
    "fork: fresh locks",
    "exit",
}


def names_of(path: Path) -> Set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_rule_has_a_fault() -> None:
    rules = [plant.rule for plant in PLANTS]
    assert RULES <= set(rules)
    assert len(rules) == len(set(rules))


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: str(plant.rule))
def test_a_fault_has_its_one_place_and_its_test(plant: Plant) -> None:
    assert occurrences(plant) == 1
    source = (ROOT / plant.file).read_text(encoding="utf-8")
    ast.parse(source.replace(plant.right, plant.wrong))
    file, _, name = plant.test.partition("::")
    assert name in names_of(ROOT / file)


def test_a_planted_fault_is_caught_and_a_harmless_one_is_not() -> None:
    plant = next(p for p in PLANTS if p.rule == "OffsetGone")
    with Copy() as copy:
        assert copy.catches(plant)
        assert not copy.catches(plant._replace(wrong=f"({plant.right})"))
        assert occurrences(plant, copy.path) == 1
    assert not copy.path.exists()


def test_the_command_knows_its_rules(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(PLANTS)
    with pytest.raises(SystemExit):
        main(["no such rule"])
    assert "no such rule" in capsys.readouterr().err
