"""Commands in forks of one process that has imported the command line: it starts once, not each time.

A fork has its own arguments, environment, folder and standard streams, as any command has; what
only the start of an interpreter shows (encodings, signals) needs a process of its own.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any, Dict, Sequence

from tests.kit.cli_support import PROJECT

__all__ = ["Warm"]

_PROGRAM = """
import gc, json, os, runpy, sys
from agentstream.cli import chat, check, command, follow, parser, run, runs, serve, settings, stop
from agentstream.events.sqlite import SqliteStore
from agentstream.llm.transport import session
gc.freeze()

def play(words, env, folder, out, err):
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    for path, mode, number in ((os.devnull, os.O_RDONLY, 0), (out, flags, 1), (err, flags, 2)):
        os.dup2(os.open(path, mode, 0o600), number)
    sys.argv[1:] = words
    runpy.run_module("agentstream", run_name="__main__", alter_sys=True)

flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
for line in sys.stdin:
    child = os.fork()
    if not child:
        play(*json.loads(line))
        sys.exit()
    status = os.waitpid(child, 0)[1]
    print(os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status), flush=True)
"""


class Done:
    """How a command ended."""

    def __init__(self, returncode: int, stdout: bytes, stderr: bytes) -> None:
        self.returncode, self.stdout, self.stderr = returncode, stdout, stderr


class Warm:
    """The process that is forked; `close` ends it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._out, self._err = str(folder / "out"), str(folder / "err")
        bare = {"PYTHONPATH": str(PROJECT), "PYTHONWARNINGS": "error", "PATH": os.environ["PATH"]}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            cwd=PROJECT,
            env=bare,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __call__(self, words: Sequence[str], env: Dict[str, str], folder: Any) -> Done:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        task = [list(words), env, str(folder), self._out, self._err]
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        code = process.stdout.readline()
        assert code, "it has ended"
        out, err = (pathlib.Path(path).read_bytes() for path in (self._out, self._err))
        return Done(int(code), out, err)

    def close(self) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(10) == 0
