"""A server's process: its pipes, the threads at them, and its end, which is bounded.

Lines are bytes here; what they say is dialogue.py's.  The process leads a group of
its own, so that a terminal's Ctrl-C reaches us alone, and so that whatever it has
started ends with it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
from typing import IO, Callable, List, Mapping, Optional, Sequence, Tuple

from agentstream import threads
from agentstream.cancel import CancelToken
from agentstream.errors import ConfigError, ConnectError
from agentstream.text import strip_controls

__all__ = ["ServerProcess"]

logger = logging.getLogger("agentstream.mcp")

_READ = 65536
#: Bytes of what a server wrote last to standard error, which the error of its end shows.
_TAIL = 1024
#: Characters of that, and of a line of it in the log.
_SAID, _SHOWN = 300, 1000
#: How often, in seconds, it is looked whether a process has ended, where nothing tells.
_LOOK_S = 1.0
#: Seconds that a process has after it has closed its standard output.
_LEAVING_S = 0.5
#: Seconds for the system to take away what was killed.
_KILLED_S = 5.0


class ServerProcess:
    """One process, from its start to its end.

    Args:
        command: the program and its arguments.
        env, cwd: its environment, all of it; its folder, None for ours.
        name: what it is called in the log.
        limit: bytes of a line; a longer one ends the process.  None for no bound.
        redact: takes secrets out of what it writes to standard error.
        on_line: called with each line of its standard output.
        on_end: called once, when it has ended, with the reason.

    Both are called in the reading thread.

    Attributes:
        ended: cancelled when the process is gone, after `on_end`.

    Raises:
        ConfigError: there is no such program, or it cannot be run.
        ConnectError: the system has no process or thread left for it.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Optional[str],
        name: str,
        limit: Optional[int],
        redact: Callable[[str], str],
        on_line: Callable[[bytes], object],
        on_end: Callable[[str], object],
    ) -> None:
        self._name = name
        self._limit = limit
        self._redact = redact
        self._on_line = on_line
        self._on_end = on_end
        self._outgoing: queue.SimpleQueue[Optional[bytes]] = queue.SimpleQueue()
        self._tail = b""
        self._why = ""
        self.ended = CancelToken()
        self._process = _started(command, env, cwd)
        self._waking = threading.Lock()  # held while the pipe below is written to, or closed
        self._woken, self._wake = os.pipe() if os.name == "posix" else (-1, -1)
        try:
            for label, work in self._works():
                threads.start_thread(f"mcp-{label}", work)
        except RuntimeError:
            self._abandon()
            raise ConnectError("no thread could be started for the MCP server") from None

    def _works(self) -> List[Tuple[str, Callable[[], None]]]:
        if os.name == "posix":
            return [("write", self._write), ("read", self._read_both)]
        # Windows cannot wait for two pipes at once.
        return [("write", self._write), ("read", self._read_out), ("log", self._read_err)]

    @property
    def pid(self) -> int:
        """The process' id."""
        return self._process.pid

    @property
    def last_words(self) -> str:
        """The end of what it wrote to standard error."""
        text = self._redact(self._tail.decode("utf-8", "replace"))
        said = " ".join(strip_controls(text).split())
        return said if len(said) <= _SAID else "…" + said[-_SAID:]

    def send(self, line: bytes) -> None:
        """Have a line written; returns at once."""
        self._outgoing.put(line + b"\n")

    def let_go(self) -> None:
        """Close its standard input, which asks it to leave; returns at once."""
        self._outgoing.put(None)

    def end(self, patience: float) -> None:
        """End it: close its standard input, then SIGTERM, then SIGKILL; returns when it is gone.

        Args:
            patience: seconds between these; half of it after SIGTERM.
        """
        self.let_go()
        if self.ended.wait(patience):
            return
        self._signal(signal.SIGTERM)
        if self.ended.wait(patience / 2):
            return
        self.kill()
        if not self.ended.wait(_KILLED_S):
            logger.warning("%s: process %d does not end", self._name, self.pid)

    def kill(self, why: str = "") -> None:
        """End it at once; `why` is told as the reason."""
        self._why = self._why or why
        self._signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
        with self._waking:
            if self._wake >= 0:  # what has left its group may still hold the pipes
                os.write(self._wake, b"!")

    def forget(self) -> None:
        """In a forked child: let go of the parent's pipes, and leave its process alone."""
        self._waking = threading.Lock()
        self._close_pipes(self._process.stdin)
        self._process.returncode = 0  # or Popen would wait for it

    def _abandon(self) -> None:
        """End it where it has no threads, or not all of them."""
        self.let_go()
        self._signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
        self._process.wait()
        self._close_pipes(self._process.stdin)

    # --- the threads ------------------------------------------------------------------------

    def _write(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(OSError, ValueError):  # it is gone: the reader tells
            for line in iter(self._outgoing.get, None):
                data = memoryview(line)
                while data:
                    data = data[pipe.write(data) or 0 :]
        with contextlib.suppress(OSError):
            pipe.close()

    def _read_both(self) -> None:
        out, err = self._process.stdout, self._process.stderr
        assert out is not None
        assert err is not None
        lines = _Lines(self._limit)
        ended = _end_of(self._process.pid)
        try:
            with selectors.DefaultSelector() as selector:
                for source in (out, err, self._woken, ended):
                    if source != -1:
                        selector.register(source, selectors.EVENT_READ, source)
                goes_on = True
                while goes_on:
                    ready = [key.data for key, _ in selector.select(_LOOK_S if ended < 0 else None)]
                    if out in ready:
                        goes_on = self._take_out(_read(out.fileno()), lines)
                    if err in ready and not self._take_err(_read(err.fileno())):
                        selector.unregister(err)
                    if ended in ready or (ended < 0 and self._process.poll() is not None):
                        # What it has started may hold its output open.
                        goes_on = False
                        self._take_last(out, lines)
                    elif self._woken in ready:
                        goes_on = False
        finally:
            if ended >= 0:
                os.close(ended)
            self._leave()

    def _take_last(self, out: IO[bytes], lines: _Lines) -> None:
        """What it had written when it ended."""
        os.set_blocking(out.fileno(), False)
        while self._take_out(_read(out.fileno()), lines):
            pass

    def _read_out(self) -> None:
        assert self._process.stdout is not None
        lines = _Lines(self._limit)
        try:
            while self._take_out(_read(self._process.stdout.fileno()), lines):
                pass
        finally:
            self._leave()

    def _read_err(self) -> None:
        assert self._process.stderr is not None
        with contextlib.suppress(ValueError):  # it was closed
            while self._take_err(_read(self._process.stderr.fileno())):
                pass

    def _take_out(self, data: bytes, lines: _Lines) -> bool:
        """False if there is no more to come, or nothing that could be held."""
        if not data:
            return False
        for line in lines.add(data):
            self._on_line(line)
        if lines.too_long:
            self.kill(f"a line passed {self._limit} bytes (Limits.line)")
            return False
        return True

    def _take_err(self, data: bytes) -> bool:
        self._tail = (self._tail + data)[-_TAIL:]
        if logger.isEnabledFor(logging.INFO):
            for line in data.decode("utf-8", "replace").splitlines():
                if line.strip():
                    logger.info("%s: %s", self._name, strip_controls(self._redact(line[:_SHOWN])))
        return bool(data)

    # --- the end ----------------------------------------------------------------------------

    def _leave(self) -> None:
        """In the reading thread: its standard output has ended."""
        self.let_go()
        try:
            code = self._process.wait(_LEAVING_S)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
            code = self._process.wait()
        self._signal(signal.SIGKILL if os.name == "posix" else 0)  # whom it has left behind
        self._take_rest()
        self._close_pipes()
        try:
            self._on_end(self._why or _ending(code))
        finally:
            self.ended.cancel("the process has ended")

    def _take_rest(self) -> None:
        """What it wrote to standard error last; nobody writes there any more."""
        pipe = self._process.stderr
        if os.name != "posix" or pipe is None or pipe.closed:
            return
        os.set_blocking(pipe.fileno(), False)
        while self._take_err(_read(pipe.fileno())):
            pass

    def _close_pipes(self, *more: Optional[IO[bytes]]) -> None:
        """Close what is read from; its standard input is the writing thread's to close."""
        for pipe in (*more, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        with self._waking:
            for descriptor in {self._woken, self._wake} - {-1}:
                os.close(descriptor)
            self._woken = self._wake = -1

    def _signal(self, number: int) -> None:
        """To the process and all that it has started."""
        with contextlib.suppress(OSError):
            if os.name == "posix":
                os.killpg(self._process.pid, number)
            elif number and self._process.returncode is None:
                self._process.terminate()


class _Lines:
    """Cuts what is read into lines, without their line ends.

    Attributes:
        too_long: a line passed the limit; nothing more can be had.
    """

    def __init__(self, limit: Optional[int]) -> None:
        self._limit = limit
        self._pieces: List[bytes] = []
        self._size = 0
        self.too_long = False

    def add(self, data: bytes) -> List[bytes]:
        """The lines that `data` ends."""
        first, *rest = data.split(b"\n")
        self._pieces.append(first)
        self._size += len(first)
        lines: List[bytes] = []
        if rest and not self._passes():
            lines = [b"".join(self._pieces), *rest[:-1]]
            self._pieces, self._size = [rest[-1]], len(rest[-1])
        self.too_long = self._passes()
        return lines

    def _passes(self) -> bool:
        return self._limit is not None and self._size > self._limit


def _end_of(pid: int) -> int:
    """A descriptor that can be read once a child has ended; -1 where the system has none."""
    if sys.platform == "linux" and hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            return os.pidfd_open(pid)
    return -1


def _read(descriptor: int) -> bytes:
    """What is there; b"" at the end, or where nothing can be had."""
    try:
        return os.read(descriptor, _READ)
    except OSError:
        return b""


def _started(
    command: Sequence[str], env: Mapping[str, str], cwd: Optional[str]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=dict(env),
            cwd=cwd,
            start_new_session=os.name == "posix",
        )
    except (FileNotFoundError, NotADirectoryError, PermissionError, ValueError) as error:
        where = "" if cwd is None else f" in {cwd}"
        why = getattr(error, "strerror", None) or "it is no program's name"
        raise ConfigError(f"{command[0]!r} cannot be started{where}: {why}") from None
    except OSError as error:
        raise ConnectError(f"{command[0]!r} cannot be started: {error.strerror}") from None


def _ending(code: int) -> str:
    if code >= 0:
        return f"it ended with exit code {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"
