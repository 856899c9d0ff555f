"""The tests mirror the house: a module's test is found under its own name.

    python -m tests.test_mirror     the modules that have none

The test of agentstream/llm/chat/usage.py is tests/llm/chat/test_usage.py.  Not every module needs
one: some are shown by what the rows of tests/faults ask of them.
"""

from __future__ import annotations

import pathlib
from typing import Dict

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE, TESTS = ROOT / "agentstream", ROOT / "tests"
SHARE = 0.6


def mirrored() -> Dict[str, pathlib.Path]:
    """{"llm/chat/usage.py": where the test of that module is or should be}"""
    modules = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"]
    assert len(modules) > 100
    return {
        path.relative_to(PACKAGE).as_posix(): TESTS
        / path.relative_to(PACKAGE).parent
        / f"test_{path.name.lstrip('_')}"
        for path in modules
    }


def missing() -> Dict[str, pathlib.Path]:
    """Those of them that are not there."""
    return {module: test for module, test in mirrored().items() if not test.exists()}


def test_three_of_five_modules_have_a_test_of_their_name():
    lacking = missing()
    share = 1 - len(lacking) / len(mirrored())
    assert share >= SHARE, f"{share:.0%}; none for: {' '.join(lacking)}"


def test_every_folder_of_tests_is_a_package():
    folders = {path.parent for path in TESTS.rglob("test_*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


if __name__ == "__main__":
    for module, test in missing().items():
        print(f"{module}  {test.relative_to(ROOT)}")
    print(f"{1 - len(missing()) / len(mirrored()):.0%} of {len(mirrored())} have one")
