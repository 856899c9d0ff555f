"""Runs the suite, without the llama.cpp and the browser, on the interpreters that this machine has.

    python -m tests.kit.matrix                every one of 3.9 to 3.13
    python -m tests.kit.matrix lowest newest  those; "lowest" is 3.9 with the lowest versions
                                              of the dependencies (lowest.txt)
    python -m tests.kit.matrix --install ...  only makes their environments

Each gets a virtual environment of its own under .venvs/; two of them run at a time.
Only the standard library: it is started by whatever `python3` is.
"""

import concurrent.futures
import glob
import os
import re
import shutil
import subprocess
import sys
import time

from tests.kit import again

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WITHOUT = "not real_llama and not browser and not real_mcp"
#: What looks at the repository, the same on each Python.
SAME = [
    *("tests/test_benchmarks.py", "tests/test_leak_check.py", "tests/test_mirror.py"),
    *("tests/test_packaging.py", "tests/test_plant.py", "tests/test_rows.py"),
]
#: What drives servers and kills processes for long, and says little of a Python; the README's
#: command has it.
LONG = [
    *("tests/workflow/test_durable_kills.py", "tests/workflow/test_random_resumed.py"),
    *("tests/workflow/test_random.py", "tests/mcp/test_conformance.py"),
    *("tests/cli/test_log_place.py", "tests/cli/test_packed.py", "tests/web/test_workers.py"),
    *(f"tests/local/test_{name}.py" for name in ("child", "model", "server")),
    *(f"tests/recipes/test_{name}.py" for name in ("celery", "demo", "durable", "embedding")),
    *(f"tests/recipes/test_{name}.py" for name in ("examples", "gevent", "programs", "readme")),
    *("tests/recipes/test_jobs.py", "tests/recipes/test_jobs_celery.py"),
    *(
        f"tests/events/redis/test_{name}.py"
        for name in ("cluster", "failover", "server", "shared", "watch")
    ),
    "tests/jobs/test_work.py",
]
#: What one of the two that CI runs has for both: clocks, processes and terminals are the
#: newest's, the wires and what depends on other packages the lowest's.
SPARED = {
    "lowest": [
        *(
            f"tests/cli/test_{name}.py"
            for name in ("approve", "chat", "follow", "output", "resume", "run", "signals", "talk")
        ),
        *(f"tests/faults/test_{name}.py" for name in ("cancel", "clocks", "process")),
        *(f"tests/cli/test_{name}.py" for name in ("exits", "lock", "serve", "wrong_input")),
        *(f"tests/events/test_{name}.py" for name in ("entries", "lagging", "signals", "tail")),
        *(f"tests/events/sqlite/test_{name}.py" for name in ("retention", "signals", "writer")),
        "tests/runtime/test_signals.py",
    ],
    "newest": [
        *("tests/llm", "tests/mcp", "tests/web", "tests/recipes", "tests/otel"),
        *("tests/events/redis/test_checkpoints.py", "tests/events/redis/test_writer.py"),
        *("tests/faults/test_log.py", "tests/jobs/test_jobs.py"),
    ],
}
SETTINGS = os.path.join(ROOT, "setup.cfg")
LOWEST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lowest.txt")
SUPPORTED = ["3.9", "3.10", "3.11", "3.12", "3.13"]


def find():
    """{"3.9": path} of the interpreters that are here."""
    found = {}
    for version in SUPPORTED:
        pattern = os.path.expanduser("~/.pyenv/versions/%s.*/bin/python" % version)
        places = sorted(glob.glob(pattern))
        on_path = shutil.which("python" + version)
        for place in [*reversed(places), *([on_path] if on_path else [])]:
            try:
                said = subprocess.run([place, "-V"], capture_output=True, text=True, check=True)
            except (OSError, subprocess.CalledProcessError):
                continue  # a shim of a version that is not there
            if re.match(r"Python %s\." % re.escape(version), said.stdout + said.stderr):
                found[version] = place
                break
    return found


def install(version, python):
    """A virtual environment with what the tests need; returns its python."""
    folder = os.path.join(ROOT, ".venvs", version)
    pinned = ["-c", LOWEST] if version == "lowest" else []
    inside = os.path.join(folder, "bin", "python")
    made = os.path.join(folder, "made")  # of what: the files that say what is installed
    if _read(made) != _read(SETTINGS) + _read(LOWEST):
        if not os.path.exists(inside):
            subprocess.run([python, "-m", "venv", folder], check=True)
        again.run([inside, "-m", "pip", "install", "-q", *pinned, "-e", ".[test]"], cwd=ROOT)
        with open(made, "w", encoding="utf-8") as file:
            file.write(_read(SETTINGS) + _read(LOWEST))
    return inside


def _read(path):
    """A file's text; none where there is no such file."""
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8") as file:
        return file.read()


def run(version, inside):
    """The suite on one Python, in three processes, which mostly wait: (seconds, what it said)."""
    started = time.monotonic()
    suite = _suite([*_command(version, inside), "-n", "3", "--dist", "loadfile"])
    return time.monotonic() - started, suite


def judge(version, inside, took, suite):
    """True if a suite has passed; its last line is printed, and all of it where it has not."""
    if suite.returncode == 1:
        # Six processes share two cores here: what failed gets a second look, alone, and is named.
        print("matrix: Python %s: a second look at:" % version)
        print("\n".join(x for x in suite.stdout.splitlines() if x.startswith("FAILED")), flush=True)
        suite = _suite([*_command(version, inside), "--lf"])
    lines = suite.stdout.strip().splitlines() or [""]
    print("matrix: Python %s: %s (%.0f s)" % (version, lines[-1].strip("= "), took), flush=True)
    if suite.returncode:
        print(suite.stdout[-20000:])
    return suite.returncode == 0


def _command(version, inside):
    command = [inside, "-m", "pytest", "-q", "-o", "cache_dir=.venvs/cache-" + version]
    spared = SPARED["lowest" if version == "lowest" else "newest"] if os.environ.get("CI") else []
    return [*command, *("--ignore=" + file for file in (*SAME, *LONG, *spared)), "-m", WITHOUT]


def _suite(command):
    return subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def main(wanted):
    only_install = "--install" in wanted
    wanted = [word for word in wanted if word != "--install"]
    found = find()
    wanted = {max(found, key=_key) if w == "newest" else w for w in wanted} or set(found)
    found["lowest"] = found["3.9"]
    missing = sorted(wanted - set(found))
    if missing:
        print("matrix: not on this machine: " + ", ".join(missing))
        if os.environ.get("CI"):
            return 1
    versions = sorted(wanted & set(found), key=_key)
    inside = {version: install(version, found[version]) for version in versions}
    if only_install:
        return 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda version: run(version, inside[version]), versions))
    passed = [judge(one, inside[one], *found) for one, found in zip(versions, done)]
    return 0 if all(passed) else 1


def _key(version):
    return [int(part) for part in version.replace("lowest", "3.8").split(".")]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
