"""A real redis-server of the test's own, on a free port, with its files in a temporary folder.

A test that asks for one where redis-server or the module `redis` is missing is skipped, but
on CI it fails.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from typing import Any, List, NoReturn

import pytest

from tests.kit.support import free_port

_names = itertools.count(1)


def missing(reason: str) -> NoReturn:
    """Skip this test, or fail it on CI: a part that CI does not see nobody tests."""
    if os.environ.get("CI"):
        pytest.fail(f"no Redis on CI: {reason}", pytrace=False)
    pytest.skip(f"no Redis here: {reason}")


class RedisServer:
    """A redis-server; a context manager.

    Args:
        settings: of its command line, "maxmemory", "1mb" and so on.

    Attributes:
        url: where clients connect.
    """

    def __init__(self, *settings: str) -> None:
        program = shutil.which("redis-server")
        if program is None:
            missing("redis-server is not installed")
        if importlib.util.find_spec("redis") is None:
            missing("the module redis is not installed")
        self._folder = tempfile.mkdtemp(prefix="agentstream-redis-")
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command: List[str] = [
            program,
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder),
            *("--save", "", "--daemonize", "no", "--repl-diskless-sync-delay", "0"),
            *(f"--{word}" if at % 2 == 0 else word for at, word in enumerate(settings)),
        ]
        self._process: Any = None
        self.start()

    def start(self) -> None:
        """Start it, or start it again with what it had on its disk."""
        log = pathlib.Path(self._folder, "log")
        with log.open("ab") as file:
            self._process = subprocess.Popen(self._command, stdout=file, stderr=file)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if self._answers():
                return
            assert self._process.poll() is None, log.read_text()[-2000:]
            threading.Event().wait(0.01)
        raise AssertionError("redis-server does not answer")

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(100)[:5] in (b"+PONG", b"-NOAU")
        except OSError:
            return False

    def say(self, *words: str) -> bytes:
        """Send one command; returns the beginning of the answer."""
        sent = b"*%d\r\n" % len(words)
        for word in words:
            sent += b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode())
        with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
            sock.sendall(sent)
            return sock.recv(65536)

    def kill(self) -> None:
        """As kill -9 does."""
        self._process.kill()
        self._process.wait(10)

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None:
            self.thaw()
            self.kill()
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> RedisServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def log_name() -> str:
    """The name of a log that no other test has."""
    return f"test-{os.getpid()}-{next(_names)}"
