"""Y11: the command line from a zip, and without docstrings and asserts; the rest in stress/packed.py."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

import agentstream
from agentstream import ConfigError, SqliteStore
from agentstream.testing import ScriptedServer
from agentstream.testing.stores import event
from agentstream.web.page import load_page
from tests.kit.packed import Packed

PACKAGE = pathlib.Path(agentstream.__file__).parent


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The package in a zip; what it needs is where it was."""
    path = tmp_path_factory.mktemp("zip") / "agentstream.zip"
    with zipfile.ZipFile(path, "w") as file:
        for found in PACKAGE.rglob("*"):
            if found.is_file() and "__pycache__" not in found.parts:
                file.write(found, found.relative_to(PACKAGE.parent))
    return str(path)


@pytest.fixture(params=["zip", "-OO"])
def packed(request: pytest.FixtureRequest, archive: str, tmp_path: pathlib.Path) -> Packed:
    program = "import sys; from agentstream.cli import main; sys.exit(main())"
    options = ["-OO"] if request.param == "-OO" else []
    path = archive if request.param == "zip" else str(PACKAGE.parent)
    # Of a folder of its own: where the tests run, the package lies.
    return Packed([sys.executable, *options, "-c", program], tmp_path, PYTHONPATH=path)


def test_y11_serve_shows_its_page_and_the_runs(packed: Packed, tmp_path: pathlib.Path) -> None:
    with SqliteStore(tmp_path / "runs.db") as store:
        store.append(event("run", 1))
    packed.serve("runs.db")


def test_y11_chat_and_run_answer(packed: Packed, tmp_path: pathlib.Path) -> None:
    (tmp_path / "flow.toml").write_text('[agents.a]\n[[steps]]\nagent = "a"\n')
    with ScriptedServer() as server:
        for words in (["chat", "Hi"], ["run", "flow.toml", "--input", "Hi", "--log", "runs.db"]):
            server.reply_text("Hello")
            assert packed.run(*words, "--base-url", server.url).strip() == "Hello"
    assert "completed" in packed.run("runs", "--log", "runs.db")


def test_y11_a_package_in_a_zip_is_what_runs(archive: str, tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import agentstream.cli; print(agentstream.__file__)"],
        env={**os.environ, "PYTHONPATH": archive},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.startswith(archive)


def test_y11_a_page_that_was_not_packed_is_told_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr("importlib.resources.files", lambda name: tmp_path)
    with pytest.raises(ConfigError, match="--collect-data agentstream"):
        load_page()
