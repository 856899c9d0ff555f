"""A Celery worker for the recipes: a real prefork pool, on a broker and a store made of files."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
from typing import Iterator

from tests.kit.recipes import started

__all__ = ["FILES", "celery_worker"]

FILES = """
import os, time, uuid
from celery.app.backends import BACKEND_ALIASES
from celery.backends.filesystem import FilesystemBackend
from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.encoding import ensure_bytes
from kombu.utils.json import dumps

# As they come, others may read a file that has a name but no content yet: these rename.

class Channel(filesystem.Channel):
    def _put(self, queue, payload, **_):
        name = f"{time.monotonic_ns():020}_{uuid.uuid4()}.{queue}.msg"
        with open("unfinished/" + name, "w") as file:
            file.write(dumps(payload))
        os.rename("unfinished/" + name, "queue/" + name)

class Transport(filesystem.Transport):
    Channel = Channel

class Results(FilesystemBackend):
    def set(self, key, value):
        unfinished = f"unfinished/{uuid.uuid4()}"
        with open(unfinished, "wb") as file:
            file.write(ensure_bytes(value))
        os.rename(unfinished, self._filename(key))

BACKEND_ALIASES["results"] = "celeryconfig:Results"
TRANSPORT_ALIASES["files"] = "celeryconfig:Transport"
broker_url = "files://"
broker_transport_options = {
    "data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control",
    "polling_interval": 0.02,
}
result_backend = "results+file://./results"
worker_lost_wait = 0.1  # seconds that the result of a process that died is waited for
"""


@contextlib.contextmanager
def celery_worker(
    folder: pathlib.Path, module: str, configuration: str = FILES, *, processes: int = 2
) -> Iterator[subprocess.Popen[str]]:
    """A worker for the tasks of a module in that folder."""
    for name in ("queue", "unfinished", "control", "results"):
        (folder / name).mkdir()
    for name in ("celery", "celery.pidbox"):  # two at once might make them
        (folder / "control" / f"{name}.exchange").write_text("[]")
    (folder / "celeryconfig.py").write_text(configuration)
    command = [
        "-m",
        "celery",
        "-A",
        module,
        "worker",
        "--pool=prefork",
        f"--concurrency={processes}",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
    ]
    with started(folder, *command, stdout=subprocess.DEVNULL) as worker:
        yield worker
