"""Logs of the command line that are Redis servers: each command, its credentials, its errors."""

from __future__ import annotations

import json
import pathlib
import re
import socket
import sys
from typing import Iterator

import pytest

from agentstream.cli.log_place import LogPlace, check_log
from agentstream.errors import ConfigError
from agentstream.testing import Hang, text_chunks
from tests.kit.cli_resting import ASKS_AND_WAITS, clerk, paid, write
from tests.kit.cli_runs import FLOW
from tests.kit.redis_server import RedisServer, log_name
from tests.kit.support import KEY, hunt

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "redis.rst"


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisServer]:
    """A server that wants a password, which is the marked key."""
    with RedisServer("requirepass", KEY) as server:
        yield server


def with_tenant(server: RedisServer, log: str) -> str:
    """The URL of a log whose user may touch no other; made by the line of the docs."""
    import redis

    (line,) = re.findall(r"^    (ACL SETUSER shop .*)$", DOCS.read_text("utf-8"), re.M)
    words = line.replace("{shop}", f"{{{log}}}").replace(">SECRET", f">{KEY}").split()
    client = redis.Redis(port=server.port, password=KEY, protocol=2)
    client.execute_command(*words)
    for refused in ("FLUSHALL", "KEYS *", "SCAN 0", "CLIENT KILL TYPE normal", "SCRIPT FLUSH"):
        answer = client.execute_command("ACL", "DRYRUN", "shop", *refused.split())
        assert b"no permissions" in answer, refused
    client.close()
    return f"redis://shop@127.0.0.1:{server.port}/0?log={log}&lease=3"


def test_a_run_in_redis_is_begun_followed_answered_resumed_and_stopped(
    cli, here, server, guarded, monkeypatch
):
    clerk(server, "17")
    flow = write(cli, ASKS_AND_WAITS)
    url = with_tenant(guarded, log_name())
    (cli.folder / "pw").write_text(KEY + "\n")
    log = ("--log", url, "--log-password-file", "pw")
    run = cli("run", flow, "--input", "x", "--id", "r", *log, "--json", code=3)
    (data,) = run.events
    assert data["status"] == "suspended"
    then = run.err.splitlines()[-1]
    assert then == f"then `agentstream resume r --log '{url}' --log-password-file pw` goes on"
    follower = cli.start("follow", "r", *log)
    follower.expect("it waits for an answer")
    monkeypatch.setenv("AGENTSTREAM_LOG", url)  # from here on, no command names it
    monkeypatch.setenv("AGENTSTREAM_LOG_PASSWORD", KEY)
    assert here("approve", "r", "--by", "ann").err.endswith("`agentstream resume r` goes on\n")
    assert here("resume", "r", code=3).err.splitlines()[-1].startswith("then `agentstream resume")
    assert paid(cli) == ["17 900"]
    here("signal", "r", "goods", "7 boxes", "--quiet")
    assert here("resume", "r").out == "Shipped: 7 boxes\n"
    assert follower.finish() == 0
    assert follower.out == "Shipped: 7 boxes\n"
    assert here("stop", "r", code=1).line == "run r is not under way: completed"
    (state,) = here("runs", "--json").events
    assert (state["workflow_id"], state["status"]) == ("r", "completed")
    denied = here("runs", "--log", url.replace("log=", "log=other-"), code=1).line
    assert "does not let this user do that" in denied


def test_a_run_in_redis_is_stopped_from_another_process(cli, here, server, guarded):
    server.default(*text_chunks("text")[:2], Hang())
    url = f"redis://127.0.0.1:{guarded.port}/0?log={log_name()}"
    env = {"AGENTSTREAM_LOG": url, "AGENTSTREAM_LOG_PASSWORD": KEY}
    flow = cli.write("verse.toml", FLOW)
    run = cli.start("run", flow, "--input", "x", "--id", "aa", "--jsonl", env=env)
    run.expect("text")
    stop = cli.start("stop", "a", env=env)
    assert stop.finish() == 0
    assert "run aa was stopped" in stop.err
    assert run.finish() == 1
    assert run.events[-1]["type"] == "workflow_cancelled"


def test_k29_no_password_is_shown_and_what_is_wrong_is_one_line(
    cli, here, guarded, monkeypatch, capsys
):
    at = f"127.0.0.1:{guarded.port}/0"
    wrong = f"redis://shop:wrong-{KEY}@{at}"
    for words, code, told in (
        ((f"redis://{at}",), 1, "refused the user or the password"),
        (("redis://127.0.0.1:1/0",), 1, "redis://127.0.0.1:1/0 cannot be reached"),
        (("unix:///none.sock?log=a",), 1, "'a' at unix:///none.sock cannot be reached"),
        (("redis://h/0?zzz=1",), 2, "the log redis://h/0 has a setting that no connection takes"),
        (("redis://h/0?log=a{",), 2, "log must have no braces"),
        (("redis://h/0?durability=x",), 2, "durability must be one of"),
        (("redis://h/0?lease=0",), 2, "lease must be"),
        (("x.db", "--log-password-file", "pw"), 2, "--log-password-file is for a log at redis://"),
        ((f"redis://{at}", "--log-password-file", "pw"), 2, "the password file pw cannot be read"),
        ((f"postgres://u:{KEY}@h/x",), 2, "--log must be the path of a file, or redis://"),
    ):
        assert told in here("runs", "--log", *words, code=code).line
    for command in (("stop", "x"), ("approve", "x"), ("signal", "x", "y"), ("resume", "x", "f")):
        assert "refused" in here(*command, "--log", f"redis://{at}", code=1).line
    warned, refused = here("runs", "--log", wrong, code=1).err.splitlines()
    assert "others can read the password in --log" in warned
    assert refused.endswith("refused the user or the password")
    monkeypatch.setenv("AGENTSTREAM_LOG", wrong)
    flow = cli.write("verse.toml", FLOW)
    assert "refused" in here("run", flow, "--input", "x", "-vv", code=1).err
    monkeypatch.setenv("AGENTSTREAM_LOG", f"redis://{at}?log=nobodys")
    monkeypatch.setenv("AGENTSTREAM_LOG_PASSWORD", KEY)
    assert "there is no such log: the log 'nobodys' at redis://" in here("runs", code=2).line
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "redis", None)
    assert "pip install 'agentstream[redis]'" in here("follow", code=2).line


def test_a_config_file_that_others_can_read_is_told_of(cli, here, guarded):
    folder = cli.home / ".config" / "agentstream"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(
        f'log = "redis://127.0.0.1:{guarded.port}/0?log={log_name()}"\nlog_password = "{KEY}"\n'
    )
    for mode, lines in ((0o600, 1), (0o644, 2)):
        (folder / "config.toml").chmod(mode)
        said = here("runs", code=2).err.splitlines()
        assert "there is no such log" in said[-1]
        assert len(said) == lines
        assert lines == 1 or "others can read the password in" in said[0]


def test_an_instance_that_does_not_answer_ends_a_command_in_time(here):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"redis://127.0.0.1:{silent.getsockname()[1]}/0?timeout=0.2"
        assert "does not answer" in here("runs", "--log", where, code=1).line


def test_what_is_shown_of_a_place_and_given_to_other_commands():
    for where, password, flags, shown, words in (
        ("a b.db", None, (), "a b.db", ("--log", "a b.db")),
        (f"redis://:{KEY}@h/0", None, (), "redis://h/0", ("--log", "redis://h/0")),
        (f"redis://{KEY}@h", None, (), "redis://h", ("--log", "redis://h")),  # in the wrong place
        ("redis://shop@h", KEY, (), "redis://h", ("--log", "redis://shop@h")),
        (f"rediss://h?password={KEY}&log=a&ssl_password={KEY}&ssl_ca_certs=/c", None, None)
        + ("rediss://h?log=a&ssl_ca_certs=/c", ()),
        ("unix://shop@/r.sock?db=1", KEY, ("-x",), "unix:///r.sock?db=1")
        + (("--log", "unix://shop@/r.sock?db=1", "-x"),),
        ("REDIS://h?x=1", None, (), "redis://h", ("--log", "redis://h")),
    ):
        place = LogPlace(check_log("--log", where), password, flags)
        assert (str(place), place.words) == (shown, words)
        hunt(json.dumps([repr(place), *place.words]))


def test_what_is_no_place_of_a_log():
    for where in (
        *("", ":memory:", "file:x.db", "a\0b", "http://h", "sqlite:///x.db", "redis://[h"),
        *(
            "redis://h:0/0",
            "redis://h:x",
            "redis://h#shop",
            "redis://h?log=a&log=b",
            "redis://h?log=",
        ),
        *("redis://h?lease=soon", "redis://h?max_events=1.5", "redis://h?accept_eviction=perhaps"),
    ):
        with pytest.raises(ConfigError, match="^--log"):
            check_log("--log", where)
    for where in ("redis://u:12/34@h/0?lease=-1", "redis://u:12?34@h/0", "redis://h/0?a=b&34@h"):
        with pytest.raises(ConfigError, match="^--log: / and . in a password are written %2F"):
            check_log("--log", where)
