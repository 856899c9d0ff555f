"""agentstream stop: what there is not to stop."""

from __future__ import annotations

import sys

import pytest

from tests.kit.support import free_port

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


def test_what_is_not_there(cli, here):
    assert "which log?" in here("runs", code=2).line
    for words in (["runs"], ["follow"], ["stop", "x"]):
        none = here(*words, "--log", "none.db", code=2)
        assert none.line.startswith("there is no log none.db")
    assert not (cli.folder / "none.db").exists()
    cli.write("text.db", "no database " * 1000)
    assert here("runs", "--log", "text.db", code=1).line
    where = f"http://127.0.0.1:{free_port()}"
    assert "does not list its runs: " in here("follow", "--url", where, code=1).line
    assert "http://" in here("follow", "--url", where[7:], code=2).line
    assert cli("follow", "x", "--url", where, "--deadline", "0.8", code=124).line
