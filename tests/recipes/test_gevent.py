"""Under gevent.monkey.patch_all(), in a process of its own: streams, cancel, stall, runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentstream.testing import Hang, ScriptedServer, text_chunks

PROGRAM = Path(__file__).with_name("gevent_program.py")
pytest.importorskip("gevent")

HELLO = list(text_chunks("Hello", " world"))
QUIET = [*text_chunks("begun")[:2], Hang()]


@pytest.mark.parametrize(
    ("what", "pieces"),
    [
        ("streams", HELLO),
        ("cancel", QUIET),
        ("stall", QUIET),
        ("runtime", HELLO),
        ("stopped", QUIET),
    ],
)
def test_under_gevent(server: ScriptedServer, what: str, pieces: Any) -> None:
    server.default(*pieces)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(PROGRAM), what, server.url],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=PROGRAM.parents[2],
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "ok"), done.stderr
