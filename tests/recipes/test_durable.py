"""The code of docs/durable.rst, as it stands there: killed processes, answers, a real worker."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
from typing import Any, Dict, Iterator, List

import pytest

from agentstream import SqliteStore
from agentstream.testing import Hang, ScriptedServer
from tests.kit.celery_support import celery_worker
from tests.kit.programs import PROJECT, environment
from tests.kit.recipes import started
from tests.kit.support import wait_until

MODEL, PAYMENTS = "http://127.0.0.1:8080", "https://payments.example/transfers"

unix_only = pytest.mark.skipif(sys.platform == "win32", reason="kill -9")


def snippets() -> Dict[str, str]:
    """The page's Python by the first line of each block, in their order."""
    text = (PROJECT / "docs" / "durable.rst").read_text("utf-8") + "\n"
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    sources = [textwrap.dedent(block).strip() + "\n" for block in blocks]
    return {source.partition("\n")[0].replace("# ", "", 1): source for source in sources}


@contextlib.contextmanager
def review(folder: pathlib.Path, name: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "review.py", name],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@unix_only
def test_a_program_that_is_killed_goes_on_with_its_second_step(
    server: ScriptedServer, tmp_path: pathlib.Path
) -> None:
    source = snippets()["review.py: begin, or go on"]
    (tmp_path / "review.py").write_text(source.replace(MODEL, server.url), "utf-8")
    server.reply_text("A draft.")
    server.reply(Hang())
    with review(tmp_path, "tea") as process:
        wait_until(lambda: len(server.requests) == 2)
        process.send_signal(signal.SIGKILL)
    server.reply_text("A review.")
    for _ in range(2):  # the second time it is done
        with review(tmp_path, "tea") as process:
            assert process.communicate(timeout=20)[0] == "A review.\n"
            assert process.returncode == 0
    asked = [request.json["messages"][-1]["content"] for request in server.requests]
    assert asked == ["A text about tea", "A draft.", "A draft."]
    assert (tmp_path / "runs.db").stat().st_mode & 0o777 == 0o600


def test_what_people_answer_later(
    server: ScriptedServer, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    space: Dict[str, Any] = {"__name__": "page"}
    shown: Dict[str, str] = {}
    begin, *others = snippets().items()
    imports, _, rest = begin[1].partition("\nclient =")
    setting_up = f"{imports}\nclient ={rest}".partition("\nwith Runtime")[0]
    with ScriptedServer() as payments:
        payments.default(b'{"state": "sent"}', content_type="application/json", framing="length")
        server.reply_tool_calls(("pay", '{"invoice": "17", "cents": 1200}'))
        server.reply_text("It is paid.")
        for title, code in [("", setting_up), *others]:
            if title == "tasks.py":
                continue
            code = code.replace(MODEL, server.url).replace(PAYMENTS, payments.url + "/transfers")
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(code, "durable.rst", "exec"), space)
            shown[title] = out.getvalue()
        (paid,) = payments.requests
    space["watch"].close()
    space["watch"].join(5.0)
    assert space["runtime"].shutdown()
    space["events"].close()
    space["client"].close()
    assert '"cents": 1200' in shown["Somebody answers later"]
    assert shown["The answer"] == "It is paid.\n"
    assert paid.json == {"invoice": "17", "cents": 900}
    assert re.fullmatch("[0-9a-f]{16,64}", paid.headers["Idempotency-Key"])
    waited, output = shown["A value from outside"].splitlines()
    assert waited.startswith("suspended (PendingSignal(name='paid', ")
    assert output == "paid by card"


def children_of(pid: int) -> List[int]:
    return [int(word) for word in _children(pid).read_text().split()]


def _children(pid: int) -> pathlib.Path:
    return pathlib.Path(f"/proc/{pid}/task/{pid}/children")


@pytest.mark.skipif(not _children(os.getpid()).exists(), reason="/proc")
def test_a_celery_task_whose_worker_is_killed_in_step_two_goes_on_with_it(
    server: ScriptedServer, tmp_path: pathlib.Path
) -> None:
    server.reply_text("A draft.")
    server.reply(Hang())
    server.reply_text("A review.", repeat=True)
    source = snippets()["tasks.py"].replace(MODEL, server.url)
    (tmp_path / "tasks.py").write_text(source, "utf-8")
    with celery_worker(tmp_path, "tasks", processes=1) as worker:
        client = (
            "from tasks import work\n"
            "task = work.delay('A text about tea')\n"
            "print(task.id, flush=True)\n"
            "print(task.get(timeout=30, interval=0.02))\n"
        )
        with started(tmp_path, "-u", "-c", client, stdout=subprocess.PIPE) as asking:
            assert asking.stdout is not None
            name = asking.stdout.readline().strip()
            wait_until(lambda: len(server.requests) == 2, timeout=20.0)
            with SqliteStore(tmp_path / "runs.db", read_only=True) as log:
                (first,) = log.read(workflow_id=name, after=0, limit=1)
            assert first.type == "workflow_started"
            (child,) = children_of(worker.pid)
            os.kill(child, signal.SIGKILL)
            assert asking.communicate(timeout=30)[0] == "A review.\n"
    asked = [request.json["messages"][-1]["content"] for request in server.requests]
    assert asked == ["A text about tea", "A draft.", "A draft."]
    with SqliteStore(tmp_path / "runs.db") as log:
        kinds = [str(event.type) for event in log.read(workflow_id=name, after=0, limit=100)]
    assert kinds.count("workflow_resumed") == kinds.count("workflow_completed") == 1
