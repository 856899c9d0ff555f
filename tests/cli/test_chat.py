"""agentstream chat, and how every command ends: real processes, signals, pipes and terminals."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from agentstream._version import __version__
from agentstream.cli.parser import parse
from agentstream.events.model import Event
from agentstream.testing import Gate, Hang, Pause, Reply, text_chunks
from tests.kit.cli_support import NAME, OPEN, PROJECT, last_events
from tests.kit.support import KEY, hunt

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")

AGENT = '[agents.poet]\nsystem = "poet"\n[[steps]]\nagent = "poet"\n'


def asked(server, number=-1):
    """The messages of a request."""
    return server.requests[number].json["messages"]


def halted(*texts, gate=None):
    """A reply that says these texts, and then waits; for ever, if there is no gate."""
    chunks = text_chunks(*texts)
    end = len(texts) + 1
    return Reply(*chunks[:end], gate or Hang(), *chunks[end:])


def queue(server, *replies):
    for reply in replies:
        server._add(reply, None, False)


# --- pipes ----------------------------------------------------------------------------------


def test_a_pipe_gets_the_answer_as_it_arrives_and_nothing_else(cli, server):
    gate = Gate()
    queue(server, halted("Hel", "lo\nthe", gate=gate))
    chat = cli.start(
        "chat",
        "A question",
        "--system",
        "Be kind.",
        "--model",
        "m1",
        stdin="From a pipe, grün.\n".encode(),
    )
    chat.expect("the")  # before the answer has ended
    assert chat.process.poll() is None
    gate.open()
    assert chat.finish() == 0
    assert (chat.out, chat.err) == ("Hello\nthe\n", "")
    assert asked(server) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "A question\n\nFrom a pipe, grün.\n"},
    ]
    assert server.requests[0].json["model"] == "m1"
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_what_is_piped_in(cli, here, server):
    server.default(*text_chunks("Fine."))
    piped = cli.start("chat", stdin=b"\xef\xbb\xbfOnly this")  # with a BOM, as Windows writes it
    other = cli.start("chat", "Only that", stdin=b" \n")
    closed = cli.script("$A chat 'No input' <&-")
    wrong = cli.start("chat", "x", stdin=b"gr\xfcn")
    for command, said in ((piped, "Only this"), (other, "Only that"), (closed, "No input")):
        assert command.finish() == 0, command.err
        assert (command.out, command.err) == ("Fine.\n", "")
        assert [{"role": "user", "content": said}] in [r.json["messages"] for r in server.requests]
    assert len(server.requests) == 3
    assert wrong.finish() == 2
    assert wrong.line == "what was piped in is not UTF-8: invalid start byte at byte 2"
    asked_nothing = here("chat", code=2)
    assert asked_nothing.line.startswith("what is the question? `agentstream chat PROMPT`")


def test_an_idle_pipe_is_told_of_and_the_deadline_ends_it(cli, server):
    flow = cli.write("flow.toml", AGENT)
    commands = [
        cli.start(*words, "--deadline", "2.8", stdin=OPEN)
        for words in (["chat"], ["chat", " "], ["run", flow])
    ]
    for command in commands:
        assert command.finish() == 124
        told, why = command.err.splitlines()
        assert told == "agentstream: waiting for standard input to end; `< /dev/null` for none"
        assert why == "agentstream: the deadline of 2.8 s has passed"
        assert command.ended - command.began < 2.8 + 1.5
    assert not server.requests


def test_y08_a_silent_pipe_is_not_waited_for_where_there_is_a_question(cli, server):
    server.default(*text_chunks("Fine."))
    own = cli.write("own.toml", 'input = "from the file"\n' + AGENT)
    commands = [
        cli.start(*words, stdin=OPEN)
        for words in (["chat", "Q"], ["chat", "Q", "-q"], ["run", own], ["run", own, "-q"])
    ]
    for command in commands:
        assert command.finish() == 0, command.err
        assert command.out == "Fine.\n"
        assert command.ended - command.began < 8
    told = "agentstream: nothing comes on standard input: going on without it\n"
    assert [command.err for command in commands] == [told, "", told, ""]
    said = sorted(request.json["messages"][-1]["content"] for request in server.requests)
    assert said == ["Q", "Q", "from the file", "from the file"]
    assert "is not waited for" in cli("chat", "--help").out


def test_y08_what_comes_late_but_comes_is_read(cli, server):
    server.default(*text_chunks("Fine."))
    slow = cli.script("(sleep 0.5; echo one; sleep 2.5; echo two) | $A chat Q")
    assert slow.finish() == 0, slow.err
    assert asked(server)[0]["content"] == "Q\n\none\ntwo\n"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8", "latin-1", "cp437", "koi8-r"])
def test_y07_json_is_whole_on_any_stdout(cli, server, encoding):
    said = "grün \N{ROBOT FACE} ‘Käse’ \x85 \N{SNOWMAN}"
    server.default(*text_chunks(said))
    env = {"PYTHONIOENCODING": encoding}
    chat = cli.start("chat", "x", "--json", env=env)
    logged = cli.start("chat", "x", "--json", "--log", cli.log, env=env)
    lines = cli.start("chat", "x", "--jsonl", env=env)
    flow = cli.write("flow.toml", f'name = "größe {said[-1]}"\n' + AGENT)
    run = cli.start("run", flow, "--input", "x", "--json", "--log", cli.log, "--id", "r", env=env)
    for command in (chat, logged, lines, run):
        assert command.finish() == 0, command.err
    assert chat.events[0]["content"] == logged.events[0]["content"] == said
    assert "".join(e["data"]["chunk"] for e in lines.events if "chunk" in e["data"]) == said
    assert run.events[0]["output"] == said
    listed = cli("runs", "--json", "--log", cli.log, env=env)
    assert f"größe {said[-1]}" in [state["name"] for state in listed.events]
    followed = cli("follow", "r", "--json", "--log", cli.log, env=env)
    assert followed.events[0]["data"]["output"] == said


def test_nobody_reads_on(cli, server):
    flood = Reply(*text_chunks(*["word\n"] * 3000), *[Pause(0.002)] * 2)
    queue(server, flood, flood)
    plain = cli.script("$A chat x | head -1", env={"PYTHONUNBUFFERED": ""})
    logged = cli.script("$A chat x --log $LOG | head -1")
    for command in (plain, logged):
        assert command.finish() == 0, command.err
        assert (command.out, command.err) == ("word\n", "")


def test_output_that_cannot_be_written(cli, server):
    server.default(*text_chunks("a", "b", "c"))
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        commands = [
            cli.start("chat", "x", *more, stdout=full)
            for more in ([], ["--jsonl"], ["--log", cli.log])
        ]
        for command in commands:
            assert command.finish() == 1
            assert command.line == "standard output: No space left on device"
    finally:
        os.close(full)
    closed = [cli.script("$A chat x >&-"), cli.script("$A chat x --log $LOG >&-")]
    for command in closed:
        assert command.finish() == 1
        assert command.line == "standard output is closed"
    blind = cli.script("$A chat x 2>&-")
    assert blind.finish() == 0
    assert blind.shown == "abc\n"


@pytest.mark.parametrize(
    "env",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
    ],
)
def test_any_locale(cli, server, env):
    server.default(*text_chunks("h", "é", "\N{ROBOT FACE}", "!"))
    chat = cli.start("chat", "grün", env=env, stdin="Käse".encode())
    assert chat.finish() == 0, chat.err
    assert chat.out in ("hé\N{ROBOT FACE}!\n", "h??!\n")
    assert chat.err == ""
    assert asked(server)[0]["content"] == "grün\n\nKäse"


def test_json_and_jsonl(cli, here, server):
    server.default(*text_chunks("one ", "two"))
    whole = here("chat", "x", "--json")
    logged = here("chat", "x", "--json", "--log", cli.log)
    assert list(logged.events[0]) == list(whole.events[0])  # the same with a log
    assert {**logged.events[0], "duration_s": 0, "first_token_s": 0, "tokens_per_second": 0} == {
        **whole.events[0],
        "duration_s": 0,
        "first_token_s": 0,
        "tokens_per_second": 0,
    }
    lines = here("chat", "x", "--jsonl", "--system", "s")
    (answer,) = whole.events
    assert answer["content"] == "one two"
    assert answer["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 2
    assert answer["tool_calls"] == []
    assert whole.err == ""
    assert lines.err == ""
    events = [Event.from_dict(data) for data in lines.events]
    kinds = [str(event.type) for event in events]
    assert [event.offset for event in events] == list(range(1, len(events) + 1))
    assert kinds[0] == "workflow_started"
    assert kinds[-1] == "workflow_completed"
    assert kinds.count("agent_llm_stream_chunk") == 2


# --- terminals ------------------------------------------------------------------------------


def test_on_a_terminal_text_streams_above_a_status_line(cli, server):
    gate = Gate()
    queue(server, halted("Hello ", "there", gate=gate))
    chat = cli.start("chat", "x", terminal="stdin stdout stderr")
    chat.expect("Hello ")
    chat.expect("there")
    chat.expect("token")  # of the status line
    assert chat.process.poll() is None
    gate.open()
    assert chat.finish() == 0
    assert "\x1b[" in chat.screen
    assert chat.screen.count("Hello") == 1
    assert "chat >" not in chat.screen  # one agent needs no heading


def test_verbose_tells_what_happens_and_a_cut_answer_is_told_of(cli, here, server):
    server.default(*text_chunks("Hello ", "there", finish_reason="length"))
    told = here("chat", "x", "-v", "--max-tokens", "2", "--temperature", "0.5", "--effort", "low")
    assert told.out == "Hello there\n"
    assert [line[9:] for line in told.err.splitlines()[:2]] == [
        "workflow 'chat' begins",
        "agent 'chat' (0) begins",
    ]
    assert told.err.endswith("agentstream: the answer of 'chat' was cut by a limit of tokens\n")
    sent = server.requests[0].json
    assert (sent["max_tokens"], sent["temperature"]) == (2, 0.5)
    assert sent["reasoning_effort"] == "low"
    assert here("chat", "x", "--max-tokens", "2").err == ""  # nobody watches
    assert server.requests[1].json["max_tokens"] == 2
    watched = cli.start("chat", "x", terminal="stdin stdout stderr")
    assert watched.finish() == 0
    assert "was cut by a limit of tokens" in watched.screen


def test_no_color_quiet_and_a_terminal_for_one_stream_only(cli, server):
    server.default(*text_chunks("Hello ", "there"))
    plain = cli.start("chat", "x", terminal="stdin stdout stderr", env={"NO_COLOR": "1"})
    quiet = cli.start("chat", "x", "-q", terminal="stdin stdout stderr")
    piped = cli.start("chat", "x", terminal="stdin stderr")
    for command in (plain, quiet, piped):
        assert command.finish() == 0
    assert "\x1b[2m" not in plain.screen
    assert "Hello" in plain.screen
    assert "there" in plain.screen
    assert quiet.screen == "Hello there\r\n"
    assert piped.out == "Hello there\n"


def test_what_a_model_says_steers_no_terminal(cli, server):
    said = "a\x1b]0;title\x07b\x9b2Jc\rd"
    queue(server, Reply.text(said), Reply.text(said))
    queue(server, Reply(*text_chunks(said, finish_reason=None, usage=False, done=False)))
    quiet = cli("chat", "x", "-q", terminal="stdin stdout stderr")
    assert quiet.screen == "a]0;titleb2Jcd\r\n"
    assert cli("chat", "x").out == said + "\n"  # a file gets what was said
    broken = cli("chat", "x", "--retries", "0", code=1)
    assert broken.line.endswith('"a]0;titleb2Jc d"')


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


# --- how commands end -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code", "why"),
    [
        (signal.SIGINT, 130, "stopped by Ctrl-C"),
        (signal.SIGTERM, 143, "stopped by SIGTERM"),
        (signal.SIGHUP, 129, "stopped by SIGHUP"),
        (None, 124, "the deadline of 1.5 s has passed"),
    ],
)
def test_stopped_in_the_middle(cli, server, number, code, why):
    server.default(*text_chunks("One two ", "three")[:3], Hang())
    late = [] if number else ["--deadline", "1.5"]
    flow = cli.write("flow.toml", AGENT)
    commands = [
        cli.start("chat", "x", *late),
        cli.start("chat", "x", "--log", cli.log, *late),
        cli.start("run", flow, "--input", "x", "--log", cli.log, *late),
    ]
    for command in commands[:2]:
        command.expect("three")
    assert server.wait_requests(3)
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
        assert max(command.ended for command in commands) - sent < 3.0


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


def test_failures_are_one_line(cli, here, server):
    server.reply_json(
        {"error": {"message": "no such model"}}, status=404, path="/a/v1/chat/completions"
    )
    queue(server, Reply(*text_chunks("Hello wor", finish_reason=None, usage=False, done=False)))
    refused = here("chat", "x", "--base-url", server.url + "/a", "--json", code=1)
    cut = cli.start("chat", "x", "--retries", "0")
    nobody = cli.start("chat", "x", "--retries", "0", env={"AGENTSTREAM_BASE_URL": ""})
    for command in (cut, nobody):
        assert command.finish() == 1, command.shown
    assert "no such model" in refused.line
    assert refused.out == ""
    assert cut.line.startswith("StreamTruncated: ")
    assert cut.line.endswith('; 9 characters had arrived: "Hello wor"')
    assert cut.out == "Hello wor\n"
    assert "start llama-server there" in nobody.line


def test_retries(cli, here, server):
    flow = cli.write("flow.toml", AGENT)
    busy = Reply.json({"error": {"message": "busy"}}, status=503, headers={"Retry-After": "0"})
    run = ["run", flow, "--input", "x"]
    for words, retries, code in ((["chat", "x"], 1, 0), (run, 0, 1), (run, 1, 0)):
        before = len(server.requests)
        queue(server, busy, *[Reply.text("Fine.")] * retries)
        command = here(*words, "--retries", str(retries), code=code)
        assert len(server.requests) - before == retries + 1
        assert command.out == "Fine.\n" * retries


# --- what is asked wrongly, what it says of itself ------------------------------------------


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


# --- the lock -------------------------------------------------------------------------------


def test_a_lock_keeps_a_second_start_out(cli, here, server):
    queue(server, halted("One"), Reply.text("Two"))
    job = f"test-{os.getpid()}-{time.monotonic_ns()}"  # one place for all of this user's
    holder = cli.start("chat", "x", "--lock", job)
    holder.expect("One")
    cron = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(PROJECT),
        "SHELL": "/bin/sh",
        "HOME": "/",
        "TMPDIR": str(cli.folder),
        "XDG_STATE_HOME": str(cli.folder),
        "PYTHONWARNINGS": "error",
    }
    words = ["run", "no.toml", "--lock", job]
    cli.write("no.toml", AGENT)
    second = subprocess.run(
        ["/bin/sh", "-c", f"exec {NAME} {' '.join(words)} --input x"],
        env=cron,
        timeout=20,
        capture_output=True,
        text=True,
        cwd=cli.folder,
    )
    assert second.returncode == 75
    assert second.stdout == ""
    assert second.stderr.startswith(
        f"agentstream: --lock {job} is held by process {holder.process.pid} since 20"
    )
    assert second.stderr.count("\n") == 1
    path = pathlib.Path(second.stderr.rstrip().rpartition(": ")[2])  # named, for whoever looks
    assert (path.name, path.parent.stat().st_mode & 0o777) == (f"{job}.lock", 0o700)
    assert here("chat", "x", "--lock", f"{job}-other").out == "Two\n"
    assert here("chat", "x", "--lock", job, "-q", code=75).err == ""  # for cron, which mails
    holder.process.send_signal(signal.SIGKILL)
    assert holder.finish() == -signal.SIGKILL
    queue(server, Reply.text("Three"))
    assert here("chat", "x", "--lock", job).out == "Three\n"
    assert here("chat", "x", "--lock", "../job", code=2).line.startswith("--lock '../job': ")
    assert os.listdir(cli.home) == []
    for name in (job, f"{job}-other"):
        (path.parent / f"{name}.lock").unlink()


@pytest.mark.parametrize("env", [{"HOME": ""}, {"TMPDIR": "/dev/shm"}, {"HOME": "/nowhere"}])
def test_y09_a_lock_is_the_same_in_any_environment(cli, server, env):
    server.default(*text_chunks("One")[:2], Hang())
    job = f"test-{os.getpid()}-{time.monotonic_ns()}"
    holder = cli.start("chat", "x", "--lock", job)
    holder.expect("One")
    second = cli("chat", "x", "--lock", job, code=75, env=env)
    path = pathlib.Path(second.line.rpartition(": ")[2])
    assert path.name == f"{job}.lock"
    holder.send(signal.SIGTERM)
    assert holder.finish() == 143
    path.unlink()
