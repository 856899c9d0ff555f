"""The process in which one client is measured: a JSON request a line, a JSON answer a line.

python -m benchmarks.worker
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import traceback
from typing import Any, Callable, Dict

#: What can be asked for, and where it is.
MEASURES = {
    "cpu": "costs",
    "cpu_with_subscribers": "costs",
    "first_token": "costs",
    "memory": "costs",
    "crowd": "crowd",
    "bus": "bus",
    "stuck": "bus",
    "score": "scores",
    "stop": "stopping",
    "values": "typed",
    "mcp_calls": "mcp",
}


def main() -> None:
    """Answer until standard input ends."""
    logging.disable(logging.CRITICAL)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is not an answer
    for line in sys.stdin:
        request: Dict[str, Any] = json.loads(line)
        name = request.pop("measure")
        try:
            module = importlib.import_module(f"benchmarks.{MEASURES[name]}")
            measure: Callable[..., Any] = getattr(module, name)
            answer = {"value": measure(**request)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    os._exit(0)  # a peer that is still blocked somewhere cannot hold us up


if __name__ == "__main__":
    main()
