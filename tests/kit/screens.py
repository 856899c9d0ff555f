"""What a console is fed, and terminals to read it from."""

from __future__ import annotations

import io
import os
import re
import sys
import unicodedata
from typing import Any, Callable, List, Optional

import pytest

from agentstream import EventType
from agentstream.console import Console
from agentstream.events.model import Event
from tests.kit.support import Task, wait_until

E = EventType


class Feed:
    """A console into a text, and the events to feed it by hand."""

    def __init__(self, console: Optional[Callable[[Event], object]] = None) -> None:
        self.file = io.StringIO()
        self.console = console or Console(self.file)
        self.now = 1000.0

    @property
    def text(self) -> str:
        return self.file.getvalue()

    def __call__(
        self, kind: EventType, run: str = "w", parent: Optional[str] = None, /, **data: Any
    ) -> None:
        self.console(Event("id", 1, 1, kind, run, parent, self.now, data))

    def start(self, run: str = "w", parent: Optional[str] = None) -> None:
        self(E.WORKFLOW_STARTED, run, parent, workflow=run, steps=())

    def step(self, label: str, name: str, kind: str = "Agent", run: str = "w", **data: Any) -> None:
        self(E.WORKFLOW_STEP_STARTED, run, step=label, name=name, kind=kind, **data)

    def done(self, label: str, name: str = "", run: str = "w") -> None:
        self(E.WORKFLOW_STEP_COMPLETED, run, step=label, name=name, kind="")

    def failed(self, label: str, message: str, run: str = "w", **data: Any) -> None:
        self(E.WORKFLOW_STEP_FAILED, run, step=label, message=message, error="E", **data)

    def begin(self, label: str, agent: str, run: str = "w") -> None:
        self(E.AGENT_PROCESSING, run, step=label, agent=agent)

    def say(self, label: str, agent: str, text: str, run: str = "w") -> None:
        self(E.AGENT_LLM_STREAM_CHUNK, run, step=label, agent=agent, chunk=text)

    def agent_done(self, label: str, agent: str, run: str = "w") -> None:
        self(E.AGENT_COMPLETED, run, step=label, agent=agent)

    def agent(self, label: str, agent: str, text: str, run: str = "w") -> None:
        """An agent's step from its beginning to its end."""
        self.step(label, agent, run=run)
        self.begin(label, agent, run)
        self.say(label, agent, text, run)
        self.agent_done(label, agent, run)
        self.done(label, agent, run)

    def parallel(self, *branches: str, agent: str = "") -> None:
        """A Parallel as step 0, whose branches' agents have all begun."""
        self.start()
        self.step("0", "parallel", "Parallel")
        for branch in branches:
            self.step(f"0.{branch}", branch)
            self.begin(f"0.{branch}", agent or branch)


# --- the status line ------------------------------------------------------------------------


class Screen:
    """As much of a terminal as it takes: what would be seen of the bytes sent to it."""

    def __init__(self, columns: int, rows: int = 6) -> None:
        self.columns, self.rows = columns, rows
        self.cells = [[" "] * columns for _ in range(rows)]
        self.scrolled: List[str] = []
        self.row = self.column = 0
        self.saved = (0, 0)

    def feed(self, text: str) -> Screen:
        pattern = r"\x1b\[(\d*)([A-Za-z])|\x1b([78D])|([^\x1b])"
        assert re.sub(pattern, "", text) == "", "unknown sequences"
        for count, command, short, char in re.findall(pattern, text, re.DOTALL):
            if char:
                self.put(char)
            elif short:
                self.short(short)
            else:
                self.command(command, count)
        return self

    def put(self, char: str) -> None:
        if char == "\r":
            self.column = 0
        elif char == "\n":  # the terminal's driver has made it CR LF
            self.down()
        elif not unicodedata.combining(char):
            width = min(2 if unicodedata.east_asian_width(char) in "WF" else 1, self.columns)
            if self.column + width > self.columns:  # only now: a full line waits
                self.column = 0
                self.down()
            self.cells[self.row][self.column] = char
            if width == 2:
                self.cells[self.row][self.column + 1] = ""
            self.column += width

    def down(self) -> None:
        if self.row == self.rows - 1:
            self.scrolled.append("".join(self.cells.pop(0)).rstrip())
            self.cells.append([" "] * self.columns)
        else:
            self.row += 1

    def short(self, command: str) -> None:
        if command == "7":
            self.saved = (self.row, self.column)
        elif command == "8":
            self.row, self.column = self.saved
        else:
            self.down()

    def command(self, command: str, count: str) -> None:
        assert self.column < self.columns or command in "mx", "where the cursor is nobody knows"
        if command == "A":
            self.row = max(0, self.row - 1)
        elif command in "KJ":
            self.cells[self.row][self.column :] = [" "] * (self.columns - self.column)
            for below in range(self.row + 1, self.rows) if command == "J" else ():
                self.cells[below] = [" "] * self.columns
        else:
            assert command in "mx"

    @property
    def lines(self) -> List[str]:
        return [*self.scrolled, *("".join(row).rstrip() for row in self.cells)]

    @property
    def text(self) -> str:
        return "\n".join(self.lines).rstrip()


pty_only = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals of POSIX")


class Terminal:
    """A pseudo-terminal; `files` are two text files on it, as standard output and error are."""

    def __init__(self, columns: int) -> None:
        import fcntl
        import pty
        import struct
        import termios

        self.columns = columns
        self._master, worker = pty.openpty()
        fcntl.ioctl(worker, termios.TIOCSWINSZ, struct.pack("HHHH", 6, columns, 0, 0))
        self.files = [open(os.dup(worker), "w", encoding="utf-8") for _ in range(2)]
        os.close(worker)
        self.sent = b""
        self._reader = Task(self._read)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # as Linux tells the end
                return
            if not data:
                return
            self.sent += data

    def screen(self) -> Screen:
        """What is seen; waits until it is still."""
        mark = f"\x1b[{len(self.sent)}x"  # says nothing to a screen
        self.files[0].write(mark)
        self.files[0].flush()
        wait_until(lambda: mark.encode() in self.sent)
        return Screen(self.columns).feed(self.sent.decode())

    def close(self) -> str:
        for file in self.files:
            file.close()
        self._reader.result()
        os.close(self._master)
        return self.sent.decode()
