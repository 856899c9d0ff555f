"""How the docs are built: `python -m sphinx -W docs docs/_build/html`."""

import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from agentstream import __version__

project = "agentstream"
author = "The agentstream authors"
version = release = __version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "examples"]
html_theme = "furo"
html_title = "agentstream"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
suppress_warnings = ["ref.python"]  # `name` is an attribute of many

_NAME = re.compile(r"(?<!`)`([^`]+)`(?!`)")


def _as_code(app, what, name, obj, options, lines):
    """A docstring's `name` as literal text, also in the plural (`Event`s)."""
    lines[:] = _NAME.sub(r"``\1``\\ ", "\n".join(lines)).split("\n")


def setup(app):
    app.connect("autodoc-process-docstring", _as_code, priority=900)
