"""A process that begins or resumes the run of tests/kit/durable_work.py, and may kill itself.

    python -m tests.kit.durable_program LOG URL ID [--kill-at N] [--how kill|term|int|dirty]
                                        [--moment before|after|settled|writing|wrote|effect]
                                        [--approve]
    python -m tests.kit.durable_program --serve

The N-th append to the log is the place: before it, after it, or once it is settled, which makes
each append settle (durability full); the N-th beginning or write of a checkpoint, before or after
it; the N-th effect, before its tool returns.  "dirty" is a kill after which only what had been
synced is there: LOG.synced names the folder with the log's files as they were after the last
commit.  With --approve each pending call is answered yes first.  The ledger is LOG.ledger.
Prints a line of JSON: status, output, usage, pending, appends, writes.

With --serve it reads such arguments from standard input, a JSON list a line, and runs each in a
fork of itself, whose exit status, as subprocess has it, it prints as {"exit": N}: a process for
the price of a fork.  A process that does not end within a minute prints where it hangs.
"""

from __future__ import annotations

import argparse
import faulthandler
import functools
import glob
import json
import os
import shutil
import signal
import sys
import threading
from typing import Any, Callable, List, Optional, Tuple

from agentstream import Approval, EventStream, Runtime, SqliteStore
from agentstream.events.model import Event
from agentstream.runtime.exits import exit_on_sigterm
from tests.kit.durable_work import INPUT, Ledger, client_of, workflow

HANGS_S = 60
MOMENTS = ("before", "after", "settled", "writing", "wrote", "effect")


class MortalStore(SqliteStore):
    """A SqliteStore that kills its process at an append.

    Attributes:
        appends, writes: how many there were, of events and of checkpoints.
    """

    def __init__(self, path: str, *, at: int, how: str, moment: str) -> None:
        self.appends = self.writes = self._effects = 0
        self._at, self._how, self._moment = at, how, moment
        self._doomed: Optional[Tuple[str, int]] = None  # whose settling is the place
        self._counting = threading.Lock()
        super().__init__(path, durability="full" if "settled" in (moment, how) else "normal")
        for name in ("begin", "write"):
            method = getattr(self.checkpoints, name)
            setattr(self.checkpoints, name, functools.partial(self._write, method))

    def append(self, fields: Tuple[Any, ...]) -> Event:
        with self._counting:
            self.appends += 1
            is_here = self.appends == self._at
        if is_here and self._moment == "before":
            self._die()
        event = super().append(fields)
        if is_here and self._moment == "after":
            self._die()
        if is_here and self._moment == "settled":
            self._doomed = event.workflow_id, event.offset
        return event

    def _write(self, method: Callable[..., object], *args: Any, **options: Any) -> None:
        with self._counting:
            self.writes += 1
            is_here = self.writes == self._at
        if is_here and self._moment == "writing":
            self._die()
        method(*args, **options)
        if is_here and self._moment == "wrote":
            self._die()

    def settle(self, event: Event) -> None:
        super().settle(event)
        if (event.workflow_id, event.offset) == self._doomed:
            self._die()

    def note_effect(self) -> None:
        """A tool has had its effect."""
        with self._counting:
            self._effects += 1
            is_here = self._effects == self._at
        if is_here and self._moment == "effect":
            self._die()

    def _die(self) -> None:
        number = {"term": signal.SIGTERM, "int": signal.SIGINT}.get(self._how, signal.SIGKILL)
        os.kill(os.getpid(), number)


class SyncedStore(MortalStore):
    """One that settles each append, and copies its files after each commit: all that was synced."""

    def __init__(self, path: str, **settings: Any) -> None:
        super().__init__(path, **{**settings, "how": "settled"})
        self._path, self._copies = path, 0
        committer = self._writer.committer
        commit = committer.commit

        def commit_and_copy(*args: Any) -> bool:
            more = commit(*args)
            self._copy()
            return more

        committer.commit = commit_and_copy  # type: ignore[method-assign]

    def _copy(self) -> None:
        folder = f"{self._path}.copy-{os.getpid()}-{self._copies}"
        self._copies += 1
        os.mkdir(folder)
        for file in (self._path, f"{self._path}-wal"):
            if os.path.exists(file):
                shutil.copy(file, folder)
        with open(f"{self._path}.synced-new", "w") as pointer:
            pointer.write(folder)
        os.replace(f"{self._path}.synced-new", f"{self._path}.synced")
        for older in glob.glob(f"{self._path}.copy-*"):
            if older != folder:
                shutil.rmtree(older)


def restore(path: str) -> bool:
    """Bring back what had been synced when a process was killed "dirty"; False if nothing had."""
    try:
        with open(f"{path}.synced") as pointer:
            folder = pointer.read()
    except FileNotFoundError:
        return False
    for file in glob.glob(f"{path}-shm") + glob.glob(f"{path}-wal"):
        os.remove(file)
    for file in os.listdir(folder):
        shutil.copy(os.path.join(folder, file), os.path.dirname(path))
    os.remove(f"{path}.synced")
    return True


def parse(arguments: List[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("log", "url", "id"):
        parser.add_argument(name)
    parser.add_argument("--kill-at", type=int, default=0)
    parser.add_argument("--how", choices=["kill", "term", "int", "dirty"], default="kill")
    parser.add_argument("--moment", choices=MOMENTS, default="after")
    parser.add_argument("--approve", action="store_true")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    """Begin the run, or resume it, and print what it came to."""
    exit_on_sigterm()
    kind = SyncedStore if options.how == "dirty" else MortalStore
    store = kind(options.log, at=options.kill_at, how=options.how, moment=options.moment)
    with client_of(options.url) as client:
        flow = workflow(client, Ledger(f"{options.log}.ledger", store.note_effect))
        with Runtime(event_stream=EventStream(store), checkpoints=True) as runtime:
            if options.approve:
                for name in (options.id, f"{options.id}~2"):
                    for call in runtime.pending(name):
                        runtime.approve(name, call.id, Approval.yes(), by="test")
            ended = runtime.run(flow, INPUT, workflow_id=options.id, resume=True)
    found = {
        "status": ended.status,
        "output": ended.output,
        "usage": None if ended.usage is None else ended.usage._asdict(),
        "pending": [call._asdict() for call in ended.pending],
        "appends": store.appends,
        "writes": store.writes,
    }
    print(json.dumps(found), flush=True)


def serve() -> Optional[argparse.Namespace]:
    """Fork for each line of standard input.  Returns in the forks, with their arguments."""
    for line in iter(sys.stdin.readline, ""):
        arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            options = parse(arguments)
            errors = os.open(f"{options.log}.errors", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(errors, 2)
            return options
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps({"exit": status}), flush=True)
    return None


if __name__ == "__main__":
    options = serve() if sys.argv[1:] == ["--serve"] else parse(sys.argv[1:])
    if options is not None:
        faulthandler.dump_traceback_later(HANGS_S, exit=True)
        run(options)
