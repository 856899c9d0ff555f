"""agentstream serve: a log over HTTP, from its start to its end."""

from __future__ import annotations

import os
import re
import signal
import stat

import pytest
import requests

from agentstream import EventStream
from agentstream.cli import main
from agentstream.events.sqlite import SqliteStore
from agentstream.testing import Hang, text_chunks
from agentstream.web.server import listen
from tests.kit.cli_resting import clerk, paid, write
from tests.kit.serve import Serve
from tests.kit.support import wait_until
from tests.kit.web_support import SSE, TOKEN, chunks


def test_serve_shows_a_log_and_stops_on_sigterm(tmp_path):
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    log = str(tmp_path / "runs.db")
    writer = EventStream(SqliteStore(log))
    try:
        chunks(writer, "run", 2)
        writer.store.flush()
        with Serve("--log", log, "--port", "0", "--token-file", str(token)) as served:
            assert stat.S_IMODE(os.stat(log).st_mode) == 0o600
            assert requests.get(served.url + "/workflows").status_code == 401
            page = requests.get(served.url + "/")
            assert "script-src 'sha256-" in page.headers["Content-Security-Policy"]
            assert "unsafe" not in page.headers["Content-Security-Policy"]
            with SSE(served.url, "/workflows/run/stream", token=TOKEN) as stream:
                assert [stream.event().id for _ in range(2)] == ["1", "2"]
                served.process.send_signal(signal.SIGTERM)
                assert [block.retry for block in stream.blocks()] == ["1000"]
            assert served.process.wait(20) == 0
            _, errors = served.process.communicate(timeout=60)
            assert "Traceback" not in errors
            assert "MARKEDKEY" not in errors
    finally:
        writer.close()


def test_serve_takes_its_token_from_the_environment_and_ends_with_ctrl_c(tmp_path):
    with Serve("--log", str(tmp_path / "runs.db"), "--port", "0", AGENTSTREAM_TOKEN=TOKEN) as it:
        assert requests.get(it.url + "/healthz").json() == {"status": "ok", "token": True}
        assert requests.get(it.url + "/workflows").status_code == 401
        it.process.send_signal(signal.SIGINT)
        assert it.process.wait(20) == 0


def test_serve_says_in_one_sentence_what_is_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("AGENTSTREAM_TOKEN", raising=False)
    empty = tmp_path / "empty"
    empty.write_text("\n")
    log = str(tmp_path / "runs.db")
    not_a_log = tmp_path / "text.db"
    not_a_log.write_text("no database" * 1000)
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        for arguments, code in (
            (["--log", log, "--host", "0.0.0.0"], 2),
            (["--log", log, "--host", "::"], 2),
            (["--log", log, "--token-file", str(empty)], 2),
            (["--log", log, "--token-file", str(tmp_path / "none")], 2),
            (["--log", log, "--host", "no.such.host.invalid"], 2),
            (["--log", log, "--port", port], 1),
            (["--log", str(not_a_log), "--port", "0"], 1),
            ([], 2),
        ):
            assert main(["serve", *arguments]) == code, arguments
            printed = capsys.readouterr()
            assert printed.out == ""
            assert printed.err.startswith("agentstream: ")
            assert printed.err.count("\n") == 1, printed.err
    assert not os.path.exists(log)
    for arguments in (
        [],
        ["serve", "--log", log, "--port", "70000"],
        ["serve", "--log", log, "--token", TOKEN],
    ):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 2
    capsys.readouterr()


@pytest.mark.parametrize("command", [[], ["serve"]])
def test_the_help_fits_a_small_terminal(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as left:
        main([*command, "--help"])
    assert left.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_workflow_files_that_cannot_be_served_are_one_line(cli, here):
    one = cli.write("one.toml", 'name = "x"\n[agents.a]\n[[steps]]\nagent = "a"\n')
    two = cli.write("two.toml", 'name = "x"\n[agents.a]\n[[steps]]\nagent = "a"\n')
    own = cli.write(
        "own.toml",
        '[clients.c]\nbase_url = "http://h"\n[agents.a]\nclient = "c"\n[[steps]]\nagent = "a"\n',
    )
    log = ("--log", cli.log, "--port", "0")
    for words, told in (
        ((one, two, *log), "two of the workflows are named 'x'"),
        (("none.toml", *log), "none.toml"),
        ((own, "--model", "m", *log), "own.toml has clients of its own"),
        (("--model", "m", *log), "--model: only for workflow files, and none is given"),
    ):
        assert told in here("serve", *words, code=2).line


def test_runs_of_a_served_file_are_in_the_log_and_stopped_with_it(cli, server):
    server.default(*text_chunks("Fine."))
    flow = cli.write("flow.toml", '[agents.a]\n[[steps]]\nagent = "a"\n')
    served = cli.start("serve", flow, "--port", "0", "--log", cli.log)
    served.expect("workflows to start there: flow")
    url = re.search(r"http://\S+", served.out)[0]
    begun = requests.post(url + "/workflows", json={"workflow": "flow", "input": "x"}).json()
    with SSE(url, f"/workflows/{begun['workflow_id']}/stream") as stream:
        list(stream.blocks())
    server.default(*text_chunks("Fine.")[:2], Hang())
    requests.post(url + "/workflows", json={"workflow": "flow", "input": "x"})
    assert server.wait_requests(2)
    served.send(signal.SIGTERM)
    assert served.finish() == 0, served.err
    states = [state.status for state in runs_of(cli.log)]
    assert states == ["cancelled", "completed"]


def test_a_server_that_keeps_runs_goes_on_with_those_of_an_earlier_one(cli, here, server):
    clerk(server, "17")
    words = ("serve", write(cli), "--port", "0", "--log", cli.log)
    first = cli.start(*words)
    first.expect("workflows to start there: order")
    url = re.search(r"http://\S+", first.out)[0]
    begun = requests.post(url + "/workflows", json={"workflow": "order", "input": "x"}).json()
    run = begun["workflow_id"]
    with SqliteStore(cli.log) as store:
        wait_until(lambda: store.runs()[0].status == "suspended")
    first.send(signal.SIGTERM)
    assert first.finish() == 0
    here("approve", run, "--log", cli.log)
    second = cli.start(*words)
    with SqliteStore(cli.log) as store:
        wait_until(lambda: store.runs()[0].status == "completed")
    second.send(signal.SIGTERM)
    assert second.finish() == 0
    assert (paid(cli), len(server.requests)) == (["17 900"], 2)


def runs_of(log):
    with SqliteStore(log) as store:
        return store.runs()
