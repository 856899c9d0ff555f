"""docs/testing.rst: its files, written and run as a reader would."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import Any

import pytest

from agentstream.testing import ScriptedServer, text_chunks
from tests.kit.programs import PROJECT, environment
from tests.kit.recipes import MODEL, recipes, write

DOCUMENT = (PROJECT / "docs" / "testing.rst").read_text("utf-8")


def run(folder: pathlib.Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env={**environment(), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return f"{done.returncode}\n{done.stdout}"


@pytest.fixture
def folder(tmp_path: Any) -> Any:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def test_the_documents_tests_pass_recorded_and_replayed(folder: Any) -> None:
    names = list(recipes(DOCUMENT))
    assert len(names) == 5
    with ScriptedServer() as server:
        server.reply(*text_chunks("Blue", " and", " true"), repeat=True)
        for name in names:
            changes = [(MODEL, server.url)] if name == "test_recorded.py" else []
            write(folder, name, *changes, document=DOCUMENT)
        said = run(folder, "--record")
        assert said.startswith("0\n"), said
        assert len(server.requests) == 1
    cassette = folder / "cassettes" / "test_recorded" / "test_the_poet_rhymes.jsonl"
    assert cassette.exists()
    said = run(folder, "test_recorded.py")
    assert said.startswith("0\n"), said
    source = (folder / "test_recorded.py").read_text().replace("the sea", "the moon")
    (folder / "test_recorded.py").write_text(source)
    said = run(folder, "test_recorded.py")
    assert said.startswith("1\n")
    assert 'recorded "A line about the sea", asked "A line about the moon"' in said


def test_a_fixture_has_a_file_for_each_name_and_new_keeps_the_old(folder: Any) -> None:
    (folder / "conftest.py").write_text('pytest_plugins = ["agentstream.testing.pytest_plugin"]\n')
    (folder / "test_it.py").write_text(
        "import os, pytest\n"
        "from agentstream import LlamaClient\n"
        "@pytest.mark.parametrize('word', ['a b', '../c'])\n"
        "def test_it(recorder, word):\n"
        "    for name in ('', 'other'):\n"
        "        client = recorder(LlamaClient(os.environ['SERVER']), name)\n"
        "        assert client.chat(word).text == 'hi'\n"
        "class TestA:\n"
        "    @pytest.mark.parametrize('word', ['d', 'e/f', 'e f', 300 * 'g'])\n"
        "    def test_it(self, recorder, word):\n"
        "        client = recorder(LlamaClient(os.environ['SERVER']))\n"
        "        assert client.chat('A' + word).text == 'hi'\n"
        "        with pytest.raises(Exception, match='has a recorder of Test[AB].test_it'):\n"
        "            recorder(LlamaClient(os.environ['SERVER']))\n"
        "class TestB(TestA):\n"
        "    pass\n"
    )
    with ScriptedServer() as server:
        server.reply(*text_chunks("hi"), repeat=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SERVER", server.url)
            for _ in range(2):
                said = run(folder, "--record-new")
                assert said.startswith("0\n"), said
        assert len(server.requests) == 4 + 8
    files = sorted(path.name for path in (folder / "cassettes" / "test_it").iterdir())
    assert len(files) == 4 + 8
    assert {"TestA.test_it_d_.jsonl", "TestB.test_it_d_.jsonl"} < set(files), files
    assert all("test_it" in name for name in files), files
