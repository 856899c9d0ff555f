"""SIGTERM as an exit of the program, so that runs are closed."""

from __future__ import annotations

import sys
import threading
import time
from types import FrameType
from typing import Optional

from agentstream import threads

__all__ = ["exit_on_sigterm"]

#: Seconds to the next try where an exit would go unnoticed.
_AGAIN_S = 0.01


def exit_on_sigterm() -> None:
    """Make SIGTERM end the program as `sys.exit(143)` would, so that `with` blocks close runs.

    By default SIGTERM runs neither `finally` nor atexit.  Call it once, from
    the main thread.

    Raises:
        ValueError: this is not the main thread.
    """
    import signal  # noqa: PLC0415 - a millisecond that only who wants this pays

    main = threading.get_ident()
    again = threads.Alarm(lambda _: signal.pthread_kill(main, signal.SIGTERM), grain=3600.0)

    def leave(_: int, frame: Optional[FrameType]) -> None:
        if _is_swallowed(frame) and hasattr(signal, "pthread_kill"):
            threads.arm(again, time.monotonic() + _AGAIN_S)
        else:
            sys.exit(143)

    signal.signal(signal.SIGTERM, leave)


def _is_swallowed(frame: Optional[FrameType]) -> bool:
    """True if Python would print an exception raised there, and go on: in a finalizer."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False
