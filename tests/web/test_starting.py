"""The page in a real Chromium: starting runs, of workflow files too, and what functions return."""

from __future__ import annotations

import threading
from typing import Any, Dict, Iterator

import pytest
import requests

from agentstream import Agent, EventStream, Runtime, SqliteStore, Step, Workflow
from agentstream.testing import ScriptedServer, text_chunks
from agentstream.web import Registered
from tests.kit.browser import Browser, browser  # noqa: F401
from tests.kit.serve import Serve
from tests.kit.support import saying
from tests.web.test_page import ENTER, TEXT, page, serving, state  # noqa: F401

pytestmark = pytest.mark.browser

CONTROL = "\ue009"

FLOW = """
name = "greet"
input = "Nobody"
[context]
tone = "warm"
[agents.greeter]
system = "Greet."
[[steps]]
agent = "greeter"
prompt = "{input}, {context.tone}"
[[steps]]
function = "mytools:count"
"""


def choose(page: Browser, name: str) -> None:  # noqa: F811
    page.run(
        "const list = document.querySelector('#workflow'); list.value = arguments[0];"
        "list.dispatchEvent(new Event('change'))",
        name,
    )


def test_the_form_keeps_its_workflow_and_ctrl_enter_starts(page: Browser) -> None:  # noqa: F811
    known = {name: Agent(name, client=saying(f"I am {name}.")) for name in ("ant", "bee", "cat")}
    with Runtime() as runtime, serving(runtime, workflows=known) as url:
        page.open(url)
        page.wait("document.querySelector('#starting').checkVisibility()")
        choose(page, "bee")
        page.type("#input", "Who?")
        page.press(ENTER, held=CONTROL)
        state(page, "completed")
        assert page.texts(TEXT) == ["I am bee."]
        kept = "return document.querySelector('#workflow').value"
        assert page.run(kept) == "bee"
        page.type("#input", " Again?")
        page.press(ENTER)  # alone it is a new line
        assert page.run("return document.querySelector('#input').value") == "Who? Again?\n"
        page.reload()
        page.wait("document.querySelector('#starting').checkVisibility()")
        assert page.run(kept) == "bee"
        assert len(runtime.event_stream.store.runs()) == 1


def test_what_functions_return_is_shown(page: Browser) -> None:  # noqa: F811
    def boom(text: str) -> str:
        raise LookupError("nothing there")

    def nothing(text: str) -> None:
        return None

    steps = [
        Step(lambda text: {"words": text.split(), "n": 2}, name="split"),
        Step(lambda result: "<b>" + "x" * 30_000, name="grow"),
        Step(nothing, name="nothing"),
        Step(boom, name="boom"),
    ]
    with Runtime() as runtime, serving(runtime) as url:
        handle = runtime.submit(Workflow("functions", steps), "two words")
        handle.exception(10)
        page.open(url)
        state(page, "failed")
        assert page.texts(".card h3") == ["split", "grow", "nothing", "boom"]
        split, grow, nothing_, boom_ = page.texts("#cards .card")
        assert '"words": [\n    "two",\n    "words"\n  ]' in split
        assert "done in " in split
        assert page.text(TEXT).startswith("<b>xxx")
        assert len(page.text(TEXT)) == 30_003
        assert grow.endswith("xxx")
        assert "It returned nothing." in nothing_
        assert "LookupError: nothing there" in boom_
        assert page.texts(".card .state")[-1] == "failed"


@pytest.fixture
def served(tmp_path: Any, server: ScriptedServer, monkeypatch: Any) -> Iterator[str]:
    """`agentstream serve greet.toml`, without a log; gives its address."""
    server.default(*text_chunks("Good ", "evening."))
    (tmp_path / "mytools.py").write_text("def count(text):\n    return {'letters': len(text)}\n")
    (tmp_path / "greet.toml").write_text(FLOW)
    monkeypatch.delenv("AGENTSTREAM_LOG", raising=False)
    flow = str(tmp_path / "greet.toml")
    with Serve(flow, "--port", "0", "--base-url", server.url, HOME=str(tmp_path)) as it:
        yield it.url


def test_workflow_files_are_there_to_be_started(
    page: Browser,  # noqa: F811
    served: str,
    server: ScriptedServer,
) -> None:
    page.open(served + "/")
    page.wait("document.querySelector('#starting').checkVisibility()")
    page.type("#input", "Somebody")
    page.click("#start button")
    state(page, "completed")
    assert page.texts(TEXT) == ["Good evening."]
    assert '"letters": 13' in page.text("main")
    assert server.requests[-1].json["messages"][-1]["content"] == "Somebody, warm"
    page.leave()
    begun = requests.post(served + "/workflows", json={"workflow": "greet"})
    assert begun.status_code == 201
    assert server.wait_requests(2)
    assert server.requests[-1].json["messages"][-1]["content"] == "Nobody, warm"


def test_each_run_has_a_context_of_its_own() -> None:
    seen = []

    def note(text: str, context: Dict[str, Any]) -> str:
        seen.append(dict(context))
        context["tone"] = "cold"
        return text

    known = {"one": Registered(Workflow("one", [note]), "x", lambda: {"tone": "warm"})}
    with Runtime() as runtime, serving(runtime, workflows=known) as url:
        for _ in range(2):
            begun = requests.post(url + "workflows", json={"workflow": "one"}).json()
            requests.get(url + f"workflows/{begun['workflow_id']}/stream").raise_for_status()
    assert seen == [{"tone": "warm"}] * 2


# --- what runs are given ------------------------------------------------------------------------

LETTER = "\n  Where is my parcel?  \n" + "It should have come. " * 40


def test_each_runs_input_is_in_the_list_and_in_its_header(page: Browser, tmp_path: Any) -> None:  # noqa: F811
    agent = Agent("writer", client=saying("Good ", "evening."))
    inner = Workflow("inner", [agent])
    store = SqliteStore(tmp_path / "runs.db")
    with Runtime(event_stream=EventStream(store)) as runtime, serving(runtime) as url:
        runtime.run(Workflow("outer", [str.upper, inner]), "short", workflow_id="short")
        runtime.run(agent, LETTER, workflow_id="long")
        page.open(url + "#short")
        state(page, "completed")
        rows = page.texts("#runs .input")
        assert rows == ["Where is my parcel?", "short", "SHORT"]
        assert page.shown("#run-input-text")
        assert page.text("#run-input-text") == "short"
        page.open(url + "#long")
        page.wait_text("#run-input-text", LETTER)
        assert not page.shown("#run-input-text"), "what is long is folded"
        page.click("#run-input summary")
        assert page.shown("#run-input-text")


def test_a_run_that_is_still_queued_shows_its_input(page: Browser, tmp_path: Any) -> None:  # noqa: F811
    gate = threading.Event()

    def wait(text: str) -> str:
        gate.wait(10)
        return text

    store = SqliteStore(tmp_path / "runs.db")
    stream = EventStream(store)
    with Runtime(event_stream=stream, max_workers=1) as runtime, serving(runtime) as url:
        first = runtime.submit(Workflow("first", [wait]), "one")
        second = runtime.submit(Workflow("second", [str.upper]), "<b>two</b>")
        page.open(url + "#" + second.workflow_id)
        state(page, "queued")
        gate.set()
        state(page, "completed")
        page.wait_text("#run-input-text", "<b>two</b>")
        first.result(5)
