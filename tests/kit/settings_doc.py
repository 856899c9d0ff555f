"""The table of settings in README.rst and docs/settings.rst, made of agentstream.cli.table.

python -m tests.kit.settings_doc    # writes it into both
"""

from __future__ import annotations

import pathlib
from typing import Dict, List

from agentstream.cli.table import SETTINGS, Setting

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = ("README.rst", "docs/settings.rst")
_BEGIN = ".. The table is made by ``python -m tests.kit.settings_doc``.\n\n"
_END = ".. End of the table.\n"


def _cells(setting: Setting) -> List[str]:
    flag = f"``{setting.flag}``" if setting.flag else "\\-"
    key = f"``{setting.name}``" if setting.in_file else "\\-"
    return [flag, f"``{setting.variable}``", key, setting.about.replace("`", "``")]


def table() -> str:
    """The table, as reStructuredText."""
    rows = [["flag", "variable", "key of the file", "what"], *map(_cells, SETTINGS)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(f"{c:{w}}" for c, w in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule]) + "\n"


def written() -> Dict[str, str]:
    """Each page's text with the table in its place."""
    found = {}
    for page in PAGES:
        head, begin, rest = (ROOT / page).read_text("utf-8").partition(_BEGIN)
        _, end, tail = rest.partition(_END)
        assert begin and end, f"{page} has no place for the table"
        found[page] = f"{head}{begin}{table()}\n{end}{tail}"
    return found


if __name__ == "__main__":
    for page, text in written().items():
        (ROOT / page).write_text(text, encoding="utf-8")
