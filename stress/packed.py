"""The command line as programs are packed (Y11): `python -m stress.packed [zipapp] [pyinstaller]`.

Builds each in a temporary folder, of this tree and what it needs (pip; PyInstaller must be
installed), and has it chat, run a workflow, list the runs and serve them.  The suite tries a zip of
the package alone, and -OO.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tempfile
import time
import zipapp
from typing import List

from agentstream import SqliteStore
from agentstream.testing import ScriptedServer
from agentstream.testing.stores import event
from tests.kit.packed import Packed

ROOT = pathlib.Path(__file__).parents[1]


def build_zipapp(folder: pathlib.Path) -> List[str]:
    """One file with all that is needed; returns what runs it."""
    tree = folder / "tree"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(tree)]
    subprocess.run([*pip, f"{ROOT}[server]"], check=True, stderr=subprocess.DEVNULL)
    (tree / "__main__.py").write_text(
        "import sys\nfrom agentstream.cli import main\nsys.exit(main())\n"
    )
    zipapp.create_archive(tree, folder / "agentstream.pyz", compressed=True)
    return [sys.executable, "-I", str(folder / "agentstream.pyz")]


def build_pyinstaller(folder: pathlib.Path) -> List[str]:
    """One executable; returns what runs it."""
    program = folder / "program.py"
    program.write_text("import sys\nfrom agentstream.cli import main\nsys.exit(main())\n")
    subprocess.run(
        [
            *(sys.executable, "-m", "PyInstaller", "--onefile", "--log-level", "ERROR"),
            *("--collect-submodules", "agentstream", "--collect-data", "agentstream"),
            *("--distpath", str(folder), "--workpath", str(folder / "work")),
            *("--specpath", str(folder), "--name", "agentstream-packed", str(program)),
        ],
        cwd=folder,
        check=True,
    )
    return [str(folder / "agentstream-packed")]


def check(command: List[str], folder: pathlib.Path) -> None:
    """Use it as a user would; raises AssertionError if it does not do what it should."""
    with SqliteStore(folder / "served.db") as store:
        store.append(event("run", 1))
    (folder / "flow.toml").write_text('[agents.a]\n[[steps]]\nagent = "a"\n')
    packed = Packed(command, folder)
    with ScriptedServer() as server:
        for words in (["chat", "Hi"], ["run", "flow.toml", "--input", "Hi", "--log", "runs.db"]):
            server.reply_text("Hello")
            assert packed.run(*words, "--base-url", server.url).strip() == "Hello"
    assert "completed" in packed.run("runs", "--log", "runs.db")
    packed.serve("served.db")


BUILDS = {"zipapp": build_zipapp, "pyinstaller": build_pyinstaller}


def main() -> int:
    for name in sys.argv[1:] or list(BUILDS):
        with tempfile.TemporaryDirectory(prefix="packed-") as made:
            folder = pathlib.Path(made)
            began = time.monotonic()
            command = BUILDS[name](folder)
            built = time.monotonic() - began
            size = pathlib.Path(command[-1]).stat().st_size / 2**20
            check(command, folder)
            took = time.monotonic() - began - built
            print(f"{name}: built in {built:.0f} s, {size:.1f} MiB, used in {took:.0f} s: right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
