"""What runs in the child process: xllamacpp's server, until stdin ends or the parent is gone.

Run by its path, never imported; it imports nothing of agentstream, so that it is
up quickly.  Its first line of stdin is the configuration (JSON; a key stays out of
the process list that way), its only line of output is the address or the failure.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import select
import signal
import sys
import threading
import time
from typing import Any, Dict

LOOK = 1.0  # seconds between two looks at who the parent is
LOG_S = 0.5  # seconds that a failure waits for its words


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    settings = json.loads(sys.stdin.buffer.readline())
    # llama.cpp writes to both streams; the report needs one of its own.
    report = os.dup(1)
    os.dup2(2, 1)
    sys.path[:] = settings["path"]
    # The parent's clock comes first; this one is for a parent that is gone or cannot wait.
    faulthandler.dump_traceback_later(settings["startup_timeout"] + 1.0, exit=True)
    try:
        server = start(settings)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent tells
        await_log()
        send(report, {"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)  # and not os._exit: the rest of the log may still be on its way
    faulthandler.cancel_dump_traceback_later()
    send(report, {"url": server.listening_address})
    os.close(report)
    wait_for_end(settings["parent"])
    os._exit(0)  # not a word from destructors


def start(settings: Dict[str, Any]) -> Any:
    import xllamacpp  # noqa: PLC0415 - only ever here

    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.model_alias = {settings["alias"]}
    params.hostnames = [settings["host"]]
    params.port = settings["port"]
    params.n_parallel = settings["n_parallel"]
    params.n_ctx = settings["n_ctx"] * settings["n_parallel"]
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    params.n_threads_http = settings["n_parallel"] + 12  # an idle connection holds one
    params.cache_prompt = True
    params.cache_ram_mib = 256
    params.n_gpu_layers = 0  # the same words on every machine, as far as can be
    params.fit_params = False
    params.ui = False
    params.verbosity = 1  # errors
    if settings["api_key"]:
        params.api_keys = [settings["api_key"]]
    if settings["tls"]:
        params.ssl_file_cert, params.ssl_file_key = settings["tls"]
    if settings["chat_template"]:
        params.chat_template = settings["chat_template"]
    return xllamacpp.Server(params)


def await_log() -> None:
    """Wait until llama.cpp's error is in the log, at most `LOG_S`.

    A thread of its own writes it, and what is not there when the process ends may be lost.
    """
    if not hasattr(os, "pread"):
        return  # Windows: the error of xllamacpp has to do
    end = time.monotonic() + LOG_S
    while b" E " not in os.pread(2, 1 << 16, 0) and time.monotonic() < end:
        threading.Event().wait(0.005)


def send(report: int, message: Dict[str, str]) -> None:
    with contextlib.suppress(OSError):  # the parent is gone; the next read says so
        os.write(report, json.dumps(message).encode() + b"\n")


def wait_for_end(parent: int) -> None:
    """Return when the parent closed its end, or died while a child of its own holds that open."""
    while True:
        if os.name == "posix" and not select.select([0], [], [], LOOK)[0]:
            if os.getppid() != parent:
                return
            continue
        if not os.read(0, 4096):
            return


if __name__ == "__main__":
    main()
