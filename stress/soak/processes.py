"""Processes beside the soak's own: children by fork, and workers that are killed with -9."""

from __future__ import annotations

import faulthandler
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from typing import Any, Dict

from agentstream import (
    AgentStreamError,
)
from stress.soak.cases import Case, Config
from stress.soak.record import (
    MARKS,
    SLACK,
    UNTIMED,
    hunt,
)
from stress.soak.script import PROMPT

#: Where `python -m stress.soak` is run.
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def run_forked(soak: Any, number: int) -> None:
    """Fork with clients and bus in use; the child makes one request, publishes, and is gone."""
    record = soak.record
    rng = random.Random(f"{record.seed}:fork:{number}")
    config = rng.choice([c for c in soak.clients if c.timeouts.total])
    call = f"f{number}"
    reading, writing = os.pipe()
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(soak, config, call, writing)
    os.close(writing)
    bound = (config.timeouts.total or UNTIMED) + SLACK + 6.0
    report = b""
    while time.monotonic() - begun < bound:
        if select.select([reading], [], [], 0.5)[0]:
            data = os.read(reading, 65536)
            if not data:
                break
            report += data
    else:
        record.break_("R06 forked child hangs", f"{call} on {config.name}: {report[-200:]!r}")
        os.kill(pid, signal.SIGABRT)  # faulthandler tells where
    os.close(reading)
    os.waitpid(pid, 0)
    case = Case(call, "forked", config, rng)
    attempts = soak.judge.attempts(case, call)
    try:
        said = json.loads(report)
    except ValueError:
        record.break_("R06 forked child", f"{call}: {report[-800:]!r}")
        return
    record.outcome("forked", said["what"], ())
    record.sample("forked child", time.monotonic() - begun)
    if said["what"].startswith("broken") or not said["published"]:
        record.break_("R06 forked child", f"{call}: {said}")
    soak.judge.text(case, call, said["text"], said["what"] == "ok", attempts, None)


def _child(soak: Any, config: Config, call: str, writing: int) -> None:
    said: Dict[str, Any] = {"what": "broken", "text": "", "published": False}
    try:
        faulthandler.enable()
        faulthandler.dump_traceback_later(25, exit=True)
        prompt = [{"role": "system", "content": f"[[{call}]] {PROMPT}"}]
        try:
            said["text"] = config.client.chat(prompt).content
            said["what"] = "ok"
        except AgentStreamError as error:
            said["text"] = error.partial.content if error.partial else ""
            said["what"] = f"{error.outcome}({type(error).__name__})"
            if any(m in f"{error} {vars(error)}" for m in MARKS):
                said["what"] = "broken(secret)"
        event = soak.events.append("system_warning", f"{call}-child", {"message": "from a child"})
        said["published"] = event.offset == 1
    except BaseException as error:
        said["what"] = f"broken({error!r})"
    finally:
        data = json.dumps(said).encode()
        while data:
            data = data[os.write(writing, data) :]
        os._exit(0)


def run_worker_process(soak: Any, number: int) -> None:
    """A process of its own, killed with -9 in the middle; what it had reported is checked."""
    record = soak.record
    rng = random.Random(f"{record.seed}:worker:{number}")
    prefix = f"w{number}x"
    command = [
        sys.executable,
        "-m",
        "stress.soak",
        "--worker",
        prefix,
        "--seed",
        record.seed,
        "--ports",
        *(str(p.port) for p in soak.proxies),
        "--ca",
        soak.ca_file,
    ]
    if soak.log:
        command += ["--log", soak.log]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert process.stderr is not None
    soak.halt.wait(rng.uniform(2.0, 5.0))
    if process.poll() is not None:
        record.break_("worker died", process.stderr.read().decode()[-1500:])
    process.kill()
    out, err = process.communicate()
    record.count("workers killed with -9")
    if b"BROKEN" in err or b"Traceback" in err:
        record.break_("in a worker", err.decode("utf-8", "replace")[-3000:])
    hunt(record, err.decode("utf-8", "replace"), "a worker's stderr")
    for line in out.split(b"\n")[:-1]:  # the last one may be cut, and is acknowledged by nobody
        said = json.loads(line)
        if "run" in said:
            soak.acknowledged[said["run"]] = said["last"], said["end"]
            continue
        record.count("reported by killed workers")
        record.outcome("worker", said["what"], ())
