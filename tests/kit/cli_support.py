"""`agentstream ...` as a process: its arguments, its three streams, a terminal, its end.

The environment is what cron gives: HOME and PATH, and what the test adds.  The
marked key is in it, and no output of any command may show it, none may leave a
process behind.
"""

from __future__ import annotations

import json
import os
import pathlib
import selectors
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest

from agentstream.cli import main
from agentstream.testing import ScriptedServer
from tests.kit.programs import settle
from tests.kit.support import KEY, hunt

PROJECT = pathlib.Path(__file__).resolve().parents[2]
#: What a shell calls it.
NAME = f"{sys.executable} -m agentstream"
PATIENCE = 60.0
OPEN = object()  # standard input: a pipe that somebody holds open, and writes nothing to


#: Makes standard input the controlling terminal, then is the program.
_IN_CONTROL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Command:
    """A running command.

    Attributes:
        out, err: what its standard output and standard error had so far.
        screen: what its terminal shows, if it has one.
        began, ended: when it was started and when it was over.
    """

    def __init__(
        self, words: List[str], env: Dict[str, str], stdin: Any, terminal: str, **popen: Any
    ) -> None:
        self._files: Dict[int, bytearray] = {}
        self._held: List[int] = []
        self._selector = selectors.DefaultSelector()
        self._raw = {name: bytearray() for name in ("stdout", "stderr", "terminal")}
        given: Dict[str, Any] = {"stdin": subprocess.DEVNULL, **popen}
        theirs = []
        for name in ("stdout", "stderr"):
            if name not in given:
                reading, given[name] = os.pipe()
                theirs.append(given[name])
                self._read(reading, name)
        if isinstance(stdin, bytes) or stdin is OPEN:
            given["stdin"], writing = os.pipe()
            theirs.append(given["stdin"])
            if stdin is OPEN:
                self._held.append(writing)
            else:
                os.write(writing, stdin)  # no more than a pipe holds
                os.close(writing)
        if terminal:
            import pty  # not on Windows, where conftest imports this, too

            reading, slave = pty.openpty()
            theirs.append(slave)
            self._read(reading, "terminal")
            self._keyboard = reading
            given.update(dict.fromkeys(terminal.split(), slave))
        self.began = self.ended = time.monotonic()
        self.process = subprocess.Popen(words, env=env, start_new_session=True, **given)
        for descriptor in theirs:
            os.close(descriptor)
        self._bark = threading.Timer(PATIENCE, self.process.kill)
        self._bark.start()

    def _read(self, descriptor: int, name: str) -> None:
        self._files[descriptor] = self._raw[name]
        self._selector.register(descriptor, selectors.EVENT_READ)

    @property
    def out(self) -> str:
        return self._raw["stdout"].decode("utf-8", "replace")

    @property
    def err(self) -> str:
        return self._raw["stderr"].decode("utf-8", "replace")

    @property
    def screen(self) -> str:
        return self._raw["terminal"].decode("utf-8", "replace")

    @property
    def shown(self) -> str:
        return self.out + self.err + self.screen

    def _pump(self, timeout: float) -> bool:
        """Take in what there is; returns False if all is closed."""
        for key, _ in self._selector.select(timeout):
            try:
                data = os.read(key.fd, 65536)
            except OSError:  # a terminal without anybody at its other end
                data = b""
            if data:
                self._files[key.fd] += data
            else:
                self._selector.unregister(key.fd)
                os.close(key.fd)
                del self._files[key.fd]
        return bool(self._files)

    def expect(self, text: str, timeout: float = 30.0) -> None:
        """Read until `text` has been written, to wherever."""
        end = time.monotonic() + timeout
        while text not in self.shown:
            left = end - time.monotonic()
            assert left > 0 and self._pump(min(left, 0.5)), f"no {text!r} in {self.shown!r}"

    def type(self, keys: bytes) -> None:
        """Press keys at its terminal."""
        os.write(self._keyboard, keys)

    def send(self, number: int) -> None:
        """Send a signal once the main thread waits; see `tests.kit.programs.Program.send`."""
        settle(self.process.pid)
        self.process.send_signal(number)

    def finish(self) -> int:
        """Read all, wait for the end; returns the exit code."""
        while self._pump(0.5) or self.process.poll() is None:
            if not self._files:
                self.process.wait(PATIENCE)
            assert time.monotonic() < self.began + PATIENCE + 5
        self.ended = time.monotonic()
        self.close()
        with pytest.raises(ProcessLookupError):  # nor has it left any process behind
            os.killpg(self.process.pid, 0)
        hunt(self.shown)
        assert "Traceback" not in self.shown, self.shown
        assert "Exception ignored" not in self.shown, self.shown
        return self.process.returncode

    @property
    def line(self) -> str:
        """The one line on standard error."""
        assert self.err.startswith("agentstream: "), self.err
        assert self.err.count("\n") == 1, self.err
        assert self.err.endswith("\n"), self.err
        return self.err[len("agentstream: ") : -1]

    @property
    def events(self) -> List[Dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._bark.cancel()
        self._bark.join()
        for descriptor in [*self._files, *self._held]:
            os.close(descriptor)
        self._files.clear()
        self._held.clear()
        self._selector.close()


class Shell:
    """Starts commands, in a home of their own, for a server; ends those that are left.

    Attributes:
        home: their HOME.
        folder: the folder they are started in.
        log: a path for a log.
    """

    def __init__(self, folder: pathlib.Path, url: str) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        self.log = str(folder / "runs.db")
        self._url = url
        self._commands: List[Command] = []

    def environment(self, **more: str) -> Dict[str, str]:
        kept = {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(PROJECT),
            "PYTHONWARNINGS": "error",
            "PYTHONPYCACHEPREFIX": os.environ.get("PYTHONPYCACHEPREFIX", ""),
            "AGENTSTREAM_BASE_URL": self._url,
            "AGENTSTREAM_API_KEY": KEY,
        }
        return {name: value for name, value in {**kept, **more}.items() if value}

    def start(
        self,
        *arguments: str,
        stdin: Any = None,
        terminal: str = "",
        env: Optional[Dict[str, str]] = None,
        **popen: Any,
    ) -> Command:
        """Start `agentstream ARGUMENTS`.

        `stdin` is what is piped in, or OPEN; `terminal` says which of "stdin stdout
        stderr" are one terminal; `env` is added to the environment.
        """
        return self._start(
            [sys.executable, "-m", "agentstream", *arguments], stdin, terminal, env, **popen
        )

    def script(self, line: str, **options: Any) -> Command:
        """Start a line of bash, in which $A is the command."""
        env = {**(options.pop("env", None) or {}), "A": NAME, "LOG": self.log}
        return self._start(
            ["bash", "-o", "pipefail", "-c", line],
            options.pop("stdin", None),
            options.pop("terminal", ""),
            env,
            **options,
        )

    def in_control(self, *words: str, env: Optional[Dict[str, str]] = None) -> Command:
        """Start a program whose terminal is its controlling one: there Ctrl-C is a signal."""
        begun = [sys.executable, "-c", _IN_CONTROL, *words]
        return self._start(begun, None, "stdin stdout stderr", env)

    def _start(
        self, words: List[str], stdin: Any, terminal: str, env: Any, **popen: Any
    ) -> Command:
        popen.setdefault("cwd", self.folder)
        command = Command(words, self.environment(**(env or {})), stdin, terminal, **popen)
        self._commands.append(command)
        return command

    def __call__(self, *arguments: str, code: int = 0, **options: Any) -> Command:
        """Run it to its end, which is to be this exit code."""
        command = self.start(*arguments, **options)
        assert command.finish() == code, command.shown
        return command

    def write(self, name: str, text: str) -> str:
        """A file in the folder; returns its path."""
        (self.folder / name).write_text(text, encoding="utf-8")
        return str(self.folder / name)

    def close(self) -> None:
        for command in self._commands:
            command.close()


@pytest.fixture
def cli(tmp_path: pathlib.Path, server: ScriptedServer) -> Iterator[Shell]:
    """Commands whose model is `server`."""
    shell = Shell(tmp_path, server.url)
    try:
        yield shell
    finally:
        shell.close()


class Here:
    """A command that was run in this process: quicker, where a process of its own shows no more."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    line = Command.line
    events = Command.events


@pytest.fixture
def here(
    cli: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Here]]:
    """Runs a command in this process, in the home, folder and environment of `cli`."""
    for name in list(os.environ):
        if name.startswith(("AGENTSTREAM_", "OPENAI_", "XDG_")):
            monkeypatch.delenv(name)
    for name in ("HOME", "AGENTSTREAM_BASE_URL", "AGENTSTREAM_API_KEY"):
        monkeypatch.setenv(name, cli.environment()[name])
    monkeypatch.chdir(cli.folder)

    def run(*arguments: str, code: int = 0) -> Here:
        done = Here(main(list(arguments)), *capsys.readouterr())
        assert done.code == code, (done.out, done.err)
        hunt(done.out + done.err)
        return done

    with open(os.devnull, encoding="utf-8") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        yield run


def last_events(log: str) -> Dict[str, Dict[str, Any]]:
    """The last event of each run of a log that nobody writes to any more; no secret in it."""
    from agentstream.events.sqlite import SqliteStore

    for path in pathlib.Path(log).parent.glob(pathlib.Path(log).name + "*"):
        assert b"MARKEDKEY" not in path.read_bytes(), path
    with SqliteStore(log) as store:
        return {
            state.workflow_id: store.read(workflow_id=state.workflow_id, after=0, limit=10_000)[
                -1
            ].to_dict()
            for state in store.runs(limit=100)
        }
