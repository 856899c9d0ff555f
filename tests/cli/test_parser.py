"""The arguments: what is asked wrongly, deadlines, and help that fits a small terminal."""

from __future__ import annotations

import re
import sys

import pytest

from agentstream._version import __version__
from agentstream.cli.parser import parse, parsers
from agentstream.cli.slash import COMMANDS as SLASH
from agentstream.cli.table import SETTINGS
from tests.kit.commands_doc import PAGE, written
from tests.kit.support import KEY, hunt

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


def test_what_is_asked_wrongly_is_one_line_and_2(cli, capsys):
    wrong = cli("chat", f"--api-key={KEY}", code=2)  # which hunts for it
    assert wrong.line.startswith("unknown: --api-key (a key is never a flag, ")
    for words, told in (
        (["run", "x.toml", "--key", KEY], "unknown: --key (a key is never a flag, "),
        (["chat", "x", "--modle", "m"], "unknown: --modle (did you mean --model?); `agentstream"),
        (["chat", "x", "y"], "too many arguments"),
        (["chat", "--mod", "m"], "unknown: --mod"),  # what is cut short may mean more one day
        ([], "the following arguments are required: COMMAND"),
        (["chta"], "argument COMMAND: invalid choice: 'chta' (did you mean `chat`?);"),
        (["help", "setings"], "there is no help on 'setings' (did you mean `settings`?);"),
        (["chat", "a", "b", "-"], "too many arguments"),
        (["chat", "x", "--deadline", "0"], "argument --deadline: '0' must be seconds above 0"),
        (["chat", "x", "--retries", "-1"], "argument --retries: "),
        (["chat", "x", "--json", "--jsonl"], "--json or --jsonl: one of them"),
        (["chat", "x", "--temperature", "hot"], "argument --temperature: 'hot' must be a number"),
        (["run", "x.toml", "--set", "a"], "argument --set: 'a' must be KEY=VALUE"),
        (["stop"], "the following arguments are required: ID"),
        (["run", "x", "--resume", "a", "--once"], "--resume ID stands for --id and --once"),
        (["run", "x", "--resume", "a", "--id", "a"], "--resume ID stands for --id and --once"),
        (["resume"], "ID, or --watch FILE: one of them"),
        (["resume", "a", "--watch", "x"], "ID, or --watch FILE: one of them"),
        (["resume", "--watch", "x", "--force"], "--force is for one run, not for --watch"),
        (["approve", "a", "--no", "x", "--arguments", "{}"], "--no or --arguments: one of them"),
        (["approve", "a", "--arguments", "[1]"], "argument --arguments: what is given is no JSON"),
        (["approve", "a", "--arguments", "{"], "argument --arguments: what is given is no JSON"),
        (["signal", "a"], "the following arguments are required: NAME"),
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


def test_a_misspelt_flag_is_told_what_was_meant_and_keys_are_for_keys_only(capsys):
    keys = "a key is never a flag"
    for words, told in (
        (["chat", "x", "--max-token", "5"], "(did you mean --max-tokens?)"),
        (["chat", "x", "--maxtokens=5"], "(did you mean --max-tokens?)"),
        (["chat", "x", "--tokens", "5"], "(did you mean --max-tokens?)"),
        (["chat", "x", "--base_url", "http://h"], "(did you mean --base-url?)"),
        (["chat", "x", "--url", "http://h"], "(did you mean --base-url?)"),
        (["chat", "x", "--temp", "1"], "(did you mean --temperature?)"),
        (["run", "x", "--dead-line", "1"], "(did you mean --deadline?)"),
        (["runs", "--jsno"], "(did you mean --json?)"),
        (["serve", "--hots", "h"], "(did you mean --host?)"),
        (["follow", "--token-fil", "t"], "(did you mean --token-file?)"),
        (["follow", "--token", KEY], f"({keys}, which others could read: use --token-file)"),
        (["serve", "--token", KEY], f"({keys}, which others could read: use --token-file)"),
        (["chat", "x", "--token", KEY], f"({keys}, which others could read: set AGENTSTREAM_"),
        (["chat", "x", f"--openai-api-key={KEY}"], keys),
        (["chat", "x", "--apikey", KEY], keys),
        (["chat", "x", "--password", KEY], keys),
        (["chat", "x", "--keyboard"], "unknown: --keyboard; `agentstream chat --help`"),
        (["chat", "x", "--zzz", "--modle"], "unknown: --zzz, --modle (did you mean --model?);"),
        (["chat", "x", "-model", "m"], "(did you mean --model?)"),
        (["chat", "x", "-z"], "unknown: -z; `agentstream chat --help`"),
    ):
        with pytest.raises(SystemExit) as left:
            parse(words)
        assert left.value.code == 2
        printed = capsys.readouterr().err
        assert told in printed, words
        assert (keys in told) == (keys in printed), words
        assert printed.count("\n") == 1
        hunt(printed)


def test_help_tells_of_commands_and_lists_the_settings(monkeypatch, capsys):
    monkeypatch.setenv("AGENTSTREAM_CONFIG", "/etc/of/mine.toml")

    def told(*words):
        with pytest.raises(SystemExit) as left:
            parse(list(words))
        assert left.value.code == 0
        return capsys.readouterr().out

    assert told("help") == told("--help")
    assert told("help", "chat") == told("chat", "--help")
    listed = told("help", "settings")
    assert "/etc/of/mine.toml" in listed
    assert max(map(len, listed.splitlines())) <= 79
    for setting in SETTINGS:
        assert setting.variable in listed
        assert setting.flag in listed
    flags = {word for name in COMMANDS for word in told(name, "--help").split()}
    few = {
        "--api",
        "--think-tags",
        "--budget-tokens",
        "--budget-cost",
        "--rate-limit",
    }  # need these, and the screen has 24 lines
    assert {one.flag for one in SETTINGS if one.flag} <= flags | few


COMMANDS = [
    "chat",
    "run",
    "check",
    "runs",
    "follow",
    "stop",
    "resume",
    "approve",
    "signal",
    "serve",
    "model",
    "models",
    "tools",
    "doctor",
    "completion",
    "help",
]


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


def test_the_docs_say_what_the_parser_takes():
    page = PAGE.read_text("utf-8")
    assert page == written(), "python -m tests.kit.commands_doc writes it"
    parser, commands = parsers()
    known = {flag for one in (parser, *commands.values()) for flag in one._option_string_actions}
    assert known >= set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page))
    assert {flag for flag in known if flag.startswith("--")} <= set(re.findall(r"--[a-z-]+", page))
    told = dict(re.findall(r"^``/(\w+)(.*?)``  ", page, re.MULTILINE))
    assert {"quit": "", **told} == {
        name: command.argument and f" {command.argument}" for name, command in SLASH.items()
    }
