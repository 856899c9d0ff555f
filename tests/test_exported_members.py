"""`agentstream.__all__` held to the truth: what is there, what type checkers see, what is listed."""

from __future__ import annotations

import ast
import importlib
import pathlib
import subprocess
import sys
from typing import Dict

import agentstream
from agentstream import errors

SOURCE = ast.parse(pathlib.Path(agentstream.__file__).read_text("utf-8"))


def seen_by_type_checkers() -> Dict[str, str]:
    """The names that are imported for them, `from module import name as name`, with the module."""
    (block,) = [
        node
        for node in SOURCE.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    found: Dict[str, str] = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.name == alias.asname, f"{alias.name}: strict checkers want `as`"
            assert alias.name not in found
            found[alias.name] = node.module or ""
    return found


def test_what_runs_is_what_type_checkers_see():
    assert agentstream._MODULES == seen_by_type_checkers()
    assert agentstream.__all__ == sorted({*agentstream._MODULES, "__version__"})


def test_every_name_comes_from_its_home_and_is_public_there():
    for name, module in agentstream._MODULES.items():
        home = importlib.import_module(module)
        assert getattr(agentstream, name) is getattr(home, name)
        assert name in home.__all__, f"{module}.__all__ lacks {name}"


def test_every_error_is_exported():
    assert set(errors.__all__) <= set(agentstream.__all__)


def test_a_star_import_gives_the_public_names_and_no_others():
    code = (
        "from agentstream import *\n"
        "import agentstream\n"
        "got = {name for name in dir() if not name.startswith('__')} - {'agentstream'}\n"
        "assert got == set(agentstream.__all__) - {'__version__'}, got\n"
        "assert set(agentstream.__all__) <= set(dir(agentstream))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
