"""What importing agentstream costs, in CPU time of whole interpreters, against `import requests`.

`import agentstream` itself costs nothing: what is measured is what a program asks it for that
has agents run a workflow.

    python -m benchmarks.import_cost [RUNS]

Alternating runs, medians, bytecode cached beforehand.  Exits with 1 above 1.25 times.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from typing import Dict, List

MOST = 1.25
STATEMENTS = {
    "requests": "import requests",
    "agentstream": "from agentstream import LlamaClient, Agent, Runtime, Workflow, EventStream",
}


def measure(runs: int) -> Dict[str, float]:
    """The median CPU seconds of an interpreter that imports each module."""
    with tempfile.TemporaryDirectory() as cache:
        settings = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        settings.pop("PYTHONDONTWRITEBYTECODE", None)  # or every run would compile us anew
        for statement in STATEMENTS.values():
            _cpu(statement, settings)
        took: Dict[str, List[float]] = {module: [] for module in STATEMENTS}
        for _ in range(runs):
            for module, statement in STATEMENTS.items():
                took[module].append(_cpu(statement, settings))
    return {module: statistics.median(times) for module, times in took.items()}


def _cpu(statement: str, settings: Dict[str, str]) -> float:
    code = f"{statement}; import time; print(time.process_time())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=settings, check=True, stdout=subprocess.PIPE
    )
    return float(done.stdout)


def main() -> int:
    """Measure, print, judge."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    cost = measure(runs)
    ratio = cost["agentstream"] / cost["requests"]
    for module, seconds in cost.items():
        print(f"import {module}: {seconds * 1000:.1f} ms CPU (median of {runs})")
    print(f"ratio {ratio:.3f}, at most {MOST}")
    return 0 if ratio <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
