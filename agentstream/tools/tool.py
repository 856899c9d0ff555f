"""`import agentstream.tools.tool as m` gives this module, as it reads.

`from agentstream.tools import tool` means the decorator, and both come down to one attribute
of the package.  So the module can be called as the decorator is: whichever of the two
the package holds, both imports do what they say.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from agentstream.tools._tool import Tool, as_tool, tool

__all__ = ["Tool", "as_tool", "tool"]


class _Decorator(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return tool(*args, **kwargs)


sys.modules[__name__].__class__ = _Decorator
