"""Work for threads: held until it is let go; and a machine that has no thread left."""

from __future__ import annotations

import threading
from typing import Any


def no_thread(*_: Any, **__: Any) -> None:
    raise RuntimeError("can't start new thread")


class Held:
    """Work that goes on until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.go.wait(10)
        return threading.current_thread().name
