"""Where the command line's settings come from: flags, the environment, the config file."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import sys
import textwrap
from types import SimpleNamespace

import pytest

import agentstream
from agentstream.cli import main
from agentstream.cli.parser import parse
from agentstream.cli.settings import config_file, log_of, open_client, setting, token
from agentstream.cli.table import SETTINGS
from agentstream.errors import ConfigError
from agentstream.providers import NAMES
from agentstream.testing import text_chunks
from tests.kit import settings_doc
from tests.kit.support import KEY, hunt


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home without settings."""
    for name in list(os.environ):
        if name.startswith(("AGENTSTREAM_", "ANTHROPIC_", "OPENAI_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("APPDATA", str(tmp_path / ".config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configure(home, text, mode=0o600):
    path = home / ".config" / "agentstream" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def found(name, *flags):
    return setting(parse(["chat", "x", *flags]), name)


def problem(name, *flags):
    """What is wrong with a setting; no key in it."""
    with pytest.raises(ConfigError) as caught:
        found(name, *flags)
    hunt(str(caught.value))
    return str(caught.value)


def client(*flags):
    with contextlib.ExitStack() as stack:
        return open_client(parse(["chat", "x", *flags]), stack, resume=True)


def test_flag_then_environment_then_file(home, monkeypatch):
    assert found("model") is None
    configure(home, 'model = "of-the-file"\nretries = 3\ndeadline = 5\ninsecure = true\n')
    assert found("model") == "of-the-file"
    assert (found("retries"), found("deadline"), found("insecure")) == (3, 5.0, True)
    monkeypatch.setenv("AGENTSTREAM_MODEL", "of-the-environment")
    monkeypatch.setenv("AGENTSTREAM_RETRIES", "4")
    monkeypatch.setenv("AGENTSTREAM_INSECURE", "0")
    assert found("model") == "of-the-environment"
    assert (found("retries"), found("insecure")) == (4, False)
    assert found("model", "--model", "of-the-flag") == "of-the-flag"
    assert found("retries", "--retries", "0") == 0
    monkeypatch.setenv("AGENTSTREAM_MODEL", "")  # as good as not set
    assert found("model") == "of-the-file"


def test_where_the_file_is(home, monkeypatch):
    assert config_file() == home / ".config" / "agentstream" / "config.toml"
    if sys.platform != "win32":
        monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg"))
        assert config_file() == home / "xdg" / "agentstream" / "config.toml"
    named = home / "mine.toml"
    monkeypatch.setenv("AGENTSTREAM_CONFIG", str(named))
    assert problem("model") == f"AGENTSTREAM_CONFIG names {named}, which is not there"
    named.write_text('model = "mine"')
    assert found("model") == "mine"


def test_what_is_wrong_is_said_with_its_place(home, monkeypatch):
    path = configure(home, 'modle = "x"\n')
    assert problem("model") == f"{path}: modle: unknown setting; did you mean 'model'?"
    configure(home, 'modle = "x"\nretries = "many"\n')
    assert problem("model").count(f"{path}: ") == 2  # all of it at once
    configure(home, "model = 7\n")
    assert problem("model") == f"{path}: model must be a text"
    configure(home, f"api_key = ['{KEY}']\n")
    assert problem("api_key") == f"{path}: api_key must be a text"
    configure(home, f"api_key = {KEY}\n")
    assert problem("api_key").startswith(f"{path} is no TOML: ")
    configure(home, "deadline = -1\n")
    assert problem("deadline").startswith(f"{path}: deadline must be seconds above 0")
    configure(home, "retries = true\n")
    assert problem("retries") == f"{path}: retries must be a whole number"
    configure(home, 'provider = "lama"\n')
    assert f"must be one of {', '.join(NAMES)}" in problem("provider")
    configure(home, f'base_url = "me:{KEY}@host"\n')
    assert problem("base_url") == f"{path}: base_url must begin with http:// or https://"
    path.unlink()
    path.mkdir()
    assert problem("model").startswith(f"{path} cannot be read: ")
    path.rmdir()
    for name, text in (
        ("DEADLINE", "soon"),
        ("DEADLINE", "0"),
        ("DEADLINE", "nan"),
        ("RETRIES", "-1"),
        ("INSECURE", "maybe"),
        ("PROVIDER", "x"),
    ):
        with monkeypatch.context() as only:
            only.setenv(f"AGENTSTREAM_{name}", text)
            assert f"AGENTSTREAM_{name} must be" in problem(name.lower())
    assert "--provider must be one of" in problem("provider", "--provider", "x")


def test_a_misspelt_variable_is_warned_of(home, monkeypatch, capsys):
    for name in ("AGENTSTREAM_MODLE", "AGENTSTREAM_KEY", "AGENTSTREAM_ZZZ", "OTHER_MODLE"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("AGENTSTREAM_MODEL", "m")
    monkeypatch.setenv("AGENTSTREAM_CACHE", str(home))
    (home / "runs.db").touch()
    main(["runs", "--log", "none.db"])
    warned = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert warned == [
        "agentstream: warning: AGENTSTREAM_KEY is no setting: did you mean AGENTSTREAM_API_KEY?",
        "agentstream: warning: AGENTSTREAM_MODLE is no setting: did you mean AGENTSTREAM_MODEL?",
        "agentstream: warning: AGENTSTREAM_ZZZ is no setting:"
        " `agentstream help settings` lists them",
    ]
    main(["chat", "x", "-q", "--provider", "none"])
    printed = capsys.readouterr().err
    assert "warning" not in printed
    hunt(printed)


def test_every_variable_that_the_package_reads_is_in_the_table():
    package = pathlib.Path(agentstream.__file__).parent
    read = {
        name
        for path in package.rglob("*.py")
        for name in re.findall(r"AGENTSTREAM_[A-Z_]*[A-Z]", path.read_text("utf-8"))
    }
    assert read <= {one.variable for one in SETTINGS}


def test_a_deadline_may_be_written_in_minutes_wherever_it_is_set(home, monkeypatch):
    configure(home, 'deadline = "2h"\n')
    assert found("deadline") == 7200.0
    monkeypatch.setenv("AGENTSTREAM_DEADLINE", "10m")
    assert found("deadline") == 600.0
    monkeypatch.delenv("AGENTSTREAM_DEADLINE")
    configure(home, 'deadline = "0m"\n')
    assert "deadline must be seconds above 0" in problem("deadline")


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_instructions_have_two_names(home):
    assert found("system", "--system", "a") == found("system", "--system-prompt", "a") == "a"
    configure(home, "system_prompt = 'Be brief.'\n")
    assert found("system") == "Be brief."
    configure(home, "system_prompt = 'x'\nsystem = 'y'\n")
    assert "system_prompt is another name for system" in problem("system")


def test_a_key_that_others_can_read(home, capsys):
    path = configure(home, f'api_key = "{KEY}"\n')
    assert found("api_key") == KEY
    assert capsys.readouterr().err == ""
    path.chmod(0o640)
    assert found("api_key") == KEY
    printed = capsys.readouterr().err
    assert printed == (
        f"agentstream: warning: others can read the key in {path}: chmod 600 {path}\n"
    )
    configure(home, 'model = "m"\n', 0o644)
    assert found("model") == "m"
    assert capsys.readouterr().err == ""


def test_the_client_that_the_settings_name(home, monkeypatch, server):
    server.default(*text_chunks("Fine."))

    def key_sent(*flags):
        with contextlib.ExitStack() as stack:
            given = parse(["chat", "x", "--base-url", server.url, "--model", "m", *flags])
            assert open_client(given, stack).chat("x").content == "Fine."
        assert server.requests[-1].json["model"] == "m"
        return server.requests[-1].headers.get("authorization")

    assert "http://127.0.0.1:8080" in repr(client())
    assert client().model == "default"
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        client("--provider", "openai")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert key_sent() is None  # that key is for OpenAI
    assert key_sent("--provider", "openai") == f"Bearer {KEY}"
    configure(home, f'api_key = "{KEY}1"\n')
    assert key_sent() == f"Bearer {KEY}1"
    monkeypatch.setenv("AGENTSTREAM_API_KEY", KEY + "2")
    assert key_sent() == f"Bearer {KEY}2"
    assert key_sent("--provider", "openai") == f"Bearer {KEY}2"


def test_logs_and_tokens(home, monkeypatch):
    def found():
        return str(log_of(SimpleNamespace(log=None)))

    with pytest.raises(ConfigError, match="which log"):
        found()
    monkeypatch.setenv("AGENTSTREAM_LOG", "runs.db")
    with pytest.raises(ConfigError, match="no log runs.db"):
        found()
    (home / "runs.db").touch()
    assert found() == "runs.db"
    monkeypatch.setenv("AGENTSTREAM_LOG", "~/runs.db")
    assert found() == str(home / "runs.db")
    monkeypatch.delenv("AGENTSTREAM_LOG")
    path = configure(home, 'log = "my.db"\n')  # beside the file that says so
    (path.parent / "my.db").touch()
    assert found() == str(path.parent / "my.db")
    assert token(None) is None
    monkeypatch.setenv("AGENTSTREAM_TOKEN", "t" * 20)
    assert token(None) == "t" * 20
    (home / "token").write_text("  from-a-file\n")
    assert token(str(home / "token")) == "from-a-file"


@pytest.mark.parametrize(
    "words",
    [
        ["chat", "x"],
        ["run", "none.toml"],
        ["check", "none.toml"],
        ["runs"],
        ["follow"],
        ["stop", "x"],
        ["serve"],
    ],
)
def test_a_wrong_config_file_is_one_line_and_2(home, capsys, words):
    configure(home, f'api_key = "{KEY}"\nmodle = 1\n')
    (home / "none.toml").write_text("[agents.a]\n[[steps]]\nagent = 'a'\n")
    code = main(words)
    printed = capsys.readouterr()
    if words[0] == "check":  # it takes no settings
        assert code == 0
        return
    assert code == 2
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "did you mean 'model'?" in printed.err
    hunt(printed.err)


def test_readme_and_docs_show_the_table():
    for page, text in settings_doc.written().items():
        assert (settings_doc.ROOT / page).read_text("utf-8") == text, (
            f"{page}: python -m tests.kit.settings_doc"
        )


def test_the_config_file_of_the_docs_is_one(home):
    text = (settings_doc.ROOT / "docs" / "settings.rst").read_text("utf-8")
    (block,) = re.findall(r"code-block:: toml\n\n((?:    .*\n)+)", text)
    path = configure(home, textwrap.dedent(block))
    assert (found("deadline"), found("retries"), found("log_days")) == (600.0, 2, 30.0)
    assert found("log") == str(path.parent / "runs.db")
    assert (found("provider"), found("model")) == ("openai", "gpt-6-luna")
