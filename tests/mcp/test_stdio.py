"""A server that is a process, and all that one does wrong; tests/kit/mcp_faults.py plays it."""

from __future__ import annotations

import json
import logging
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Iterator, List

import pytest

from agentstream import Cancelled, CancelToken, Limits, Timeouts, mcp
from agentstream.errors import (
    AgentStreamError,
    ConfigError,
    ConnectError,
    ConnectTimeout,
    DeadlineExceeded,
)
from tests.kit.mcp_support import KIT, fault_server
from tests.kit.programs import within


@pytest.fixture
def server() -> Iterator[mcp.Server]:
    with fault_server() as made:
        made.tools()  # its hints are known then
        yield made


def pid_of(server: mcp.Server) -> int:
    pid = server._connection.pid
    assert pid is not None
    return pid


def is_there(pid: int) -> bool:
    """True for a process that runs, and for a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def until(condition: Any, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        CancelToken().wait(0.01)
    return bool(condition())


# --- what it writes -------------------------------------------------------------------------


def test_m04_garbage_between_messages_disturbs_nobody(
    server: mcp.Server, caplog: pytest.LogCaptureFixture
) -> None:
    assert server.call("garbage").text == "after garbage"
    assert "is no message" in caplog.text
    assert server.call("echo", {"text": "on"}).text == "on"


def test_m05_an_answer_that_comes_twice_counts_once(server: mcp.Server) -> None:
    assert server.call("twice").text == "once"
    assert server.call("echo", {"text": "next"}).text == "next"


def test_m05_an_answer_with_a_wrong_id_is_nobodys(server: mcp.Server) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        server.call("wrong_id", timeout=0.2)
    assert caught.value.outcome == "unknown"
    assert server.call("echo", {"text": "next"}).text == "next"


def test_m05_answers_out_of_order_find_their_callers(server: mcp.Server) -> None:
    found: List[Any] = [None] * 8

    def call(number: int) -> None:
        found[number] = server.call("swap", {"text": str(number), "together": 8}).text

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == [str(number) for number in range(8)]


def test_m03_a_flood_on_standard_error_blocks_nothing_and_is_logged(
    server: mcp.Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "agentstream.mcp")
    assert server.call("flood", {"kilobytes": 2000}).text == "after the flood"
    caplog.set_level(logging.INFO, "agentstream.mcp")
    assert server.call("flood", {"kilobytes": 3}).text == "after the flood"
    assert until(lambda: "faults: log log" in caplog.text)


def test_m06_a_huge_result_and_one_beyond_the_limit() -> None:
    size = 3 * 2**20
    with fault_server(limits=Limits(line=4 * 2**20)) as server:
        assert len(server.call("huge", {"size": size}).text) == size
        with pytest.raises(ConnectError, match="Limits.line"):
            server.call("huge", {"size": 5 * 2**20})
        assert server.call("echo", {"text": "again"}).text == "again"


def test_requests_of_the_servers_own_are_answered(server: mcp.Server) -> None:
    answer = json.loads(server.call("ask", {"method": "ping"}).text)
    assert answer == {"jsonrpc": "2.0", "id": "mine", "result": {}}
    answer = json.loads(server.call("ask", {"method": "roots/list"}).text)
    assert answer["error"]["code"] == -32601


# --- one that hangs, or dies ----------------------------------------------------------------


def test_m01_m11_one_that_hangs_is_left_in_time_and_told(server: mcp.Server) -> None:
    with pytest.raises(DeadlineExceeded):
        server.call("hang", timeout=0.3)
    token = CancelToken()
    timer = threading.Timer(0.5, token.cancel, ["no more need"])
    timer.start()
    began = time.monotonic()
    with pytest.raises(Cancelled, match="no more need"):
        server.call("hang", cancel=token)
    assert time.monotonic() - began < 5.0
    timer.join()
    assert len(json.loads(server.call("words").text)) == 2  # notifications/cancelled


def test_m02_one_that_dies_tells_why_and_is_started_again(server: mcp.Server) -> None:
    first = pid_of(server)
    with pytest.raises(ConnectError, match="exit code 3; its last words: cannot go on") as caught:
        server.call("die")
    assert caught.value.outcome == "unknown"
    assert server.call("echo", {"text": "again"}).text == "again"
    assert pid_of(server) != first
    assert not is_there(first)


def test_m04_one_that_ends_in_half_a_line(server: mcp.Server) -> None:
    with pytest.raises(ConnectError, match="exit code 0"):
        server.call("half")
    assert server.call("echo", {"text": "again"}).text == "again"


def test_m07_a_call_that_broke_off_is_made_again_if_it_may_be(
    server: mcp.Server, tmp_path: pathlib.Path
) -> None:
    reading = server.call("die_reading", {"path": str(tmp_path / "reading")})
    assert reading.text == "the second time"
    with pytest.raises(ConnectError):  # nothing says that it may be made twice
        server.call("die_writing", {"path": str(tmp_path / "writing")})


@pytest.mark.parametrize("tells", [True, False])
def test_m02_one_dies_though_what_it_has_started_holds_its_output(
    tells: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not tells:  # as on systems without pidfd_open
        monkeypatch.setattr("agentstream.mcp.process._end_of", lambda pid: -1)
        monkeypatch.setattr("agentstream.mcp.process._LOOK_S", 0.05)
    with fault_server() as server:
        child = int(server.call("spawn").text)
        began = time.monotonic()
        with pytest.raises(ConnectError, match="exit code 3"):
            server.call("die")
        assert time.monotonic() - began < 5.0
        assert until(lambda: not is_there(child))
        assert server.call("echo", {"text": "again"}).text == "again"


def test_m02_all_that_wait_are_told_of_its_end(server: mcp.Server) -> None:
    errors: List[AgentStreamError] = []

    def call() -> None:
        try:
            server.call("hang")
        except AgentStreamError as error:
            errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert until(lambda: len(server._connection._dialogue._questions) == 5)
    os.kill(pid_of(server), signal.SIGKILL)
    for thread in threads:
        thread.join(5)
    assert len(errors) == 5
    assert all("SIGKILL" in str(error) for error in errors)
    assert len({id(error) for error in errors}) == 5


def test_one_that_closes_its_output_is_ended(server: mcp.Server) -> None:
    pid = pid_of(server)
    with pytest.raises(ConnectError):
        server.call("close_out")
    assert not is_there(pid)


def test_m08_it_is_started_again_only_so_often() -> None:
    with fault_server(restarts=2) as server:
        for _ in range(3):
            with pytest.raises(ConnectError, match="exit code 3"):
                server.call("die")
        with pytest.raises(ConnectError, match="3 times within a minute"):
            server.call("echo")


def test_what_cannot_be_started() -> None:
    with mcp.Server.stdio(["/no/such/program"]) as server:
        with pytest.raises(ConfigError, match="'/no/such/program' cannot be started: No such"):
            server.tools()
    with mcp.Server.stdio([sys.executable, "-c", "import sys; sys.exit('no license')"]) as server:
        with pytest.raises(ConnectError, match="exit code 1; its last words: no license"):
            server.tools()
    sleeps = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    with mcp.Server.stdio(sleeps, timeouts=Timeouts(connect=0.5)) as server:
        with pytest.raises(ConnectTimeout, match=r"0.5 s of its start"):
            server.tools()
    for command in ("npx server", [], 5, None):
        with pytest.raises(ConfigError, match="must be a list"):
            mcp.Server.stdio(command)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="env 'A' must be a str"):
        mcp.Server.stdio(["x"], env={"A": 1})  # type: ignore[dict-item]


# --- which version it speaks ----------------------------------------------------------------


@pytest.mark.parametrize("mode", ["legacy", "silent", "fragile"])
def test_an_older_server_is_opened_whatever_it_says_to_the_probe(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentstream.mcp.stdio._PROBE_S", 0.2)
    with fault_server(mode) as server:
        assert server.info().protocol == "2025-06-18"
        assert server.info().version == mode
        assert server.call("echo", {"text": "hello"}).text == "hello"
        assert "die" in {tool.name for tool in server.tools()}
        with pytest.raises(ConnectError):
            server.call("die")
        began = time.monotonic()
        assert server.call("echo", {"text": "again"}).text == "again"
        assert time.monotonic() - began < 5.0  # known now: it is not probed again


def test_a_newer_server_that_starts_slowly_is_heard_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr("agentstream.mcp.stdio._PROBE_S", 0.1)
    with fault_server("slow", str(tmp_path / "slow"), "0.5") as server:
        assert server.call("echo", {"text": "hello"}).text == "hello"
        assert server.info().protocol == "2026-07-28"


# --- its environment ------------------------------------------------------------------------


def test_m13_it_inherits_no_key_of_ours_and_leaks_none_of_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agentstream.mcp")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-ours")
    with fault_server(env={"ITS_KEY": "its-secret-key"}) as server:
        assert server.call("env", {"name": "OPENAI_API_KEY"}).text == "(not set)"
        assert server.call("env", {"name": "ITS_KEY"}).text == "its-secret-key"
        assert server.call("env", {"name": "PATH"}).text == os.environ["PATH"]
        with pytest.raises(ConnectError, match="cannot go on: …") as caught:
            server.call("die", {"text": "its-secret-key"})
        assert "its-secret" not in f"{caught.value}{caught.value!r}{server!r}{caplog.text}"


def test_it_runs_in_its_folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / "here.py").write_text((KIT / "mcp_faults.py").read_text("utf-8"))
    command = [sys.executable, "-S", "here.py", "modern"]
    with mcp.Server.stdio(command, cwd=tmp_path) as server:
        assert server.call("echo", {"text": "found"}).text == "found"


# --- its end --------------------------------------------------------------------------------


def test_closing_ends_it_and_what_it_has_started(
    server: mcp.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentstream.mcp.stdio._PATIENCE_S", 20.0)
    pid, child = pid_of(server), int(server.call("spawn").text)
    assert is_there(child)
    began = time.monotonic()
    server.close()
    assert time.monotonic() - began < 5.0  # it leaves when its input ends
    assert not is_there(pid)
    assert until(lambda: not is_there(child))
    server.close()
    with pytest.raises(ConnectError, match="was closed"):
        server.call("echo")


def test_m10_a_stubborn_one_is_ended_within_a_second_if_there_is_hurry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agentstream.mcp.stdio._PATIENCE_S", 20.0)
    server = fault_server("stubborn")
    server.call("echo")
    pid = pid_of(server)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        with server:
            raise KeyboardInterrupt
    assert time.monotonic() - began < 5.0
    assert not is_there(pid)


def test_calls_under_way_are_ended_by_closing(server: mcp.Server) -> None:
    errors: List[BaseException] = []

    def call() -> None:
        try:
            server.call("hang")
        except AgentStreamError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert until(lambda: bool(server._connection._dialogue._questions))
    server.close()
    thread.join(5)
    assert isinstance(errors[0], ConnectError)


def test_one_that_nobody_holds_any_longer_leaves() -> None:
    server = fault_server()
    server.call("echo")
    pid = pid_of(server)
    del server
    assert until(lambda: not is_there(pid))


PROGRAM = """
import os, sys
from tests.kit.mcp_support import fault_server
server = fault_server(sys.argv[1])
server.call("echo")
print(server._connection.pid, flush=True)
if sys.argv[2] == "leave":
    sys.exit()
server.call("hang")
"""


@pytest.mark.parametrize(("mode", "end"), [("modern", "leave"), ("stubborn", "leave"),
                                           ("modern", "interrupt"), ("stubborn", "interrupt")])  # fmt: skip
def test_m10_no_process_is_left_at_exit_or_by_ctrl_c(mode: str, end: str) -> None:
    within(2.0, lambda: left_by(mode, end))  # a second, and the interpreter's own end


def left_by(mode: str, end: str) -> float:
    """The seconds that a program takes to leave, and its server with it."""
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, mode, end],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=KIT.parent.parent,
    )
    with program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        began = time.monotonic()
        if end == "interrupt":
            program.send_signal(signal.SIGINT)
        program.wait(60)
    took = time.monotonic() - began
    assert until(lambda: not is_there(pid))
    return took


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12 and on: it has threads
def test_m09_a_forked_child_starts_its_own(server: mcp.Server) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        said = "failed"
        try:
            text = server.call("echo", {"text": "from the child"}).text
            said = f"{text} {pid_of(server)}"
            server.close()
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert said.startswith("from the child")
    assert int(said.split()[-1]) != pid_of(server)
    assert server.call("echo", {"text": "mine"}).text == "mine"
    pid = pid_of(server)
    server.close()
    assert not is_there(pid)
