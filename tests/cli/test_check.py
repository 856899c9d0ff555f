"""agentstream check: what is wrong with a file, in words."""

from __future__ import annotations

import sys

import pytest

from tests.kit.cli_runs import in_turn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


def test_check_says_what_is_wrong(cli, here):
    good = cli.write("good.toml", in_turn("one"))
    bad = cli.write("bad.toml", in_turn("one").replace('agent = "one"', 'agent = "oen"'))
    drawn = here("check", good, "--mermaid")
    assert drawn.out.startswith("flowchart")
    for command in ("check", "run"):
        wrong = here(command, bad, code=2)
        assert "bad.toml" in wrong.line
        assert "'one'" in wrong.line
        assert wrong.out == ""
        assert "none.toml" in here(command, "none.toml", code=2).line
