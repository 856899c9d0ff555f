"""The command line as it was packed: from a zip, by PyInstaller, without docstrings."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import subprocess
import urllib.request
from typing import List

from agentstream import web

__all__ = ["Packed"]


class Packed:
    """Runs commands in a folder.

    Args:
        command: what runs the command line.
        folder: where.
        environment: over that of this process.
    """

    def __init__(self, command: List[str], folder: pathlib.Path, **environment: str) -> None:
        self._command = command
        self._folder = folder
        kept = {k: v for k, v in os.environ.items() if not k.startswith("AGENTSTREAM_")}
        self._environment = {**kept, "HOME": str(folder), **environment}

    def run(self, *words: str) -> str:
        """What a command that succeeds writes to its standard output."""
        done = subprocess.run(
            [*self._command, *words],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def serve(self, log: str) -> None:
        """Serve a log that has a run `run`: the page, the runs and that run's stream; then end."""
        with subprocess.Popen(
            [*self._command, "serve", "--log", log, "--port", "0"],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                found = re.search(r"http://\S+", line)
                assert found, (line, process.kill(), process.communicate())
                url = found[0].rstrip("/")
                with urllib.request.urlopen(url + "/", timeout=20) as answer:
                    page = answer.read()
                assert b"<script>" in page
                assert b"{{" not in page
                assert [state.workflow_id for state in web.runs(url)] == ["run"]
                assert next(web.follow(f"{url}/workflows/run", after=0)).offset == 1
            finally:
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=20)
        assert process.returncode in (0, 143), process.returncode
