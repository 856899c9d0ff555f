"""What tests of agentstream.mcp share: servers that do things wrong, and the official ones.

The official servers are fetched once, into .venvs/ (which git ignores); tests/kit/fetch.py
does so beforehand.  A test that asks for one where it cannot be had is skipped, but on
CI it fails.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
from typing import Any, Iterator, List

import pytest

from agentstream import CancelToken, mcp
from agentstream.threads.file_lock import try_lock
from tests.kit.support import free_port

ROOT = pathlib.Path(__file__).resolve().parents[2]
KIT = ROOT / "tests" / "kit"
CACHE = pathlib.Path(os.environ.get("AGENTSTREAM_TEST_MCP", ROOT / ".venvs"))
#: What is fetched, exactly: another version is another server.
PYTHON_SDK = "2.3.0"
EVERYTHING = "2026.8.31"
CONFORMANCE = "0.2.0-alpha.12"


def fault_server(mode: str = "modern", *more: str, **settings: Any) -> mcp.Server:
    """The server of tests/kit/mcp_faults.py."""
    command = [sys.executable, "-S", "-E", str(KIT / "mcp_faults.py"), mode, *more]
    return mcp.Server.stdio(command, **{"name": "faults", **settings})


# --- the official servers -------------------------------------------------------------------


def sdk_command(*arguments: str) -> List[str]:
    """The command of a server made with the official Python SDK; see mcp_sdk_server.py."""
    return [str(python_sdk()), str(KIT / "mcp_sdk_server.py"), *arguments]


def python_sdk() -> pathlib.Path:
    """A Python that has the official SDK, in an environment of its own."""
    folder = CACHE / f"mcp-sdk-{PYTHON_SDK}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def make() -> None:
        if sys.version_info < (3, 10):
            raise OSError("the MCP SDK needs Python 3.10")
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        _run([str(python), "-m", "pip", "install", "-q", f"mcp=={PYTHON_SDK}"])

    _have(folder, make)
    return python


def everything_command(*arguments: str) -> List[str]:
    """The command of the official TypeScript server that has everything."""
    name = "@modelcontextprotocol/server-everything"
    folder = _packages("mcp-everything", f"{name}@{EVERYTHING}")
    return ["node", str(folder / "node_modules" / name / "dist" / "index.js"), *arguments]


def conformance_command(*arguments: str) -> List[str]:
    """The command of the protocol's conformance suite.

    It wants Node 22 for one function, which running it against a client does not use:
    the loader gives Node 20 one.
    """
    name = "@modelcontextprotocol/conformance"
    folder = _packages("mcp-conformance", f"{name}@{CONFORMANCE}")
    program = folder / "node_modules" / name / "dist" / "index.js"
    return ["node", "--import", str(KIT / "mcp_glob.mjs"), str(program), *arguments]


def _packages(name: str, package: str) -> pathlib.Path:
    """A folder with an npm package in it."""
    folder = CACHE / f"{name}-{package.rpartition('@')[2]}"

    def make() -> None:
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            raise OSError("there is no Node")
        folder.mkdir(parents=True, exist_ok=True)
        _run([npm, "install", "--silent", "--prefix", str(folder), package])

    _have(folder, make)
    return folder


def _have(folder: pathlib.Path, make: Any) -> None:
    """Make a folder, once for all processes that test; skip, or fail on CI, if it cannot be."""
    done = folder.with_suffix(folder.suffix + ".done")
    if done.exists():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{folder.name}.lock", "wb") as lock:
        while not try_lock(lock.fileno()):
            CancelToken().wait(0.1)
        if done.exists():
            return
        try:
            make()
        except (OSError, subprocess.SubprocessError) as error:
            without(f"{folder.name} cannot be had: {error}")
        done.touch()


def _run(command: List[str]) -> None:
    subprocess.run(command, check=True, timeout=180, stdout=subprocess.DEVNULL)


def without(reason: str) -> None:
    """Skip this test, or fail it on CI where the part should be there."""
    if os.environ.get("CI") and sys.version_info >= (3, 10) and shutil.which("node"):
        pytest.fail(f"no official MCP server on CI: {reason}", pytrace=False)
    pytest.skip(reason)


@contextlib.contextmanager
def over_http(command: List[str], port_variable: str = "PORT") -> Iterator[str]:
    """Run a server that listens on a port of 127.0.0.1; gives its URL.

    "{port}" in the command becomes the port; the variable holds it too.
    """
    port = free_port()
    words = [word.format(port=port) for word in command]
    process = subprocess.Popen(
        words,
        env={**os.environ, port_variable: str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for_port(port, process)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            CancelToken().wait(0.05)
    raise AssertionError(f"the server does not listen: {process.args!r}")
