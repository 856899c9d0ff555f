"""The programs in docs/embedding.rst, written and started as a reader would."""

from __future__ import annotations

import contextlib
import pathlib
import re
import subprocess
import sys
import textwrap
from typing import Any, Dict, Iterator, List, Tuple

from agentstream.testing import Hang, text_chunks
from tests.kit.programs import PROJECT, environment

DOCUMENT = (PROJECT / "docs" / "embedding.rst").read_text("utf-8")
WORDS = text_chunks("Hello", " world", "!")
BEGUN = [*WORDS[:2], Hang()]
#: Where the recipes think that their model is.
MODEL = "http://127.0.0.1:8080"


def recipes(document: str = DOCUMENT) -> Dict[str, str]:
    """The document's Python blocks by the name in their first line."""
    blocks = re.findall(
        r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", document + "\n", re.MULTILINE
    )
    sources = [textwrap.dedent(block).strip() + "\n" for block in blocks]
    return {source.partition("\n")[0].replace("# ", "", 1): source for source in sources}


def source(name: str, *changes: Tuple[str, str], document: str = DOCUMENT) -> str:
    """A recipe with addresses and times of the test's own; each of `changes` must be in it."""
    text = recipes(document)[name]
    for old, new in changes:
        assert old in text, f"{name} no longer has {old!r}"
        text = text.replace(old, new)
    return text


def write(
    folder: pathlib.Path, name: str, *changes: Tuple[str, str], document: str = DOCUMENT
) -> None:
    """Write a recipe to its file, with changes as `source` makes them."""
    (folder / name).write_text(source(name, *changes, document=document), "utf-8")


@contextlib.contextmanager
def started(folder: pathlib.Path, *command: str, **popen: Any) -> Iterator[subprocess.Popen[str]]:
    """A program of the recipe's; its standard error goes to the file `errors`."""
    with (folder / "errors").open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            stderr=errors,
            text=True,
            env={**environment(), "HOME": str(folder)},
            **popen,
        )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def lines_of(folder: pathlib.Path) -> List[str]:
    """What the programs in a folder have written to standard error."""
    return (folder / "errors").read_text().splitlines()
