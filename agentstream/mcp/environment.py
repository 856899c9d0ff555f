"""What a server's process inherits of our environment: what programs need, and no secrets.

A key of ours is none of the server's business; `env=` gives what it needs.
"""

from __future__ import annotations

import os
from typing import Dict, Mapping, Optional

__all__ = ["environment_with"]


def environment_with(own: Optional[Mapping[str, str]]) -> Dict[str, str]:
    """The environment of a server: the system's usual variables, and then `own`."""
    usual: Dict[str, Optional[str]] = {
        "HOME": os.environ.get("HOME"),
        "LANG": os.environ.get("LANG"),
        "LC_ALL": os.environ.get("LC_ALL"),
        "LOGNAME": os.environ.get("LOGNAME"),
        "PATH": os.environ.get("PATH"),
        "SHELL": os.environ.get("SHELL"),
        "TERM": os.environ.get("TERM"),
        "TMPDIR": os.environ.get("TMPDIR"),
        "TZ": os.environ.get("TZ"),
        "USER": os.environ.get("USER"),
    }
    if os.name == "nt":
        usual.update(
            {
                "APPDATA": os.environ.get("APPDATA"),
                "COMSPEC": os.environ.get("COMSPEC"),
                "LOCALAPPDATA": os.environ.get("LOCALAPPDATA"),
                "PATHEXT": os.environ.get("PATHEXT"),
                "PROGRAMFILES": os.environ.get("PROGRAMFILES"),
                "SYSTEMDRIVE": os.environ.get("SYSTEMDRIVE"),
                "SYSTEMROOT": os.environ.get("SYSTEMROOT"),
                "TEMP": os.environ.get("TEMP"),
                "USERNAME": os.environ.get("USERNAME"),
                "USERPROFILE": os.environ.get("USERPROFILE"),
            }
        )
    found = {name: value for name, value in usual.items() if value is not None}
    return {**found, **(own or {})}
