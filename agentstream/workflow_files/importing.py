"""Finding what "module:name" names: the one place where a workflow file's code is run."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from typing import Any, List

from agentstream.errors import ConfigError
from agentstream.workflow.definition import check_function

__all__ = ["Importer"]


class Importer:
    """Imports as a script in `folder` would: that folder comes first.  A context manager.

    The folder stays on the import path until the block is left, for what a
    function imports when it runs.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __enter__(self) -> Importer:
        sys.path.insert(0, self._folder)
        importlib.invalidate_caches()  # the file may be a second old
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder in sys.path:
            sys.path.remove(self._folder)

    def find(self, source: str) -> Any:
        """What can be called under that name.

        Raises:
            ConfigError: as `find_any`; or it cannot be called.
        """
        found = self.find_any(source)
        if not callable(found):
            raise ConfigError(f"{source} is of type {type(found).__name__}: it cannot be called")
        check_function(found, source)
        return found

    def find_any(self, source: str) -> Any:
        """What has that name.

        Raises:
            ConfigError: the module is not there, or fails; the name is not there.
        """
        name, _, attribute = source.partition(":")
        found: Any = self._module(name)
        for part in attribute.split("."):
            try:
                found = getattr(found, part)
            except AttributeError:
                close = difflib.get_close_matches(part, [n for n in dir(found) if n[0] != "_"], 1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise ConfigError(f"{name} has no {part!r}{hint}") from None
        return found

    def _module(self, name: str) -> Any:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
                close = difflib.get_close_matches(name, self._neighbours(), 1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise ConfigError(
                    f"there is no module {name!r}, in {self._folder} or installed{hint}"
                ) from None
            raise ConfigError(f"importing {name} failed: {_said(error)}") from error
        except (Exception, SystemExit) as error:  # it is the user's code
            raise ConfigError(f"importing {name} failed: {_said(error)}") from error
        self._check_place(name.partition(".")[0])
        return module

    def _check_place(self, top: str) -> None:
        """Another file's module of that name may have been imported before."""
        place = os.path.join(self._folder, top)
        file = getattr(sys.modules.get(top), "__file__", None)
        ours = [p for p in (f"{place}.py", os.path.join(place, "__init__.py")) if os.path.isfile(p)]
        if ours and file and os.path.realpath(file) not in map(os.path.realpath, ours):
            raise ConfigError(
                f"{top} was imported from {file}, not from {self._folder}: give one another name"
            )

    def _neighbours(self) -> List[str]:
        try:
            names = os.listdir(self._folder)
        except OSError:
            return []
        return [name[:-3] for name in names if name.endswith(".py")]


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"
