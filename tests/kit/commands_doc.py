"""What `--help` says of each command, in docs/command-line.rst, made of the parser.

python -m tests.kit.commands_doc    # writes it there
"""

from __future__ import annotations

import pathlib
import textwrap

from agentstream.cli.parser import parsers

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/command-line.rst"
_BEGIN = ".. What follows is made by ``python -m tests.kit.commands_doc``.\n\n"
_END = ".. End of what is made.\n"


def _section(name: str, text: str) -> str:
    shown = textwrap.indent(text.rstrip(), "    ")
    return f"{name}\n{'~' * len(name)}\n\n.. code-block:: text\n\n{shown}\n"


def written() -> str:
    """The page, with what the parser says in its place."""
    head, begin, rest = PAGE.read_text("utf-8").partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    assert begin and end, "the page has no place for it"
    _, commands = parsers()
    sections = [_section(name, command.format_help()) for name, command in commands.items()]
    return head + begin + "\n".join(sections) + "\n" + end + tail


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
