"""SIGTERM as an exit of the program, so that runs are closed."""

from __future__ import annotations

import sys
import threading
import time
import weakref
from types import FrameType
from typing import Optional

from agentstream import threads

__all__ = ["exit_on_sigterm"]

#: Seconds to the next try where an exit would go unnoticed.
_AGAIN_S = 0.01
#: The files whose functions are called back as an object goes.
_WEAK = {
    function.__code__.co_filename
    for function in (weakref.WeakSet.__init__, weakref.finalize.__init__)
}


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
    """True if Python would print an exception raised there, and go on.

    That is so in a finalizer, and in what weakref's containers do as an object goes.
    """
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__del__" or code.co_filename in _WEAK:
            return True
        frame = frame.f_back
    return False
