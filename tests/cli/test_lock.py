"""--lock: a second start is kept out, in any environment."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from agentstream.testing import Hang, Reply, text_chunks
from tests.kit.cli_runs import AGENT, halted, queue
from tests.kit.cli_support import NAME, PROJECT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


def test_a_lock_keeps_a_second_start_out(cli, here, server):
    queue(server, halted("One"), Reply.text("Two"))
    job = f"test-{os.getpid()}-{time.monotonic_ns()}"  # one place for all of this user's
    holder = cli.start("chat", "x", "--lock", job)
    holder.expect("One")
    cron = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(PROJECT),
        "SHELL": "/bin/sh",
        "HOME": "/",
        "TMPDIR": str(cli.folder),
        "XDG_STATE_HOME": str(cli.folder),
        "PYTHONWARNINGS": "error",
    }
    words = ["run", "no.toml", "--lock", job]
    cli.write("no.toml", AGENT)
    second = subprocess.run(
        ["/bin/sh", "-c", f"exec {NAME} {' '.join(words)} --input x"],
        env=cron,
        timeout=20,
        capture_output=True,
        text=True,
        cwd=cli.folder,
    )
    assert second.returncode == 75
    assert second.stdout == ""
    assert second.stderr.startswith(
        f"agentstream: --lock {job} is held by process {holder.process.pid} since 20"
    )
    assert second.stderr.count("\n") == 1
    path = pathlib.Path(second.stderr.rstrip().rpartition(": ")[2])  # named, for whoever looks
    assert (path.name, path.parent.stat().st_mode & 0o777) == (f"{job}.lock", 0o700)
    assert here("chat", "x", "--lock", f"{job}-other").out == "Two\n"
    assert here("chat", "x", "--lock", job, "-q", code=75).err == ""  # for cron, which mails
    holder.process.send_signal(signal.SIGKILL)
    assert holder.finish() == -signal.SIGKILL
    queue(server, Reply.text("Three"))
    assert here("chat", "x", "--lock", job).out == "Three\n"
    assert here("chat", "x", "--lock", "../job", code=2).line.startswith("--lock '../job': ")
    assert os.listdir(cli.home) == []
    for name in (job, f"{job}-other"):
        (path.parent / f"{name}.lock").unlink()


@pytest.mark.parametrize("env", [{"HOME": ""}, {"TMPDIR": "/dev/shm"}, {"HOME": "/nowhere"}])
def test_y09_a_lock_is_the_same_in_any_environment(cli, server, env):
    server.default(*text_chunks("One")[:2], Hang())
    job = f"test-{os.getpid()}-{time.monotonic_ns()}"
    holder = cli.start("chat", "x", "--lock", job)
    holder.expect("One")
    second = cli("chat", "x", "--lock", job, code=75, env=env)
    path = pathlib.Path(second.line.rpartition(": ")[2])
    assert path.name == f"{job}.lock"
    holder.send(signal.SIGTERM)
    assert holder.finish() == 143
    path.unlink()
