"""LocalServer, a llama.cpp server in a child process, and find_llama_server, for one that runs.

Knows processes and addresses; the model's file comes from `model`, and what runs
in the child is `child`.  However the parent ends, the child ends with it.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import pathlib
import selectors
import ssl
import subprocess
import sys
import tempfile
import urllib.parse
import weakref
from types import TracebackType
from typing import IO, Any, Dict, Optional, Tuple, Type, Union

from agentstream import checks
from agentstream.errors import ConfigError
from agentstream.llm.settings import LLAMA_URL
from agentstream.local.model import ALIAS, INSTEAD, Progress, fetch_model

__all__ = ["LocalServer", "find_llama_server"]

PathLike = Union[str, "os.PathLike[str]"]

CHILD = pathlib.Path(__file__).with_name("child.py")
GRACE = 1.0  # seconds from "please end" to "end"
_LONGEST_S = 86_400.0  # a longer wait is one of this: select takes no more than some weeks


class LocalServer:
    """A llama.cpp server of one's own, on loopback, for as long as this object lives.

        with LocalServer() as server:
            client = LlamaClient(server.url)

    It is up when the constructor returns, half a second later (the model's first
    fetch apart).  The child ends with `close`, with the parent, however that ends,
    and not on Ctrl-C, which is the parent's to handle.

    Args:
        model: path of a GGUF file; None for SmolLM2-135M-Instruct, fetched if need be.
        host, port: where to listen; port 0 takes a free one.
        n_ctx: tokens that one conversation may hold.
        n_parallel: requests answered at once; more of them wait.
        api_key: the bearer key clients must send; None for none.
        tls: paths of a certificate and its key (PEM); needs an xllamacpp built with SSL.
        chat_template: Jinja text to use instead of the model's own.
        alias: the name the server gives its model; None for the file's.
        threads: for computing; None for one less than there are cores, at most four.
        startup_timeout: seconds from start to listening.
        progress: handed to `fetch_model`.

    Attributes:
        url: "http://127.0.0.1:41873", for instance.
        model: the model's name, as the server gives it.
        model_path: its file.
        pid: the child's process id.

    Raises:
        ConfigError: no xllamacpp (or a Python without one), no model, a port in
            use, a template or file llama.cpp refuses, or no start in time.
    """

    def __init__(
        self,
        model: Optional[PathLike] = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        n_ctx: int = 2048,
        n_parallel: int = 4,
        api_key: Optional[str] = None,
        tls: Optional[Tuple[PathLike, PathLike]] = None,
        chat_template: Optional[str] = None,
        alias: Optional[str] = None,
        threads: Optional[int] = None,
        startup_timeout: float = 60.0,
        progress: Optional[Progress] = None,
    ) -> None:
        startup_timeout = min(checks.seconds("startup_timeout", startup_timeout), _LONGEST_S)
        _check_xllamacpp(sys.version_info[:2])
        path = fetch_model(progress) if model is None else _existing(model)
        self.model = alias or (ALIAS if model is None else path.stem)
        self.model_path = path
        settings = {
            "model": str(path),
            "alias": self.model,
            "host": host,
            "port": port,
            "n_ctx": n_ctx,
            "n_parallel": n_parallel,
            "api_key": api_key,
            "tls": [str(_existing(part)) for part in tls] if tls else None,
            "chat_template": chat_template,
            "threads": threads or _default_threads(),
            "startup_timeout": startup_timeout,
            "path": [str(entry) for entry in sys.path],
            "parent": os.getpid(),
        }
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - _end closes it
        try:
            self._child = _spawn(self._log)
        except BaseException:
            self._log.close()
            raise
        #: Runs at exit too, and when the object is dropped.
        self._end = weakref.finalize(self, _end, self._child, self._log, os.getpid())
        self.pid = self._child.pid
        try:
            self.url = self._start(settings, startup_timeout)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        state = self.url if self._end.alive else "closed"
        return f"<LocalServer {self.model} {state}>"

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    @property
    def is_running(self) -> bool:
        """False once the child has ended, or was ended."""
        return self._child.poll() is None

    def close(self) -> None:
        """End the child; it is gone when this returns, within two seconds.  Idempotent."""
        self._end()

    def _start(self, settings: Dict[str, Any], timeout: float) -> str:
        """Configure the child and wait for its report; returns the address."""
        child = self._child
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(OSError):  # it died already; the lack of a report says so
            child.stdin.write(json.dumps(settings).encode() + b"\n")
            child.stdin.flush()
        line = _read_line(child.stdout, timeout)
        child.stdout.close()
        report: Dict[str, str] = json.loads(line) if line.endswith(b"\n") else {}
        if "url" in report:
            return report["url"]
        raise ConfigError(self._why(report, settings))

    def _why(self, report: Dict[str, str], settings: Dict[str, Any]) -> str:
        """One sentence on why it is not up; llama.cpp's first error is the cause of the others."""
        what = f"it did not come up within {settings['startup_timeout']:g} s"
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._child.wait(GRACE if report else 0)
            what = report.get("error", f"its process ended with status {code}")
        said = _errors(self._log)
        remedy = INSTEAD
        if "couldn't bind" in said:
            what = f"{settings['host']} port {settings['port']} cannot be used"
            remedy = f"use port 0, or {INSTEAD}"
        elif said:
            what = said
        return f"The embedded llama.cpp did not start ({what}): {remedy}."


def _check_xllamacpp(version: Tuple[int, ...]) -> None:
    """Raise `ConfigError` unless xllamacpp can be imported by this Python."""
    if version < (3, 10):
        have = ".".join(str(part) for part in version)
        raise ConfigError(
            "The embedded llama.cpp (xllamacpp) needs Python 3.10 or newer and this is "
            f"{have}: use a newer one, or {INSTEAD}."
        )
    if importlib.util.find_spec("xllamacpp") is None:
        raise ConfigError(
            "The embedded llama.cpp is not installed: pip install 'agentstream[local]', "
            f"or {INSTEAD}."
        )


def _existing(path: PathLike) -> pathlib.Path:
    found = pathlib.Path(path).absolute()
    if not found.is_file():
        raise ConfigError(f"There is no file {found}.")
    return found


def _default_threads() -> int:
    """One less than there are cores, from 1 to 4.

    llama.cpp's threads spin while they wait for each other.  With one for every core,
    any other work there takes them from 110 tokens/s to 1; one core of two gives a
    steady 75, and a model this small gains nothing from more than four.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cores = os.cpu_count() or 1
    return max(1, min(cores - 1, 4))


def _spawn(log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the child, out of the reach of the terminal's Ctrl-C."""
    flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
    return subprocess.Popen(
        [sys.executable, str(CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        creationflags=flags,
        start_new_session=True,
    )


def _end(child: subprocess.Popen[bytes], log: IO[bytes], owner: int) -> None:
    if os.getpid() != owner:
        return  # forked: the child is not ours
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # unsent configuration, nobody to take it
                pipe.close()
    child.terminate()
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    log.close()


def _read_line(pipe: IO[bytes], timeout: float) -> bytes:
    """The child's report, or b"" if it ended or took too long."""
    if os.name == "posix":
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            if not selector.select(timeout):
                return b""
    return pipe.readline()  # elsewhere the child's own clock bounds this


def _errors(log: IO[bytes], lines: int = 2) -> str:
    """The first errors the child wrote, without llama.cpp's clock, on one line."""
    log.seek(0)
    text = log.read(1 << 16).decode("utf-8", "replace")
    found = [line.split(" E ", 1)[1] for line in text.splitlines() if " E " in line]
    return " / ".join(" ".join(line.split()) for line in found[:lines])[:400]


# --- a server that runs already ------------------------------------------------------------


def find_llama_server(
    url: str = LLAMA_URL, *, connect: float = 0.3, answer: float = 1.0
) -> Optional[str]:
    """Return the name of the model that a llama-server at `url` serves; None if there is none.

    "llama.cpp" where it gives no name.  Never raises.  `connect` and `answer` bound,
    in seconds, the connection and each wait for a piece of the answer.
    """
    parts = urllib.parse.urlsplit(url)
    try:
        connection = _connect(parts, min(connect, _LONGEST_S))
    except (OSError, ValueError):
        return None
    try:
        connection.sock.settimeout(min(answer, _LONGEST_S))
        connection.request("GET", parts.path.rstrip("/") + "/props")
        reply = connection.getresponse()
        if reply.status != 200:
            return None
        return _model_name(json.loads(reply.read(1 << 20)))
    except (OSError, ValueError, http.client.HTTPException, RecursionError):
        return None
    finally:
        connection.close()


def _connect(parts: urllib.parse.SplitResult, timeout: float) -> http.client.HTTPConnection:
    """Connected, TLS included; an unknown certificate will do, as nothing secret is sent."""
    host = parts.hostname or ""
    if parts.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, parts.port, timeout=timeout, context=context
        )
    elif parts.scheme == "http":
        connection = http.client.HTTPConnection(host, parts.port, timeout=timeout)
    else:
        raise ValueError("not an http address")
    try:
        connection.connect()
    except BaseException:
        connection.close()
        raise
    return connection


def _model_name(props: Any) -> Optional[str]:
    """The model of a llama-server, from its /props; None if that is no llama-server's."""
    if not isinstance(props, dict) or "default_generation_settings" not in props:
        return None
    path = props.get("model_path")
    for name in (props.get("model_alias"), path and pathlib.PurePath(str(path)).stem):
        if name and isinstance(name, str):
            return name
    return "llama.cpp"
