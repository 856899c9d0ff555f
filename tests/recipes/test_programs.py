"""The two larger programs of examples/: the chat under gunicorn's workers, and the nightly digest."""

from __future__ import annotations

import collections
import contextlib
import os
import pathlib
import re
import subprocess
import sys
import threading
from typing import Any, Dict, Iterator, List

import pytest
import requests

from agentstream import SqliteStore
from agentstream.testing import Hang, Reply, ScriptedServer, text_chunks
from agentstream.testing.request import Request
from tests.kit.browser import Browser, browser  # noqa: F401
from tests.kit.programs import PROJECT, environment
from tests.kit.support import free_port, wait_until
from tests.recipes.test_embedding import listens

EXAMPLES = PROJECT / "examples"
LINES = {"chat.py": 50, "digest.py": 25}

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="gunicorn needs fork")


@pytest.mark.parametrize("name", LINES)
def test_it_is_as_short_as_was_asked(name: str) -> None:
    assert len((EXAMPLES / name).read_text("utf-8").splitlines()) <= LINES[name]


def write(folder: pathlib.Path, name: str, server: ScriptedServer) -> None:
    """The program, against that server."""
    text = (EXAMPLES / name).read_text("utf-8")
    assert "http://127.0.0.1:8080" in text
    (folder / name).write_text(text.replace("http://127.0.0.1:8080", server.url), "utf-8")


# --- the chat -------------------------------------------------------------------------------


class Site:
    """The chat under gunicorn, and one visitor; each request is a connection of its own."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url
        self.cookies: Any = None

    def get(self) -> str:
        answer = requests.get(self.url, cookies=self.cookies, timeout=60)
        assert answer.status_code == 200, answer.text
        self.cookies = self.cookies or answer.cookies
        found = re.search(r'<pre id="said">(.*?)</pre>', answer.text, re.DOTALL)
        assert found is not None
        return found[1]

    def ask(self, text: str, run: str) -> requests.Response:
        form = {"text": text, "run": run}
        return requests.post(
            self.url + "ask", data=form, cookies=self.cookies, stream=True, timeout=60
        )

    def stop(self, run: str) -> str:
        return requests.post(
            self.url + "stop", data={"run": run}, cookies=self.cookies, timeout=60
        ).text

    def workers(self) -> List[int]:
        """The workers' process ids."""
        pid = self.process.pid
        return [int(word) for word in _children_of(pid).read_text().split()]


def _children_of(pid: int) -> pathlib.Path:
    """Where Linux lists what a process's main thread has forked."""
    return pathlib.Path(f"/proc/{pid}/task/{pid}/children")


@pytest.fixture
def site(server: ScriptedServer, tmp_path: pathlib.Path) -> Iterator[Site]:
    write(tmp_path, "chat.py", server)
    port = free_port()
    command = ["-m", "gunicorn", "-w", "3", "-k", "gthread", "--threads", "8", "chat:app"]
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, *command, "-b", f"127.0.0.1:{port}"],
            cwd=tmp_path,
            stderr=errors,
            env={**environment(), "CHAT_SECRET": "of the test", "HOME": str(tmp_path)},
            text=True,
        )
    try:
        wait_until(lambda: listens(port), timeout=60.0)
        yield Site(process, f"http://127.0.0.1:{port}/")
        process.terminate()
        assert process.wait(20) == 0, (tmp_path / "errors").read_text()
        assert "Traceback" not in (tmp_path / "errors").read_text()
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(not _children_of(os.getpid()).exists(), reason="/proc")
def test_the_chat_remembers_and_stops_whichever_worker_is_asked_and_outlives_them(
    site: Site, server: ScriptedServer
) -> None:
    assert site.get() == ""
    server.reply_text("Hello", " Ada.")
    assert site.ask("I am Ada <3", "1").text == "Hello Ada."
    said = "&gt; I am Ada &lt;3\nHello Ada.\n\n"
    assert {site.get() for _ in range(12)} == {said}  # of all workers
    assert len(site.workers()) == 3

    for number in range(4):  # the worker that is asked to stop is hardly ever the one that runs
        server.reply(*text_chunks("Once", " more")[:2], Hang())
        with site.ask("A long story", f"s{number}") as answer:
            words = answer.iter_content(None, decode_unicode=True)
            assert next(words) == "Once"
            assert site.stop(f"s{number}") == "True"
            assert list(words) == []
        said += "&gt; A long story\nOnce\n\n"
    assert site.get() == said
    assert site.stop("s0") == "False"
    sent = [m["content"] for m in server.requests[-1].json["messages"]]
    assert sent[1:4] == ["I am Ada <3", "Hello Ada.", "A long story"]
    assert sent[4] == "Once"

    server.reply(b'{"error": {"message": "no such model"}}', status=404, framing="length")
    assert "404" in site.ask("And now?", "f").text
    said += "&gt; And now?\n"
    other = Site(site.process, site.url)
    assert other.get() == ""

    before = site.workers()
    for pid in before:
        os.kill(pid, 9)
    wait_until(lambda: len(set(site.workers()) - set(before)) == 3, timeout=60.0)
    assert site.get() == said
    server.reply_text("Still here.")
    assert site.ask("And you?", "2").text == "Still here."
    assert server.requests[-1].json["messages"][-1]["content"] == "And now?\n\nAnd you?"


@pytest.mark.browser
def test_the_chats_page_in_a_browser(site: Site, server: ScriptedServer, browser: Browser) -> None:  # noqa: F811
    server.reply(*text_chunks("Once", " upon")[:2], Hang())
    browser.open(site.url)
    browser.type("input", "A story\ue007")
    browser.wait("said.textContent === '> A story\\nOnce'")
    browser.click("#halt")
    browser.wait("said.textContent === '> A story\\nOnce\\n\\n'")
    browser.reload()
    browser.wait("said.textContent === '> A story\\nOnce\\n\\n'")
    browser.leave()


# --- the digest -----------------------------------------------------------------------------


class Model:
    """Sums up; is silent from the nth file on, until it is told to go on."""

    def __init__(self, server: ScriptedServer, silent_after: int) -> None:
        self.asked: Dict[str, int] = collections.Counter()
        self.answered: List[str] = []
        self.silent_after = silent_after
        self._lock = threading.Lock()
        server.route("/v1/chat/completions", self.answer)

    def answer(self, request: Request) -> Reply:
        text = request.json["messages"][-1]["content"]
        name = text.split()[-1] if text.startswith("This is") else "digest"
        with self._lock:
            self.asked[name] += 1
            if len(self.answered) >= self.silent_after:
                return Reply(*text_chunks("Half")[:2], Hang())
            self.answered.append(name)
        return Reply.text(f"Sum of {name}.")


@contextlib.contextmanager
def digest(folder: pathlib.Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "digest.py", "texts"],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def completed(store: SqliteStore) -> int:
    return [state.status for state in store.runs()].count("completed")


def test_the_digest_asks_for_no_file_twice_after_a_kill(
    server: ScriptedServer, tmp_path: pathlib.Path
) -> None:
    write(tmp_path, "digest.py", server)
    (tmp_path / "texts").mkdir()
    names = [f"file{number:02}" for number in range(30)]
    for name in names:
        (tmp_path / "texts" / f"{name}.txt").write_text(f"This is {name}")
    model = Model(server, silent_after=14)
    with digest(tmp_path) as process:
        # All workers wait for an answer, and what was finished before is in the file.
        wait_until(lambda: sum(model.asked.values()) == 22, timeout=60.0)
        with SqliteStore(tmp_path / "digest.db", read_only=True) as store:
            wait_until(lambda: completed(store) == len(model.answered), timeout=60.0)
        process.kill()
        process.wait()
    finished = set(model.answered)
    model.silent_after = 1000
    for _ in range(2):
        with digest(tmp_path) as process:
            out, errors = process.communicate(timeout=60)
        assert (out, errors) == ("Sum of digest.\n", "")
    assert {model.asked[name] for name in finished} == {1}
    assert {model.asked[name] for name in set(names) - finished} <= {1, 2}
    assert sum(model.asked[name] for name in names) == 30 + 8
    assert model.asked["digest"] == 1
    notes = [m["content"] for r in server.requests for m in r.json["messages"]][-1]
    assert notes.splitlines() == [f"{name}.txt: Sum of {name}." for name in names]
