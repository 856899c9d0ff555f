"""Row B19: whatever is given, a usage error is one line on standard error and exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Callable, Iterator

import pytest

from tests.kit.cli_support import Shell
from tests.kit.support import hunt
from tests.kit.warm import Warm

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="arguments of POSIX are bytes")

BYTES = os.fsdecode(b"caf\xe9")  # latin-1, as a shell hands it on
FLOW = '[agents.a]\n[[steps]]\nagent = "a"\n'


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    warm = Warm(tmp_path_factory.mktemp("warm"))
    yield warm
    warm.close()


@pytest.fixture
def refused(cli: Shell, warm: Warm) -> Callable[..., str]:
    """Runs a command to its one line of refusal, which it returns."""

    def run(*words: str, code: int = 2, **env: str) -> str:
        done = warm(words, cli.environment(**env), cli.folder)
        told = done.stderr.decode("utf-8", "replace")
        assert done.returncode == code, told
        assert told.startswith("agentstream: ")
        assert told.count("\n") == 1, told
        assert done.stdout == b""
        hunt(told)
        return told

    return run


def test_b19_a_process_of_its_own_says_the_same(cli: Shell, refused: Callable[..., str]) -> None:
    for words in (["chat", BYTES], ["follow", "--url", BYTES], ["runs", "--log", BYTES]):
        done = subprocess.run(
            [sys.executable, "-m", "agentstream", *words],
            env=cli.environment(),
            cwd=cli.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
        )
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr.decode("utf-8", "replace") == refused(*words)


@pytest.mark.parametrize(
    "words",
    [
        ["chat", BYTES],
        ["chat", "x", "--model", BYTES],
        ["chat", "x", "--provider", BYTES],
        ["chat", "x", "--base-url", "http://" + BYTES],
        ["chat", "x", "--lock", BYTES],
        ["chat", "x", "--log", BYTES],
        ["run", BYTES],
        ["run", "flow.toml", "--input", BYTES],
        ["run", "flow.toml", "--input", "x", "--id", BYTES],
        ["run", "flow.toml", "--input", "x", "--log", BYTES],
        ["run", "flow.toml", "--set", f"name={BYTES}"],
        ["check", BYTES],
        ["runs", "--log", BYTES],
        ["stop", BYTES, "--log", "runs.db"],
        ["stop", "x", "--log", "runs.db", "--reason", BYTES],
        ["follow", BYTES, "--log", "runs.db"],
        ["follow", "--url", BYTES],
        ["follow", "--url", "http://127.0.0.1:1", "--token-file", BYTES],
        ["serve", "--log", BYTES],
        ["serve", "--log", "runs.db", "--host", BYTES],
        ["serve", "--log", "runs.db", "--name", BYTES],
        [BYTES],
        ["chat", f"--{BYTES}"],
    ],
    ids=lambda words: " ".join(words).encode("ascii", "replace").decode(),
)
def test_b19_arguments_that_are_not_utf8(refused: Callable[..., str], cli, words):
    cli.write("flow.toml", FLOW)
    refused(*words)


@pytest.mark.parametrize("name", ["MODEL", "SYSTEM", "LOG", "BASE_URL", "PROVIDER"])
def test_b19_variables_that_are_not_utf8(refused: Callable[..., str], cli, name):
    refused("chat", "x", **{f"AGENTSTREAM_{name}": "http://" + BYTES})


@pytest.mark.parametrize(
    "url",
    ["http://[::1", "http://", "http://:80", "http://h:99999", "http://h:x", "host", "ftp://h", ""],
)
def test_b19_urls_that_are_none(refused: Callable[..., str], cli, url):
    refused("follow", "--url", url)
    refused("follow", "some", "--url", url)
    refused("chat", "x", "--base-url", url)
    refused("chat", "x", "--base-url", url, "--provider", "openai")
    if url:
        refused("chat", "x", AGENTSTREAM_BASE_URL=url)


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 10_000 + "]" * 10_000,
        "a." * 10_000 + "b = 1",
        "retries = " + "9" * 5000,
        "retries = " + "9" * 400,
        "retries = 99999999999",
        "retries = -1",
        "deadline = " + "9" * 400,
        "deadline = 1e308",
        "deadline = 1e999",
        "deadline = inf",
        "log_days = 1e308",
        "log_days = " + "9" * 400,
        'log = ""',
        'log = ":memory:"',
        'log = "file:x?mode=memory"',
        'log = "a\\u0000b"',
        'base_url = "http://[::1"',
        "model = 2026-11-22",
        "= 5",
        'model = "\\ud800"',
    ],
    ids=lambda text: text[:24],
)
def test_b19_config_files(refused: Callable[..., str], cli, text):
    cli.write("config.toml", text)
    refused("chat", "x", AGENTSTREAM_CONFIG="config.toml", AGENTSTREAM_BASE_URL="")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("DEADLINE", ["1e308", "1e999", "inf", "nan", "-1", "0", "9" * 400, "soon", "1e10"]),
        ("LOG_DAYS", ["1e308", "inf", "0", "9" * 400]),
        ("RETRIES", ["9" * 5000, "9" * 400, "-1", "1.5", "1e3", "10000000"]),
        ("LOG", [":memory:", "file:runs.db", "FILE:runs.db?mode=memory"]),
        ("INSECURE", ["maybe", "2"]),
        ("PROVIDER", ["none", "9" * 5000]),
    ],
)
def test_b19_variables(refused: Callable[..., str], cli, name, values):
    for value in values:
        flags = [] if name == "LOG" else ["--log", "r.db"]
        told = refused("chat", "x", *flags, **{f"AGENTSTREAM_{name}": value})
        assert len(told) < 300


@pytest.mark.parametrize("log", ["", ":memory:", "file:runs.db", "file::memory:?cache=shared"])
def test_b19_logs_that_are_no_file(refused: Callable[..., str], cli, log):
    cli.write("flow.toml", FLOW)
    for words in (
        ["chat", "x"],
        ["run", "flow.toml", "--input", "x"],
        ["runs"],
        ["follow"],
        ["stop", "x"],
        ["serve", "--port", "0"],
    ):
        refused(*words, "--log", log)
    assert sorted(os.listdir(cli.folder)) == ["flow.toml", "home"]


def test_b19_a_folder_is_no_log(refused: Callable[..., str], cli):
    for words in (["runs"], ["follow"], ["stop", "x"], ["chat", "x"], ["serve", "--port", "0"]):
        refused(*words, "--log", str(cli.home), code=1)


@pytest.mark.parametrize("host", ["x" * 300, "no such host", "a..b", "999.1.1.1"])
def test_b19_hosts_that_are_none(refused: Callable[..., str], cli, host):
    refused("serve", "--log", "runs.db", "--host", host, AGENTSTREAM_TOKEN="t" * 20)
