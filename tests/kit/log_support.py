"""Programs that write a log, run as processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from agentstream import EventType

ROOT = Path(__file__).resolve().parents[2]
CHUNK = EventType.AGENT_LLM_STREAM_CHUNK


def run(script: str, *arguments: Any, ok: bool = True) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert not ok or done.returncode == 0, done.stderr[-3000:]
    return done.stdout
