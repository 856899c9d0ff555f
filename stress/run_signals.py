"""A thousand signals to each kind of handler: `python -m stress.run_signals [N]` (row B13).

The handlers cancel and stop runs, shut runtimes down, and end processes, while the main thread does
everything that it can do with a runtime; over a MemoryStore and a SqliteStore.
"""

from __future__ import annotations

import subprocess
import sys
import time

from tests.kit.programs import PRELUDE, environment
from tests.kit.signal_programs import EXITS, SHUTDOWNS, STOPS

KINDS = [
    ("stop", STOPS, ""),
    ("shutdown", SHUTDOWNS, "cancel"),
    ("shutdown", SHUTDOWNS, "wait"),
    ("exit", EXITS, "sigterm"),
    ("exit", EXITS, "shutdown"),
    ("exit", EXITS, "interrupt"),
]


def main() -> int:
    count = sys.argv[1] if len(sys.argv) > 1 else "1000"
    wrong = 0
    for store in ("memory", "sqlite"):
        for name, program, how in KINDS:
            began = time.monotonic()
            command = [sys.executable, "-c", PRELUDE + program, store, how, count, "600"]
            status = subprocess.run(command, env=environment(), check=False).returncode
            wrong += status != 0
            took = time.monotonic() - began
            print(f"{name} {how} {store}: status {status}, {took:.1f} s", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
