"""Group R of docs/faults.rst: signals, exit, fork, no threads, no descriptors, closed pipes, odd
encodings, a clock that is set.  Real processes, real signals.

R03 (kill -9: the next start finds the run interrupted) needs a log on disk and is tested
with it.  R07 is shown with the bus; here the fork is of a live runtime.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any, List

import pytest

from agentstream import Agent, EventType, Runtime
from agentstream.errors import StallTimeout, WorkflowFailed
from agentstream.testing import Gate, Hang, Reply, ScriptedServer, text_chunks
from tests.kit.programs import INTERRUPTED, Program, run, within
from tests.kit.support import Task, check_events, client_of, events_of, wait_until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and fork as POSIX has them")

#: Ctrl-C to gone.
GONE = 0.5
#: A second one to gone.
OUT = 0.2


def half_an_answer(server: ScriptedServer) -> Gate:
    """Every answer is "one two", and then the server goes on no further than this gate."""
    gate = Gate()
    server.default(*text_chunks("one ", "two")[:3], gate)
    return gate


def teardown() -> float:
    """What Ctrl-C to gone takes a program that has imported us and does nothing, just now."""
    with Program("say('ready')\nthreading.Event().wait()") as program:
        program.expect("ready")
        sent = program.send(signal.SIGINT)
        program.finish()
        return program.ended - sent


def noted(path: pathlib.Path) -> List[str]:
    return path.read_text().splitlines()


# --- R01: Ctrl-C ----------------------------------------------------------------------------

IN_RECV = """
    for text in LlamaClient(arguments[0]).chat_stream("x"):
        say(text.strip())
"""
IN_QUEUE_WAIT = """
    agent = Agent("a", client=LlamaClient(arguments[0]))
    with Runtime() as runtime:
        runtime.event_stream.subscribe(note(arguments[1]))
        handle = runtime.submit(agent, "x", workflow_id="w")
        for event in runtime.event_stream.subscribe(workflow_id="w", after=0):
            if "chunk" in event.data:
                say(event.data["chunk"].strip())
"""
IN_RESULT_WAIT = """
    agent = Agent("a", client=LlamaClient(arguments[0]))
    with Runtime() as runtime:
        runtime.event_stream.subscribe(note(arguments[1]))
        runtime.event_stream.subscribe(lambda e: say(e.data.get("chunk", "-").strip()))
        runtime.run(agent, "x", workflow_id="w")
"""
IN_LEAVING = """
    agent = Agent("a", client=LlamaClient(arguments[0]))
    with Runtime() as runtime:
        runtime.event_stream.subscribe(note(arguments[1]))
        runtime.event_stream.subscribe(lambda e: say(e.data.get("chunk", "-").strip()))
        runtime.submit(agent, "x", workflow_id="w")
"""
WITHOUT_WITH = """
    agent = Agent("a", client=LlamaClient(arguments[0]))
    runtime = Runtime()
    runtime.event_stream.subscribe(note(arguments[1]))
    for event in runtime.stream(agent, "x", workflow_id="w"):
        if "chunk" in event.data:
            say(event.data["chunk"].strip())
"""


@pytest.mark.parametrize(
    "source",
    [IN_RECV, IN_QUEUE_WAIT, IN_RESULT_WAIT, IN_LEAVING, WITHOUT_WITH],
    ids=["recv", "queue-wait", "result-wait", "leaving", "no-with"],
)
def test_r01_ctrl_c(source: str, server: ScriptedServer, tmp_path: pathlib.Path) -> None:
    half_an_answer(server)
    attempts: List[pathlib.Path] = []

    def attempt() -> float:
        log = tmp_path / str(len(attempts))
        attempts.append(log)
        with Program(source, server.url, str(log)) as program:
            program.expect("two")
            sent = program.send(signal.SIGINT)
            assert program.finish() == INTERRUPTED
        assert program.errors.count("Traceback") == 1
        assert program.errors.rstrip().endswith("KeyboardInterrupt")
        assert server.wait_client_gone(count=len(attempts))
        if source is not IN_RECV:
            lines = noted(log)
            assert lines[-1] == "w workflow_cancelled"
            assert sum(line.split()[1].startswith("workflow_c") for line in lines) == 1
        return program.ended - sent

    within(GONE + teardown(), attempt)


SECOND_IN_RUN = """
    try:
        with Runtime() as runtime:
            runtime.event_stream.subscribe(note(arguments[0]))
            runtime.run(Agent("a", client=Stubborn()), "x", workflow_id="w")
    except KeyboardInterrupt:
        sys.exit(130)
"""
SECOND_IN_LEAVING = """
    try:
        with Runtime() as runtime:
            runtime.event_stream.subscribe(note(arguments[0]))
            runtime.submit(Agent("a", client=Stubborn()), "x", workflow_id="w")
    except KeyboardInterrupt:
        sys.exit(130)
"""
SECOND_IN_EXIT = """
    runtime = Runtime()
    runtime.event_stream.subscribe(note(arguments[0]))
    try:
        runtime.submit(Agent("a", client=Stubborn()), "x", workflow_id="w").result()
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize(
    "source",
    [SECOND_IN_RUN, SECOND_IN_LEAVING, SECOND_IN_EXIT],
    ids=["run", "leaving", "exit"],
)
def test_r01_a_second_ctrl_c(source: str, tmp_path: pathlib.Path) -> None:
    """Out now, one line, and the run has its terminal event all the same."""
    log = tmp_path / "log"

    def attempt() -> float:
        log.unlink(missing_ok=True)
        with Program(source, str(log)) as program:
            program.expect("begun")
            program.send(signal.SIGINT)
            program.expect("asked to stop")
            sent = program.send(signal.SIGINT)
            assert program.finish() == 130
        assert len(program.errors.splitlines()) == 1, program.errors
        assert "interrupted again" in program.errors
        assert noted(log)[-1] == "w workflow_cancelled"
        return program.ended - sent

    within(OUT + teardown(), attempt)


def test_r01_without_a_second_one_the_grace_is_a_bound(tmp_path: pathlib.Path) -> None:
    """One grace, not one in `run` and another one in leaving."""
    log = tmp_path / "log"

    def attempt() -> float:
        log.unlink(missing_ok=True)
        source = SECOND_IN_RUN.replace("Runtime()", "Runtime(grace=0.5)")
        with Program(source, str(log)) as program:
            program.expect("begun")
            sent = program.send(signal.SIGINT)
            assert program.finish() == 130
        assert program.ended - sent >= 0.5
        # A line for the run; another where a busy machine's subscriber is late, too.
        lines = program.errors.splitlines()
        assert lines[0] == "a run that did not stop in time is left behind"
        assert all(line.endswith("left behind") for line in lines)
        assert noted(log)[-1] == "w workflow_cancelled"
        return program.ended - sent

    within(0.5 + 0.4 + teardown(), attempt)


# --- R02: SIGTERM ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [IN_QUEUE_WAIT, IN_RESULT_WAIT, IN_LEAVING, WITHOUT_WITH],
    ids=["queue-wait", "result-wait", "leaving", "no-with"],
)
def test_r02_sigterm_with_our_handler(
    source: str, server: ScriptedServer, tmp_path: pathlib.Path
) -> None:
    half_an_answer(server)
    log = tmp_path / "log"

    def attempt() -> float:
        log.unlink(missing_ok=True)
        with Program("\n    exit_on_sigterm()" + source, server.url, str(log)) as program:
            program.expect("two")
            sent = program.send(signal.SIGTERM)
            assert program.finish() == 143
        assert program.errors == ""
        assert noted(log)[-1] == "w workflow_cancelled"
        return program.ended - sent

    within(GONE + teardown(), attempt)


def test_r02_sigterm_runs_finally_and_a_second_one_does_not_wait() -> None:
    source = """
        exit_on_sigterm()
        try:
            with Runtime() as runtime:
                runtime.run(Agent("a", client=Stubborn()), "x")
        finally:
            say("finally")
    """

    def attempt() -> float:
        with Program(source) as program:
            program.expect("begun")
            program.send(signal.SIGTERM)
            program.expect("asked to stop")
            sent = program.send(signal.SIGTERM)
            assert program.finish() == 143
        assert program.lines[-1] == "finally"
        assert len(program.errors.splitlines()) == 1
        return program.ended - sent

    within(OUT + teardown(), attempt)


# --- R04, R05: exit -------------------------------------------------------------------------


def test_r04_main_ends_with_runs_active(server: ScriptedServer, tmp_path: pathlib.Path) -> None:
    """Those under way and those in the queue are stopped, and say so."""
    half_an_answer(server)
    source = """
        runtime = Runtime(max_workers=2)
        agent = Agent("a", client=LlamaClient(arguments[0]))
        chunks = runtime.event_stream.subscribe(types=[EventType.AGENT_LLM_STREAM_CHUNK])
        runtime.event_stream.subscribe(note(arguments[1]))
        handles = [runtime.submit(agent, "x", workflow_id=f"w{n}") for n in range(6)]
        for _ in range(4):
            next(chunks)
        say("main ends")
    """

    def attempt() -> float:
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        with Program(source, server.url, str(log)) as program:
            program.expect("main ends")
            began = time.monotonic()
            assert program.finish() == 0
        assert program.errors == ""
        lines = noted(log)
        for number in range(6):
            own = [line.split()[1] for line in lines if line.startswith(f"w{number} ")]
            assert own.count("workflow_cancelled") == 1
            assert own[-1] == "workflow_cancelled"
        return program.ended - began

    within(GONE + teardown(), attempt)


def test_r04_a_run_that_does_not_stop_cannot_hold_the_exit(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "log"
    source = """
        runtime = Runtime(grace=0.3, max_workers=1)
        runtime.event_stream.subscribe(note(arguments[0]))
        chunks = runtime.event_stream.subscribe(types=[EventType.AGENT_LLM_STREAM_CHUNK])
        runtime.submit(Agent("a", client=Stubborn()), "x", workflow_id="w")
        runtime.submit(Agent("a", client=Stubborn()), "x", workflow_id="queued")
        next(chunks)
        say("main ends")
    """
    with Program(source, str(log)) as program:
        program.expect("main ends")
        began = time.monotonic()
        assert program.finish() == 0
        assert program.ended - began < 3
    assert "left behind" in program.errors
    assert "Traceback" not in program.errors
    assert sorted(noted(log)[-2:]) == ["queued workflow_cancelled", "w workflow_cancelled"]


def test_r05_use_after_exit_began(server: ScriptedServer) -> None:
    """An atexit function older than us runs after us: what it asks for is refused, not hung."""
    server.default(*text_chunks("answer"))
    source = """
        def late():
            for made in (runtime, Runtime(), Runtime()):
                for call in (made.run, made.submit, lambda *a: next(made.stream(*a))):
                    try:
                        call(agent, "x")
                    except RuntimeError as error:
                        say("refused:", error)
                    except AgentStreamError as error:
                        say("refused:", type(error).__name__)
            runtime.shutdown()
            for prompt in ("x", "y"):
                try:
                    say(client.chat(prompt))
                except AgentStreamError as error:
                    say("answer")

        atexit.register(late)
        client = LlamaClient(arguments[0])
        agent = Agent("a", client=client)
        runtime = Runtime()
        runtime.run(agent, "x")
        say("main ends")
    """
    with Program(source, server.url) as program:
        program.expect("main ends")
        began = time.monotonic()
        assert program.finish() == 0
        assert program.ended - began < 3
    assert program.errors == ""
    after = program.lines[1:]
    assert len(after) == 11
    assert all(line.startswith("refused: ") for line in after[:9])
    assert "refused: the runtime has been shut down: it takes no new runs" in after
    assert after[9:] == ["answer", "answer"]


# --- R06, R07: fork -------------------------------------------------------------------------


def echo(server: ScriptedServer) -> None:
    """Every answer is its question, in pieces."""

    def answer(request: Any) -> Reply:
        words = json.loads(request.body)["messages"][-1]["content"]
        return Reply.text(*(words[i : i + 4] for i in range(0, len(words), 4)))

    server.route("/v1/chat/completions", answer)


CROSSING = """
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads, from Python 3.12 on
    client = LlamaClient(arguments[0], verify=arguments[1] or True, retries=Retries(0),
                         timeouts=Timeouts(first_token=5, stall=5))

    def ask(who, count):
        for number in range(count):
            words = f"{who} asks question {number}"
            answer = client.chat(words)
            if answer.content != words:
                say("crossed:", repr(words), repr(answer.content))
                return 1
        return 0

    streams = [client.chat_stream(f"warm {n}") for n in range(4)]
    for stream in streams:
        next(stream)
    for stream in streams:
        list(stream)  # the pool has four connections
    warm = threading.Thread(target=ask, args=("thread", 40))
    warm.start()  # and one of them is in use when the forks come
    children = []
    start, starter = os.pipe()
    for n in range(8):
        child = os.fork()
        if not child:
            os.close(starter)
            os.read(start, 1)  # all at once: ends when the parent closes its end
            os._exit(ask(f"child {n}", 15))
        children.append(child)
    os.close(starter)
    crossed = ask("parent", 40)
    warm.join()
    for child in children:
        crossed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    say("crossed", crossed)
"""


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_r06_fork_with_a_live_client(
    tls: bool, server: ScriptedServer, tls_server: ScriptedServer
) -> None:
    """204 answers each over a client that was warm when it was forked, none of them another's."""
    used = tls_server if tls else server
    echo(used)
    program = run(CROSSING, used.url, used.ca_file)
    assert program.status == 0, program.errors  # type: ignore[attr-defined]
    assert program.errors == ""
    assert program.lines == ["crossed 0"]
    assert len(used.requests) == 4 + 40 + 8 * 15 + 40


@pytest.mark.parametrize("leave", ["os._exit(0)", "sys.exit(0)"])
def test_r06_a_stream_under_way_is_the_parents(leave: str, server: ScriptedServer) -> None:
    """The child has its copy of the socket; whatever it does to it, the parent reads on."""
    gate = half_an_answer(server)
    source = f"""
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        stream = LlamaClient(arguments[0], timeouts=Timeouts(stall=20)).chat_stream("x")
        assert [next(stream), next(stream)] == ["one ", "two"]
        child = os.fork()
        if not child:
            stream.close()
            del stream
            {leave}
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        say("forked")
        try:
            list(stream)
        except StreamTruncated as error:
            say("whole:", error.partial.content)
    """
    with Program(source, server.url) as program:
        program.expect("forked")
        assert not server.wait_client_gone(timeout=0.05)
        gate.open()
        assert program.finish() == 0
    assert program.errors == ""
    assert program.lines[-1] == "whole: one two"


@pytest.mark.parametrize("leave", ["os._exit(0)", "sys.exit(0)"])
def test_r07_fork_with_a_live_runtime(leave: str, server: ScriptedServer) -> None:
    """The child has a pool of its own, and no part in the parent's runs."""
    gate = Gate()
    server.reply(*text_chunks("one ", "two")[:3], gate, *text_chunks("three")[1:])
    server.default(*text_chunks("child's"))
    source = f"""
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        agent = Agent("a", client=LlamaClient(arguments[0]))
        runtime = Runtime(max_workers=1)
        heard = []
        runtime.event_stream.subscribe(lambda event: heard.append(event))
        chunks = runtime.event_stream.subscribe(types=[EventType.AGENT_LLM_STREAM_CHUNK])
        handle = runtime.submit(agent, "x", workflow_id="parent's")
        queued = runtime.submit(agent, "x", workflow_id="queued")
        next(chunks), next(chunks)
        child = os.fork()
        if not child:
            heard.clear()
            for lost in (handle, queued):
                try:
                    lost.result(10)
                except RuntimeError as error:
                    say(error)
                say(lost.cancel(), lost.done(), runtime.stop_generation(lost.workflow_id))
            say(runtime.run(agent, "x", workflow_id="child's").output)
            runtime.shutdown()
            say(heard[-1].workflow_id, heard[-1].type.value)
            {leave}
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        say("forked")
        say(handle.result(10).output, queued.result(10).output)
        runtime.shutdown()
        say(heard[-1].workflow_id, heard[-1].type.value)
    """
    with Program(source, server.url) as program:
        program.expect("forked")
        assert program.lines == [
            "run parent's goes on in the parent process, not here",
            "False True False",
            "run queued goes on in the parent process, not here",
            "False True False",
            "child's",
            "child's workflow_completed",
            "forked",
        ]
        gate.open()
        assert program.finish() == 0
    assert program.errors == ""
    assert program.lines[-2:] == ["one twothree child's", "queued workflow_completed"]


# --- R08: no threads, no descriptors --------------------------------------------------------


def test_r08_no_descriptors_left(server: ScriptedServer) -> None:
    """The run that needs one fails with ConnectError; the one that has one goes on."""
    server.reply(first := text_chunks("one ", "two")[1], gate := Gate(), *text_chunks("three")[1:])
    server.default(*text_chunks("again"))
    assert first
    source = """
        import resource
        client = LlamaClient(arguments[0], retries=Retries(0))
        agent = Agent("a", client=client)
        with Runtime() as runtime:
            chunks = runtime.event_stream.subscribe(types=[EventType.AGENT_LLM_STREAM_CHUNK])
            first = runtime.submit(agent, "x")
            next(chunks)
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            held = os.open(os.devnull, os.O_RDONLY)
            resource.setrlimit(resource.RLIMIT_NOFILE, (held + 1, hard))
            for _ in range(3):
                try:
                    runtime.run(agent, "x")
                except WorkflowFailed as error:
                    say(type(error.__cause__).__name__, error.retryable)
            os.close(held)  # one for the socket, but none for our hold on it
            try:
                runtime.run(agent, "x")
            except WorkflowFailed as error:
                say(type(error.__cause__).__name__, error.retryable)
            say("failed")
            say(first.result(10).output)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            say(runtime.run(agent, "x").output)
    """
    with Program(source, server.url) as program:
        program.expect("failed")
        gate.open()
        assert program.finish() == 0, program.errors
    assert program.errors == ""
    assert program.lines == ["ConnectError True"] * 4 + ["failed", "one three", "again"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_r08_no_threads_left_for_a_call(host: str, server: ScriptedServer) -> None:
    """Of whatever kind the missing thread is: the clock, or the one a name is looked up in."""
    server.default(*text_chunks("answer"))
    source = """
        start = threading.Thread.start
        client = LlamaClient(arguments[0], retries=Retries(0))

        def no_thread(thread):
            raise RuntimeError("can't start new thread")

        def only_the_clock(thread):
            no_thread(thread) if "clock" not in thread.name else start(thread)

        for kind in (no_thread, only_the_clock):
            threading.Thread.start = kind
            try:
                say(client.chat("x"))
            except ConnectError:
                say("ConnectError")
        threading.Thread.start = start
        say(client.chat("x"))
    """
    program = run(source, f"http://{host}:{server.port}")
    assert program.errors == ""
    # An address needs no thread to be looked up: the clock's was all there was to miss.
    second = "ConnectError" if host == "localhost" else "answer"
    assert program.lines == ["ConnectError", second, "answer"]


# --- R09, R10: what is printed on -----------------------------------------------------------

PRINTING = """
    agent = Agent("greeter 🤖", client=LlamaClient(arguments[0]))
    console = Console()
    with Runtime() as runtime:
        runtime.event_stream.subscribe(console)
        if "stop" in arguments:
            console.on_closed = lambda: runtime.stop_generation("w")
        handle = runtime.submit(agent, "x", workflow_id="w")
        try:
            run = handle.result()
        except Cancelled as error:
            run = error.run
    with open(arguments[1], "w", encoding="utf-8") as file:
        file.write(run.status + ": " + run.output)
"""


@pytest.mark.parametrize("stop", ["stop", ""])
def test_r09_standard_output_is_closed(
    stop: str, server: ScriptedServer, tmp_path: pathlib.Path
) -> None:
    """`program | head -1`: it ends quietly, and its run is stopped if it asked for that."""
    gate = Gate()
    words = [f"word {n}\n" for n in range(200)]
    first, rest = text_chunks(*words)[:2], text_chunks(*words)[2:]
    server.reply(*first, gate, *rest[:100], *([Hang()] if stop else []), *rest[100:])
    result = tmp_path / "result"
    with Program(PRINTING, server.url, str(result), stop) as program:
        assert program.process.stdout is not None
        assert program.process.stdout.readline().decode() == "🤖 greeter 🤖 >\n"
        program.process.stdout.close()  # head -1 has had its line
        gate.open()
        assert program.finish() == 0
    assert program.errors == ""
    status, _, output = result.read_text("utf-8").partition(": ")
    if stop:
        assert status == "cancelled"
        assert "".join(words).startswith(output)
        assert len(output) < len("".join(words))
    else:
        assert (status, output) == ("completed", "".join(words))


def test_r09_in_a_shells_pipe(server: ScriptedServer, tmp_path: pathlib.Path) -> None:
    server.default(*text_chunks(*(f"word {n}\n" for n in range(500))))
    script = tmp_path / "program.py"
    from textwrap import dedent

    from tests.kit.programs import PRELUDE, environment

    script.write_text(PRELUDE + dedent(PRINTING))
    command = f"{sys.executable} {script} {server.url} {tmp_path}/result | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=environment(),
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == "🤖 greeter 🤖 >\n"
    assert (tmp_path / "result").read_text("utf-8").startswith("completed: word 0")


def test_r09_the_terminal_goes_away(server: ScriptedServer, tmp_path: pathlib.Path) -> None:
    import pty

    gate = Gate()
    server.reply(*text_chunks("one ", "two")[:2], gate, *text_chunks("three")[1:])
    ours, theirs = pty.openpty()
    result = tmp_path / "result"
    try:
        with Program(PRINTING, server.url, str(result), stdout=theirs) as program:
            os.close(theirs)
            seen = b""
            while b"one" not in seen:
                seen += os.read(ours, 1000)
            os.close(ours)
            ours = -1
            gate.open()
            assert program.finish() == 0
    finally:
        if ours >= 0:
            os.close(ours)
    assert result.read_text("utf-8") == "completed: one three"
    assert "Traceback" not in program.errors
    assert len(program.errors.splitlines()) <= 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_r10_emoji_on_any_standard_output(
    encoding: str, server: ScriptedServer, tmp_path: pathlib.Path
) -> None:
    """Printed with a "?" for what the encoding lacks; the log has every character."""
    server.reply_text("café ", "🎉", " 中 ", "\ud83d", "done")  # a surrogate that stays alone too
    result = tmp_path / "result"
    program = run(
        PRINTING,
        server.url,
        str(result),
        env={"PYTHONIOENCODING": encoding},
        stdout=(out := open(tmp_path / "out", "wb")),
    )
    out.close()
    assert program.status == 0  # type: ignore[attr-defined]
    assert program.errors == ""
    said = "café 🎉 中 \ufffddone"
    shown = said.encode(encoding, "replace").decode(encoding)
    heading = "🤖 greeter 🤖 >".encode(encoding, "replace").decode(encoding)
    assert (tmp_path / "out").read_bytes().decode(encoding) == f"{heading}\n   {shown}\n\n"
    assert result.read_text("utf-8") == "completed: " + said


# --- R11: a clock that is set ---------------------------------------------------------------


@pytest.mark.parametrize("hour", [-3600.0, 3600.0], ids=["back", "forward"])
def test_r11_the_clock_is_set(
    hour: float, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set in mid-stream, it makes no clock of ours ring, and none of them late."""
    wall, shift = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: wall() + shift[0])
    first, second = Gate(), Gate()
    server.reply(*text_chunks("one ", "two")[:2], first, *text_chunks("two")[1:])
    server.reply(*text_chunks("one ", "two")[:2], second)
    with client_of(server, stall=0.4, total=20.0) as client, Runtime() as runtime:
        heard: List[Any] = []
        runtime.event_stream.subscribe(heard.append)
        agent = Agent("a", client=client)
        with runtime.event_stream.subscribe(workflow_id="fine") as events:
            handle = runtime.submit(agent, "x", workflow_id="fine")
            while "chunk" not in next(events).data:
                pass
            shift[0] = hour
            assert not handle.done()
            first.open()
            assert handle.result(5).output == "one two"
        began = time.monotonic()
        task = Task(lambda: runtime.run(agent, "x", workflow_id="silent"))
        assert second.wait_reached()
        shift[0] = 2 * hour
        failed = task.error()
        assert isinstance(failed, WorkflowFailed)
        assert isinstance(failed.__cause__, StallTimeout)
        assert 0.4 <= time.monotonic() - began < 3
        for name in ("fine", "silent"):
            stored = events_of(runtime.event_stream, name)
            wait_until(lambda name=name, stored=stored: _of(heard, name) == stored)
            check_events(_of(heard, name))
        stamps = [event.timestamp for event in events_of(runtime.event_stream, "fine")]
        assert abs(abs(stamps[-1] - stamps[0]) - 3600) < 60  # it is the wall's time that they tell


def _of(events: List[Any], workflow_id: str) -> List[Any]:
    return [event for event in events if event.workflow_id == workflow_id]


@pytest.mark.parametrize("hour", [-3600.0, 3600.0], ids=["back", "forward"])
def test_r11_a_subscriber_that_is_behind_gets_all_of_it(
    hour: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was appended before the close is delivered, whatever the wall's clock says."""
    wall, shift = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: wall() + shift[0])
    with Runtime() as runtime:
        stream = runtime.event_stream
        subscription = stream.subscribe(max_queue=2)
        for number in range(10):
            stream.append(EventType.SYSTEM_WARNING, "w", {"number": number})
        shift[0] = hour
        subscription.close()
        stream.append(EventType.SYSTEM_WARNING, "w", {"number": "late"})
        assert [event.data["number"] for event in subscription] == list(range(10))
