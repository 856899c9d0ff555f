"""Measures agentstream beside its peers: one command, one machine, one run.

    python -m benchmarks.run

It makes its own virtual environment (.venv-bench: this package and what
benchmarks/requirements.txt pins; Python 3.11 or newer), runs every row of the table
in processes of their own, and writes results.json, results.rst and chart.svg to
benchmarks/results.  A quarter of an hour at most on two cores that have nothing
else to do.

    --smoke        everything, tiny and in seconds, and judge no timing: for CI
    --only ROW     measure these rows again and keep the others' figures; repeatable
    --python P     measure with this interpreter, whatever it has installed
    --out DIR      write somewhere else
    --tables       measure nothing: write the table and the chart anew from results.json
    --debug        show what the measuring processes write to stderr
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from typing import Any, Dict

from benchmarks import judge
from benchmarks.lab import CORPUS, FULL, ROOT, SMOKE, Failed, Lab, load, machine, now, say
from benchmarks.replay_server import ReplayServer
from benchmarks.rows import ROWS, dump

_HERE = pathlib.Path(__file__).parent
_REQUIREMENTS = _HERE / "requirements.txt"


def make_environment() -> str:
    """The interpreter of .venv-bench, which is made or brought up to date."""
    place = ROOT / ".venv-bench"
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = place / "stamp"
    wanted = hashlib.sha256(_REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        say(f"making {place}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        # Everything is pinned, so there is nothing to resolve.
        install = [
            str(python),
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--disable-pip-version-check",
        ]
        subprocess.run([*install, "-r", str(_REQUIREMENTS)], check=True)
        subprocess.run([*install, "-e", str(ROOT)], check=True)
        stamp.write_text(wanted)
    return str(python)


def _commit() -> str:
    name = _git("describe", "--always")
    changed = _git("status", "--porcelain", "--", ".", ":(exclude)benchmarks/results")
    return f"{name or 'unknown'}{'-dirty' * bool(changed)}"


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", *words],
        cwd=ROOT,
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    return done.stdout.strip()


def _measure(lab: Lab, name: str) -> Dict[str, Any]:
    before, began = load(), time.monotonic()
    try:
        row = ROWS[name](lab)
    except (Failed, subprocess.SubprocessError, OSError) as problem:
        row = {"error": str(problem)}
    took = time.monotonic() - began
    say(f"{name}: {took:.0f} s{', ' + row['error'] if 'error' in row else ''}")
    return {**row, "load": [before, load()], "took_s": round(took, 1), "at": now()}


def run(options: argparse.Namespace) -> Dict[str, Any]:
    """Measure and judge."""
    python = options.python or make_environment()
    earlier: Dict[str, Any] = {}
    if options.only:
        earlier = json.loads((options.out / "results.json").read_text("utf-8"))["rows"]
    with ReplayServer(CORPUS if CORPUS.is_dir() else None) as server:
        lab = Lab(python, server.url, SMOKE if options.smoke else FULL, debug=options.debug)
        if lab.absent:
            say(f"not installed, so not measured: {', '.join(lab.absent)}")
        chosen = options.only or list(ROWS)
        measured = {name: _measure(lab, name) for name in ROWS if name in chosen}
    results: Dict[str, Any] = {
        "date": now(),
        "commit": _commit(),
        "machine": machine(),
        "python": platform.python_version(),
        "versions": lab.versions,
        "absent": lab.absent,
        "smoke": options.smoke,
        "rows": {
            name: measured.get(name) or earlier[name]
            for name in ROWS
            if name in measured or name in earlier
        },
    }
    results["aims"] = [] if options.smoke else judge.judged(results)
    return results


def write(results: Dict[str, Any], out: pathlib.Path, python: str) -> None:
    """The raw numbers, the table and, where there is matplotlib, the chart."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(dump(results), "utf-8")
    (out / "results.rst").write_text(judge.rst(results), "utf-8")
    drawn = subprocess.run(
        [
            python,
            "-W",
            "ignore",
            "-m",
            "benchmarks.chart",
            str(out / "results.json"),
            str(out / "chart.svg"),
        ],
        cwd=ROOT,
        check=False,
    )
    if drawn.returncode:
        say("there is no chart")


def main() -> int:
    """Exits with 1 if a row could not be measured; an aim that is missed is told, no more."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--only", action="append", choices=list(ROWS))
    parser.add_argument("--python")
    parser.add_argument("--out", type=pathlib.Path, default=_HERE / "results")
    parser.add_argument("--tables", action="store_true")
    parser.add_argument("--debug", action="store_true")
    options = parser.parse_args()
    options.out = options.out.resolve()
    began = time.monotonic()
    if options.tables:
        results = json.loads((options.out / "results.json").read_text("utf-8"))
        results["aims"] = [] if results["smoke"] else judge.judged(results)
    else:
        results = run(options)
    write(results, options.out, options.python or make_environment())
    for line in results["aims"]:
        met = {True: "met", False: "MISSED", None: "-"}[line["met"]]
        print(f"{met:7} {line['what']}: {line['value']} ({line['aim']})")
    failed = [name for name, row in results["rows"].items() if "error" in row]
    for name in failed:
        print(f"FAILED  {name}: {results['rows'][name]['error']}")
    print(f"{time.monotonic() - began:.0f} s; written to {options.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
