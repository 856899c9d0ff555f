"""From a row of the fault matrix to the tests that show it.

    python -m tests.kit.rows          a table of all rows
    python -m tests.kit.rows N X      of these groups

A test carries its row's id in its name (test_n05_silence_mid_body).  The rows are
those of docs/faults.rst.
"""

from __future__ import annotations

import ast
import pathlib
import re
import sys
from typing import Dict, List

HERE = pathlib.Path(__file__).parents[1]
MATRIX = HERE.parent / "docs" / "faults.rst"

#: Rows that no test shows yet, and why.
NOT_SHOWN: Dict[str, str] = {}


def rows() -> List[str]:
    """All ids, in the matrix' order."""
    return re.findall(r"^   \* - ([A-Z]\d\d)$", MATRIX.read_text("utf-8"), re.MULTILINE)


def tests_of_rows() -> Dict[str, List[str]]:
    """{"N05": ["tests/faults/test_network.py::test_n05_silence_mid_body", ...]}"""
    found: Dict[str, List[str]] = {row: [] for row in rows()}
    for path in sorted(HERE.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                named = re.match(r"test_((?:[a-z]\d\d_)+)", node.name)
                for row in re.findall(r"[a-z]\d\d", named.group(1)) if named else ():
                    found.setdefault(row.upper(), []).append(
                        f"{path.relative_to(HERE.parent).as_posix()}::{node.name}"
                    )
    return found


def main(groups: List[str]) -> int:
    missing = 0
    for row, tests in tests_of_rows().items():
        if groups and row[0] not in groups:
            continue
        if not tests:
            missing += row not in NOT_SHOWN
            print(f"{row}  -  {NOT_SHOWN.get(row, 'NO TEST')}")
        for test in tests:
            print(f"{row}  {test}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
