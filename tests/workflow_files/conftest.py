"""Fixtures of these tests: a file that is written, and a module for it to name."""

from __future__ import annotations

import importlib
import pathlib
import sys
import textwrap
from typing import Any, Iterator, List

import pytest


@pytest.fixture
def write(tmp_path: pathlib.Path) -> Any:
    def write(text: Any, name: str = "demo.toml") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        return str(path)

    return write


@pytest.fixture
def module(write: Any) -> Iterator[Any]:
    """Write a module beside the workflow file; it is forgotten afterwards."""
    names: List[str] = []

    def make(name: str, text: str) -> None:
        names.append(pathlib.Path(name).stem)
        write(text, f"{name}.py")

    path = list(sys.path)
    yield make
    assert sys.path == path
    for name in names:
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
