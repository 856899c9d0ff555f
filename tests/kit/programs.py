"""Programs for the process rows: a script in an interpreter of its own, its output, its end."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any, Callable, Dict, List

PROJECT = pathlib.Path(__file__).resolve().parents[2]

#: What every script begins with.  `note` is a callback that writes a file a line an event;
#: Stubborn is a model that no cancel stops, and says on standard output that it was asked.
PRELUDE = """
import atexit, os, signal, sys, threading, time
from agentstream import *
from agentstream.llm.messages import Delta

arguments = sys.argv[1:]

def say(*words):  # in one write: several threads do
    os.write(1, (" ".join(map(str, words)) + chr(10)).encode())

class note:
    def __init__(self, path):
        self.file = open(path, "a")
    def __call__(self, event):
        self.file.write(event.workflow_id + " " + event.type.value + chr(10))
        self.file.flush()

class Stubborn(ChatClient):
    model = "stubborn"
    def stream_deltas(self, request, *, cancel=None):
        yield Delta("begun")
        cancel.add_callback(lambda: say("asked to stop"))
        say("begun")
        threading.Event().wait(60)
"""


def environment() -> Dict[str, str]:
    """Ours, but with standard output buffered, as it is for users."""
    settings = {**os.environ, "PYTHONPATH": str(PROJECT)}
    settings.pop("PYTHONUNBUFFERED", None)
    return settings


def settle(pid: int) -> None:
    """Wait until a process's main thread waits, up to 5 s."""
    asleep = 0
    end = time.monotonic() + 5
    while asleep < 5 and time.monotonic() < end:
        try:
            stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        except OSError:  # no /proc here
            stat = ") S"
        asleep = asleep + 1 if stat.rpartition(")")[2].split()[0] == "S" else 0
        threading.Event().wait(0.002)


class Program:
    """A running script.  `say`s are its protocol: `expect` waits for one."""

    def __init__(
        self, source: str, *arguments: str, prelude: str = PRELUDE, env: Any = (), **popen: Any
    ) -> None:
        popen.setdefault("stdout", subprocess.PIPE)
        settings = {**environment(), **dict(env)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", prelude + textwrap.dedent(source), *arguments],
            stderr=subprocess.PIPE,
            env=settings,
            **popen,
        )
        self.lines: List[str] = []
        self.errors = ""
        self._bark = threading.Timer(60, self.process.kill)
        self._bark.start()

    def expect(self, text: str) -> None:
        """Read lines up to one that is `text`."""
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            self.lines.append(raw.decode().rstrip("\n"))
            if self.lines[-1] == text:
                return
        raise AssertionError(f"never said {text!r}: {self.lines} {self.finish()} {self.errors}")

    def send(self, number: int) -> float:
        """Send a signal once the main thread waits; returns when.

        Before that there is a moment in which CPython sees a signal only after the
        wait: `threads.slices` bounds ours, a recv of the main thread has it.
        """
        settle(self.process.pid)
        now = time.monotonic()
        self.process.send_signal(number)
        return now

    def finish(self) -> int:
        """Wait for the end; returns the exit status."""
        self.process.wait(60)  # first, so that what follows does not count
        self.ended = time.monotonic()
        self._bark.cancel()
        self._bark.join()
        if self.process.stdout is not None and not self.process.stdout.closed:
            self.lines += self.process.stdout.read().decode().splitlines()
            self.process.stdout.close()
        assert self.process.stderr is not None
        self.errors = self.process.stderr.read().decode()
        self.process.stderr.close()
        return self.process.returncode

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        if self._bark.is_alive():
            self.finish()


def run(source: str, *arguments: str, **options: Any) -> Program:
    """A script run to its end."""
    with Program(source, *arguments, **options) as program:
        program.status = program.finish()  # type: ignore[attr-defined]
        return program


def within(seconds: float, attempt: Callable[[], float], times: int = 4) -> None:
    """Hold the quickest of a few attempts against a bound: the machine may be busy, not all day."""
    took: List[float] = []
    for _ in range(times):
        took.append(attempt())
        if took[-1] <= seconds:
            return
    raise AssertionError(f"never within {seconds} s: {took}")


INTERRUPTED = -signal.SIGINT
