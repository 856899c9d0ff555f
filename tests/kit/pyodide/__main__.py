"""Imports every module, and runs the tests that need no thread or socket, on 3.14 and 3.15.

    python -m tests.kit.pyodide [3.14] [3.15]

Needs Node 20 and npm; what it installs goes to .venvs/.  Only the standard library.
"""

import pathlib
import shutil
import subprocess
import sys

from tests.kit import again

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]
#: The npm package's version for each of Python's.
VERSIONS = {"3.14": "314.0.7", "3.15": "315.0.0-alpha.2"}
WHEELS = ["requests", "urllib3", "sseclient-py", "idna", "certifi", "charset_normalizer"]
WHEELS += ["pytest", "pluggy", "iniconfig", "packaging", "pygments"]


def main(wanted):
    npm, node = shutil.which("npm"), shutil.which("node")
    if not (npm and node):
        print("pyodide: Node is not on this machine")
        return 1
    wheels = ROOT / ".venvs" / "pyodide-wheels"
    pure = ["--no-deps", "--only-binary=:all:", "--platform", "any", "--python-version", "3.13"]
    _fetch([sys.executable, "-m", "pip", "download", "-q", *pure, "-d", str(wheels), *WHEELS])
    for version in wanted or VERSIONS:
        folder = ROOT / ".venvs" / ("pyodide-" + version)
        package = folder / "node_modules" / "pyodide"
        if not package.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            name = f"pyodide@{VERSIONS[version]}"
            _fetch([npm, "install", "--silent", "--prefix", str(folder), name])
        _run(
            [
                node,
                str(HERE / "run.mjs"),
                str(package),
                str(ROOT),
                str(wheels),
                str(HERE / "inside.py"),
            ]
        )
    return 0


def _fetch(command):
    again.run(command, cwd=ROOT, timeout=180)


def _run(command):
    subprocess.run(command, check=True, cwd=ROOT, timeout=600)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
