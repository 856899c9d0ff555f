"""Work for threads: held until it is let go; and a machine that has no thread left."""

from __future__ import annotations

import threading
from typing import Any, Iterator

from agentstream import CancelToken
from agentstream.errors import Cancelled
from tests.kit.support import FunctionClient


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


class Holding(FunctionClient):
    """A model that says "begun", then holds until it is let go or stopped."""

    def __init__(self, obedient: bool = True) -> None:
        self.begun = threading.Semaphore(0)
        self.go = CancelToken()
        self.obedient = obedient
        super().__init__(self.answer)

    def answer(self, request: Any, cancel: CancelToken) -> Iterator[str]:
        yield "begun"
        self.begun.release()
        if self.obedient:
            key = cancel.add_callback(self.go.cancel)
            self.go.wait(10)
            cancel.remove_callback(key)
            if cancel.cancelled:
                raise Cancelled("stopped")
        else:
            self.go.wait(10)
        yield " done"

    def wait_begun(self) -> None:
        assert self.begun.acquire(timeout=5)
