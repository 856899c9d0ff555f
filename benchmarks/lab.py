"""The workbench of `benchmarks.run`: processes to measure in, sizes, what the machine is."""

from __future__ import annotations

import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import threading
import time
from typing import Any, Dict, List, Optional, Sequence

from benchmarks.clients import MODULES

ROOT = pathlib.Path(__file__).resolve().parents[1]
CORPUS = ROOT.parent / "shared" / "conformance"

_PATIENCE = 300.0

#: What each client reads in one measurement of its CPU: some tenths of a second's worth.
_CHUNKS = {
    "raw socket": 20_000,
    "requests": 20_000,
    "agentstream": 20_000,
    "agentstream, whole way": 20_000,
    "openai": 4_000,
    "langchain-openai": 2_000,
    "litellm": 800,
    "smolagents": 3_000,
}
#: The same of other protocols.
_WIRE_CHUNKS = {"ours": 20_000, "theirs": 4_000}

FULL: Dict[str, Any] = {
    "rounds": 5,
    "chunks": _CHUNKS,
    "first_token": (10, 40),
    "first_token_peers": (5, 20),
    "crowd": (256, 150),
    "crowd_rounds": 5,
    "crowd_most": 512,
    "memory": (10_000, 1_000_000),
    "bus_deliveries": 60_000,
    "stuck": (300, 200.0),
    "streams": 10_000,
    "stops": 200,
    "stops_peers": 20,
    "beside": 16,
    "curve_chunks": [1024 * 2**n for n in range(11)],
    "curve_subscribers": [2**n for n in range(7)],
    "curve_events": 10_000,
    "curve_streams": [2**n for n in range(10)],
    "curve_streams_peer": 256,
    "curve_length": 40,
    "typed": (2**20, 4),
    "wires": _WIRE_CHUNKS,
    "mcp_calls": 1000,
}
SMOKE: Dict[str, Any] = {
    "rounds": 1,
    "chunks": dict.fromkeys(_CHUNKS, 200),
    "first_token": (1, 3),
    "first_token_peers": (1, 2),
    "crowd": (4, 5),
    "crowd_rounds": 1,
    "crowd_most": 8,
    "memory": (200, 1_000),
    "bus_deliveries": 500,
    "stuck": (10, 200.0),
    "streams": 3,
    "stops": 3,
    "stops_peers": 1,
    "beside": 2,
    "curve_chunks": [100, 200],
    "curve_subscribers": [1, 2],
    "curve_events": 200,
    "curve_streams": [1, 2],
    "curve_streams_peer": 2,
    "curve_length": 3,
    "typed": (2**12, 4),
    "wires": dict.fromkeys(_WIRE_CHUNKS, 200),
    "mcp_calls": 5,
}


class Failed(Exception):
    """A measurement could not be made."""


class Worker:
    """A process of its own to measure in (`benchmarks.worker`)."""

    def __init__(self, python: str, *, debug: bool = False) -> None:
        self._process = subprocess.Popen(
            [python, "-W", "ignore", "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(),
            stderr=None if debug else subprocess.DEVNULL,
        )

    def ask(self, measure: str, **settings: Any) -> Any:
        """Have it measure, and wait for the value.

        Raises:
            Failed: it could not, or took too long.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        guard = threading.Timer(_PATIENCE, self._process.kill)
        guard.start()
        try:
            self._process.stdin.write(json.dumps({"measure": measure, **settings}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        finally:
            guard.cancel()
        answer = json.loads(line) if line else {"error": "the process is gone, or took too long"}
        if "error" in answer:
            raise Failed(
                f"{measure} {settings.get('client', settings.get('way', ''))}: {answer['error']}"
            )
        return answer["value"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    pass

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Lab:
    """What the rows need: where the server is, how big to measure, who is there."""

    def __init__(self, python: str, url: str, sizes: Dict[str, Any], *, debug: bool) -> None:
        self.python = python
        self.url = url
        self.sizes = sizes
        self.debug = debug
        self.corpus: Optional[str] = str(CORPUS) if CORPUS.is_dir() else None
        self.versions = self._versions()
        self.absent = sorted(name for name, it in MODULES.items() if it not in self.versions)

    def _versions(self) -> Dict[str, str]:
        code = (
            "import importlib.util, importlib.metadata as m, json, sys\n"
            "found = {}\n"
            "for name in sys.argv[1:]:\n"
            "    if importlib.util.find_spec(name):\n"
            "        try: found[name] = m.version(name.partition('.')[0].replace('_', '-'))\n"
            "        except m.PackageNotFoundError: found[name] = ''\n"
            "print(json.dumps(found))"
        )
        done = subprocess.run(
            [self.python, "-c", code, *sorted(set(MODULES.values()))],
            check=True,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment(),
        )
        found: Dict[str, str] = json.loads(done.stdout)
        return found

    def there(self, clients: Sequence[str]) -> List[str]:
        """Those of `clients` that are installed."""
        return [client for client in clients if client not in self.absent]

    def worker(self) -> Worker:
        """A fresh process."""
        return Worker(self.python, debug=self.debug)


def environment() -> Dict[str, str]:
    """For the processes: nothing that would send a client elsewhere, or home."""
    settings = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().endswith("_PROXY") and not name.startswith("OPENAI_")
    }
    # What is installed has its bytecode; ours, in the checkout, must get it at the first run.
    settings.pop("PYTHONDONTWRITEBYTECODE", None)
    return {
        **settings,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LANGSMITH_TRACING": "false",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
    }


def machine() -> Dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor()
    try:
        with open("/proc/cpuinfo") as cpus:
            names = [line.partition(":")[2].strip() for line in cpus if "model name" in line]
        model = names[0] if names else model
    except OSError:
        pass
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.platform(terse=True)}


def load() -> Optional[float]:
    """The load average of the last minute."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def now() -> str:
    """The date and the time, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime())


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def say(text: str) -> None:
    """To whoever watches."""
    print(text, flush=True, file=sys.stderr)
