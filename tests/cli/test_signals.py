"""Signals and the deadline: how a command that is stopped ends."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from agentstream import SqliteStore
from agentstream.testing import Gate, Hang, text_chunks
from tests.kit.cli_runs import AGENT, halted, queue
from tests.kit.cli_support import last_events
from tests.kit.support import wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


def test_ctrl_c_at_the_keyboard(cli, server):
    queue(server, halted("Hello there"))
    chat = cli.start("chat", "x", terminal="stdin stdout stderr", preexec_fn=_own_terminal)
    chat.expect("there")
    chat.type(b"\x03")
    assert chat.finish() == 130
    assert "agentstream: stopped by Ctrl-C in run " in chat.screen
    assert '; 11 characters had arrived: "Hello there"' in chat.screen
    assert server.wait_client_gone()


def _own_terminal():
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize(
    ("number", "code", "why"),
    [
        (signal.SIGINT, 130, "stopped by Ctrl-C"),
        (signal.SIGTERM, 143, "stopped by SIGTERM"),
        (signal.SIGHUP, 129, "stopped by SIGHUP"),
        (None, 124, "the deadline of 3 s has passed"),
    ],
)
def test_stopped_in_the_middle(cli, server, number, code, why):
    server.default(*text_chunks("One two ", "three")[:3], Hang())
    late = [] if number else ["--deadline", "3"]
    flow = cli.write("flow.toml", AGENT)
    commands = [
        cli.start("chat", "x", *late),
        cli.start("chat", "x", "--log", cli.log, *late),
        cli.start("run", flow, "--input", "x", "--log", cli.log, *late),
    ]
    for command in commands[:2]:
        command.expect("three")
    wait_until(lambda: streamed(cli.log, "three") == 2)
    if number:
        for command in commands:
            command.send(number)
    sent = time.monotonic()
    for command in commands:
        assert command.finish() == code, command.shown
    plain, logged, run = commands
    arrived = '; 13 characters had arrived: "One two three"'
    assert plain.line == why + arrived
    ends = last_events(cli.log)
    assert len(ends) == 2
    for command, step in ((logged, "chat"), (run, "poet")):
        workflow_id = command.line.split(" in run ")[1].split(",")[0]
        assert command.line == f"{why} in run {workflow_id}, step {step!r}{arrived}"
        assert ends[workflow_id]["type"] == "workflow_cancelled"
        assert ends[workflow_id]["data"]["reason"] == why
    assert plain.out == logged.out == "One two three\n"
    assert run.out == ""
    assert server.wait_client_gone(count=3)
    assert sorted(os.listdir(cli.folder)) == ["flow.toml", "home", "runs.db", "runs.db-mark"]
    assert os.listdir(cli.home) == []
    if number:
        assert max(command.ended for command in commands) - sent < 6.0


def streamed(log, text):
    """How many runs of a log have had this chunk."""
    with SqliteStore(log) as store:
        return [event.data.get("chunk") for event in store.read(limit=1000)].count(text)


def test_ctrl_c_twice(cli, server):
    server.default(*text_chunks("One")[:2], Hang())
    commands = [cli.start("chat", "x"), cli.start("chat", "x", "--log", cli.log)]
    for command in commands:
        command.expect("One")
    for command in commands:
        command.send(signal.SIGINT)
    for command in commands:
        if command.process.poll() is None:
            command.process.send_signal(signal.SIGINT)
    for command in commands:
        assert command.finish() == 130
        assert command.line.startswith("stopped by Ctrl-C")


def test_what_the_parent_ignores_stays_ignored(cli, server):
    gate = Gate()
    queue(server, halted("One", gate=gate))
    nohup = cli.script("trap '' HUP; exec $A chat x")
    nohup.expect("One")
    nohup.process.send_signal(signal.SIGHUP)
    gate.open()
    assert nohup.finish() == 0
    assert nohup.out == "One\n"
