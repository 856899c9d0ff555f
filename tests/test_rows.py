"""Every row of the fault matrix has a test, or stands in the list of those that have none."""

from __future__ import annotations

from collections import Counter

from tests.kit import rows

#: How many rows each group has.
GROUPS = {"N": 19, "P": 13, "V": 8, "X": 7, "R": 11, "D": 12, "U": 10, "H": 10, "S": 10}
GROUPS.update({"W": 16, "T": 12, "E": 5, "B": 22, "Y": 13, "M": 13, "K": 32, "F": 14})


def test_every_row_has_a_test_or_a_reason():
    found = rows.tests_of_rows()
    assert Counter(row[0] for row in found) == GROUPS
    missing = {row for row, tests in found.items() if not tests}
    assert missing == set(rows.NOT_SHOWN)
