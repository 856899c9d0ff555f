"""Runs a command that fetches, and once more where the network or a registry failed.

Only the standard library: whoever fetches does so before anything is installed.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any, Sequence

__all__ = ["run"]

#: Seconds before each further attempt.
_WAITS = (5.0, 20.0)


def run(command: Sequence[str], **options: Any) -> None:
    """Run a command as `subprocess.run` does, up to three times.

    Raises:
        subprocess.CalledProcessError: it failed each time, as the last time.
        subprocess.TimeoutExpired: the same, and the last time took too long.
    """
    for wait in _WAITS:
        try:
            subprocess.run(command, check=True, **options)
            return
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(f"again in {wait:g} s: {error}", file=sys.stderr, flush=True)
            threading.Event().wait(wait)
    subprocess.run(command, check=True, **options)
