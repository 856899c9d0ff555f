"""agentstream completion: what Tab offers, in real shells, and how soon."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from agentstream import EventStream
from agentstream.cli.commands import PROVIDERS
from agentstream.cli.complete import complete
from agentstream.cli.parser import parsers
from agentstream.events.sqlite import SqliteStore
from agentstream.llm.clients import APIS
from agentstream.providers import NAMES
from agentstream.testing import text_chunks
from tests.kit.cli_runs import FLOW

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="shells of POSIX")


def offered(line, shell="zsh"):
    return [found.partition("\t")[0] for found in complete(shell, line).splitlines()]


def test_commands_flags_and_values_come_from_the_parser():
    _, commands = parsers()
    assert offered("agentstream ") == list(commands)
    assert offered("agentstream mo") == ["model", "models"]
    assert offered("agentstream --v") == ["--version"]
    for name, command in commands.items():
        flags = {flag for flag in command._option_string_actions if flag.startswith("--")}
        assert set(offered(f"agentstream {name} --")) == flags
    assert PROVIDERS == NAMES
    assert offered("agentstream run a.toml --api ") == list(APIS)
    for line, found in (
        ("agentstream chat --provider o", ["openai", "ollama"]),
        ("agentstream chat --provider=o", ["openai", "ollama"]),
        ("agentstream chat --fallback a", ["anthropic"]),
        ("agentstream chat --effort m", ["minimal", "medium"]),
        ("agentstream chat -q --prov", ["--provider"]),
        ("agentstream help se", ["serve", "settings"]),
        ("agentstream help serve ", ["--help"]),
        ("agentstream completion ", ["bash", "zsh", "fish"]),
        ("agentstream run ", [":files"]),
        ("agentstream run --input x my", [":files"]),
        ("agentstream serve one.toml ", [":files"]),
        ("agentstream chat -a ", [":files"]),
        ("agentstream chat --log 'my ", [":files"]),
        ("agentstream chat --log=my", [":files"]),
        ("agentstream chat --system ", []),
        ("agentstream chat why", []),
        ("agentstream doctor ", offered("agentstream doctor --")),
        ("agentstream nothing ", []),
        ("agentstream chat 'it is \"open", []),
        ("", list(commands)),
    ):
        assert offered(line) == found, line
    assert offered("agentstream chat --provider=o", "fish") == [
        "--provider=openai",
        "--provider=ollama",
    ]


def test_runs_and_conversations_are_named(here, cli, server):
    server.default(*text_chunks("Fine."))
    here("run", cli.write("verse.toml", FLOW), "--input", "x", "--id", "alpha", "--log", cli.log)
    here("chat", "one?", "--conversation", "trip:south")
    here("chat", "two?", "--conversation", "work")
    assert complete("zsh", f"agentstream follow --log {cli.log} a") == "alpha\tverse completed\n"
    assert offered(f"agentstream follow --log={cli.log} ") == ["alpha"]
    assert offered(f"agentstream stop --log {cli.log} a") == []  # it has ended
    assert offered("agentstream follow --log nothing.db a") == []
    assert offered("agentstream chat --conversation ") == ["work", "trip:south"]
    assert offered("agentstream chat --forget trip:s", "bash") == ["south"]  # it breaks words there


def test_no_name_that_somebody_chose_is_run_by_a_shell(here, cli):
    cli.write("flow.toml", FLOW)
    with EventStream(SqliteStore(cli.log)) as stream:
        for run in ("$(touch ran)1", "$(touch ran)2", "two\nlines", "bell\a", "tab\tstop"):
            stream.append("agent_llm_stream_chunk", run, {"agent": "a", "step": "0", "chunk": "x"})
    line = f"agentstream follow --log {cli.log} "
    assert sorted(offered(line)) == ["$(touch ran)1", "$(touch ran)2"]
    script = """
        eval "$(agentstream completion bash)"
        COMP_LINE="$1" COMP_POINT=${#1}
        _agentstream agentstream
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    if shutil.which("bash"):
        program = cli.folder / "bin" / "agentstream"
        program.parent.mkdir()
        program.write_text(PROGRAM.format(python=sys.executable))
        program.chmod(0o755)
        env = cli.environment(PATH=f"{program.parent}:{os.environ['PATH']}")
        done = subprocess.run(
            ["bash", "-c", script, "bash", line],
            env=env,
            capture_output=True,
            text=True,
            timeout=30,
        )
        words = sorted(done.stdout.splitlines())
        assert words == [rf"\$\(touch\ ran\){n}" for n in (1, 2)], done


def test_it_brings_no_http_and_says_nothing_of_what_is_wrong(cli):
    cli.write("config.toml", "no = [toml")
    env = cli.environment(AGENTSTREAM_CONFIG=str(cli.folder / "config.toml"))
    words = [sys.executable, "-X", "importtime", "-m", "agentstream", "completion", "--", "bash"]
    for line in ("agentstream chat --conversation ", "agentstream follow ", "agentstream run --"):
        done = subprocess.run([*words, line], env=env, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert not imported & {"requests", "urllib3", "agentstream.cli.command"}
        assert "Traceback" not in done.stderr


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(agentstream completion bash)"'),
    "zsh": (
        ["zsh", "-f", "-i"],
        'autoload -U compinit; compinit -u; eval "$(agentstream completion zsh)"',
    ),
    "fish": (["fish", "--no-config", "-i"], "agentstream completion fish | source"),
}


#: In place of the command: answers Tab as it does, and else tells what it was started with.
PROGRAM = """#!/bin/sh
[ "$1" = completion ] && exec {python} -m agentstream "$@"
printf '<%s>' "$@" && echo
"""


@pytest.mark.parametrize("name", SHELLS)
def test_a_real_shell_completes(cli, name):
    words, load = SHELLS[name]
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name} here")
    program = cli.folder / "bin" / "agentstream"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    cli.write("the flow.toml", FLOW)
    env = {"PATH": f"{program.parent}:{os.environ['PATH']}", "TERM": "xterm", "PS1": "$ "}
    shell = cli.in_control(*words, env=env)
    shell.type(f"{load}; agentstream 'loa'ded\r".encode())
    shell.expect("<loaded>")
    for typed, ran in (
        ("docto\t--offl\t", "<doctor><--offline>"),
        ("chat --provider=oll\t", "<chat><--provider=ollama>"),
        ("check the\t", "<check><the flow.toml>"),
        ("run --log=the\t", "<run><--log=the flow.toml>"),
    ):
        shell.type(f"agentstream {typed}\r".encode())
        shell.expect(ran, 20.0)
