"""Another process on a shared log, for `SharedStoreConformance`: it writes two runs, and dies.

Run as a program it is that process: it reads on its standard input how a store is made.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from typing import Any, Callable, Dict, List

from agentstream.errors import AgentStreamError
from agentstream.events.model import EventType
from agentstream.events.store import EventStore
from agentstream.testing.stores import event

__all__ = ["Opener", "OtherProcess"]

#: Makes a store on one certain log.
Opener = Callable[[], EventStore]

_RUNS = ("plain", "kept")
_PROGRAM = "import sys, json; sys.path[:] = json.loads(sys.stdin.readline()); "
_PROGRAM += "from agentstream.testing import shared_process; shared_process.main()"


class OtherProcess:
    """A process that has begun two runs, with two events each; a context manager.

    Args:
        opener: makes its store.

    Attributes:
        last: the offset of each run's newest event; "kept" has a checkpoint, "plain" none.
    """

    def __init__(self, opener: Opener) -> None:
        command = [sys.executable, "-c", _PROGRAM]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        try:
            self._say(json.dumps(sys.path))
            self._say(pickle.dumps(opener).hex())
            self.last: Dict[str, int] = self._answer()
        except BaseException:
            self.kill()
            raise

    def write_on(self) -> Dict[str, str]:
        """Have it append two further events of each run; returns what that raised, by run."""
        self._say("on")
        found: Dict[str, str] = self._answer()
        return found

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as kill -9 does.  Idempotent."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the other process has failed: see its standard error"
        return json.loads(line)

    def __enter__(self) -> OtherProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


# --- in that process ------------------------------------------------------------------------


def main() -> None:
    """Begin the runs, and wait; with each line that comes, write on."""
    store: EventStore = pickle.loads(bytes.fromhex(sys.stdin.readline()))()
    for name in _RUNS:
        store.claim(name)
        if name == "kept":
            store.need_checkpoints().begin(name)
        store.append(event(name, 1, EventType.WORKFLOW_STARTED, {"workflow": "demo"}))
        store.append(event(name, 2, data={"chunk": "some words"}))
    store.need_checkpoints().write("kept", {"a": b"1"})
    store.flush()
    last = {name: store.bounds(name).last for name in _RUNS}
    _answer(last)
    for _ in sys.stdin:
        _answer({name: _append(store, name, last[name]) for name in _RUNS})


def _append(store: EventStore, name: str, last: int) -> str:
    """The name of what two further events of a run are refused with; "" for nothing."""
    errors: List[str] = [""]
    for n in (last + 1, last + 2):
        try:
            store.append(event(name, n))
            store.flush()
        except AgentStreamError as error:
            errors.append(type(error).__name__)
    return errors[-1]


def _answer(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
