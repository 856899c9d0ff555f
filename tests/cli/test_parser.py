"""The arguments: what is asked wrongly, deadlines, and help that fits a small terminal."""

from __future__ import annotations

import sys

import pytest

from agentstream._version import __version__
from agentstream.cli.parser import parse
from tests.kit.support import KEY, hunt

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


def test_what_is_asked_wrongly_is_one_line_and_2(cli, capsys):
    wrong = cli("chat", f"--api-key={KEY}", code=2)  # which hunts for it
    assert wrong.line.startswith("unknown: --api-key (a key is never a flag, ")
    for words, told in (
        (["run", "x.toml", "--key", KEY], "unknown: --key (a key is never a flag, "),
        (["chat", "x", "--modle", "m"], "unknown: --modle; `agentstream chat --help`"),
        (["chat", "x", "y"], "too many arguments"),
        (["chat", "--mod", "m"], "unknown: --mod"),  # what is cut short may mean more one day
        ([], "the following arguments are required: COMMAND"),
        (["chta"], "argument COMMAND: invalid choice: 'chta'"),
        (["chat", "x", "--deadline", "0"], "argument --deadline: '0' must be seconds above 0"),
        (["chat", "x", "--retries", "-1"], "argument --retries: "),
        (["chat", "x", "--json", "--jsonl"], "--json or --jsonl: one of them"),
        (["chat", "x", "--temperature", "hot"], "argument --temperature: 'hot' must be a number"),
        (["run", "x.toml", "--set", "a"], "argument --set: 'a' must be KEY=VALUE"),
        (["stop"], "the following arguments are required: ID"),
    ):
        with pytest.raises(SystemExit) as left:
            parse(words)
        assert left.value.code == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith(f"agentstream: {told}")
        assert printed.err.count("\n") == 1
        hunt(printed.err)
    with pytest.raises(SystemExit) as left:
        parse(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"agentstream {__version__}\n"


def test_a_deadline_may_be_in_minutes_or_hours():
    for text, seconds in (("600", 600.0), ("1.5", 1.5), ("10m", 600.0), ("2h", 7200.0)):
        assert parse(["chat", "x", "--deadline", text]).deadline == seconds


COMMANDS = ["chat", "run", "check", "runs", "follow", "stop", "serve"]


@pytest.mark.parametrize("command", [[], *[[name] for name in COMMANDS]])
def test_help_fits_24_lines_of_80(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")  # as wide as it likes
    with pytest.raises(SystemExit) as left:
        parse([*command, "--help"])
    assert left.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert all(name in " ".join(lines) for name in ([] if command else COMMANDS))
