"""Every row of the fault matrix has a test, or stands in the list of those that have none."""

from __future__ import annotations

from tests.kit import rows


def test_every_row_has_a_test_or_a_reason():
    found = rows.tests_of_rows()
    assert len(found) == sum(rows.GROUPS.values()) == 100
    missing = {row for row, tests in found.items() if not tests}
    assert missing == set(rows.NOT_SHOWN)
