"""Real Redis servers of the test's own, on free ports, with their files in a temporary folder.

A test that asks for one where redis-server or the module `redis` is missing is skipped, but
on CI it fails.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from typing import Any, Iterable, List, NoReturn, Sequence

import pytest

from agentstream import Event, LogError
from agentstream.events.store import EventStore
from tests.kit.support import free_port, wait_until

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
        self._command = [program, *self._arguments(settings)]
        self._process: Any = None
        self.start()

    def _arguments(self, settings: Sequence[str]) -> List[str]:
        return [
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder),
            *("--save", "", "--daemonize", "no", "--repl-diskless-sync-delay", "0"),
            *(f"--{word}" if at % 2 == 0 else word for at, word in enumerate(settings)),
        ]

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
        """Send one command; returns the beginning of the answer.

        It may be sent twice: Sentinels cut the connections of a server that changes its role.
        """
        try:
            return self._say(*words)
        except ConnectionResetError:
            return self._say(*words)

    def _say(self, *words: str) -> bytes:
        sent = b"*%d\r\n" % len(words)
        for word in words:
            sent += b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode())
        with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
            sock.sendall(sent)
            return sock.recv(65536)

    def replicate(self, port: int) -> None:
        """Be a replica of the server at a port; returns when it has all of it."""
        self.say("REPLICAOF", "127.0.0.1", str(port))
        wait_until(lambda: b"master_link_status:up" in self.say("INFO", "replication"))

    def reach(self) -> int:
        """How far its replication has come."""
        info = self.say("INFO", "replication")
        whose = rb"slave_repl" if b"role:slave" in info else rb"master_repl"
        found = re.search(whose + rb"_offset:(\d+)", info)
        assert found is not None
        return int(found[1])

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


class RedisSentinel(RedisServer):
    """The only Sentinel of a master; a context manager.

    Args:
        master: whom it watches.

    Attributes:
        url: of a log of that master.
    """

    #: What it calls the master.
    NAME = "the-master"

    def __init__(self, master: RedisServer) -> None:
        self._master = master
        super().__init__()
        self.url = f"redis+sentinel://127.0.0.1:{self.port}/{self.NAME}"

    def _arguments(self, settings: Sequence[str]) -> List[str]:
        file = pathlib.Path(self._folder, "sentinel.conf")
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self._folder}",
            f"sentinel monitor {self.NAME} 127.0.0.1 {self._master.port} 1",
            f"sentinel down-after-milliseconds {self.NAME} 500",
            f"sentinel failover-timeout {self.NAME} 5000",
        ]
        file.write_text("\n".join(lines) + "\n")
        return [str(file), "--sentinel"]

    def knows(self, replica: RedisServer) -> bool:
        """True once it could make that one the master."""
        return b"\r\n%d\r\n" % replica.port in self.say("SENTINEL", "REPLICAS", self.NAME)


def log_name() -> str:
    """The name of a log that no other test has."""
    return f"test-{os.getpid()}-{next(_names)}"


def offsets(events: Iterable[Event]) -> List[int]:
    return [one.offset for one in events]


def is_written(store: EventStore) -> bool:
    """True if a store has committed what was appended; False if it may do so yet."""
    try:
        store.flush()
    except LogError as error:
        assert error.retryable, error
        return False
    return True
