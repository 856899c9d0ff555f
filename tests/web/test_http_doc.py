"""docs/http.rst: its routes are the app's, and each status that it lists is what comes."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
from typing import Any, Callable, Dict, Iterator, Set

import pytest
import requests

from agentstream import Agent, MemoryStore, Runtime, Wait, Workflow
from agentstream.errors import Cancelled, LogError
from agentstream.web import create_app
from tests.kit.support import saying, wait_until
from tests.kit.web_support import TOKEN, Site, site
from tests.web.test_resting import clerk

DOC = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "http.rst").read_text("utf-8")
WAITS = Workflow("waits", [Wait("later"), Wait("at last")])
RUN = re.compile(r"^``(\w+ \S+)``\n~+\n(.*?)(?=^``\w+ /|^-{4,}|\Z)", re.MULTILINE | re.DOTALL)
#: The variables of a rule, and how the page has them.
NAMED, SHOWN = re.compile(r"<(?:run:)?(\w+)>"), {"run": "ID", "call": "CALL", "name": "NAME"}
#: What may answer any request.
ANY, _, ROUTES = DOC.partition("\nRuns\n----")


def statuses(text: str) -> Set[int]:
    return {int(code) for code in re.findall(r"^``(\d{3})``  ", text, re.MULTILINE)}


def listed() -> Dict[str, Set[int]]:
    """The statuses of each route, as the page has them."""
    return {name: statuses(text) for name, text in RUN.findall(ROUTES)}


@pytest.fixture(scope="module")
def served() -> Iterator[Site]:
    """A server with a run that has ended, two that wait, and one stream of two taken."""
    asks = clerk([])
    known = {"demo": Workflow("demo", [Agent("writer", client=saying("Hello"))]), "waits": WAITS}
    with Runtime(checkpoints=True) as runtime:
        with site(runtime, TOKEN, workflows=known, max_streams=2, heartbeat=0.1) as it:
            runtime.run(known["demo"], "Hi\nthere", workflow_id="done/1")
            runtime.run(WAITS, "x", workflow_id="waits")
            runtime.run(asks, "x", workflow_id="asks")
            ask(it, "GET", "/metrics")  # the thread that counts is the server's, not a test's
            yield it


def ask(it: Site, method: str, path: str, body: Any = None, **options: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {TOKEN}", **options.pop("headers", {})}
    if body is not None:
        headers.setdefault("Content-Type", "application/json")
        options["data"] = body if isinstance(body, (str, bytes)) else json.dumps(body)
    with requests.request(
        method, it.url + path, headers=headers, stream=True, timeout=5, **options
    ) as answer:
        if not answer.headers.get("Content-Type", "").startswith("text/event-stream"):
            assert answer.content is not None  # read it
    wait_until(lambda: it.app.open_streams == 0)  # it sees with the next heartbeat who has left
    return answer


def stopping(it: Site, path: str, body: Any = None) -> requests.Response:
    """The answer of a server that stops."""
    known = {"demo": Agent("a", client=saying("x")), "waits": WAITS}
    with Runtime(checkpoints=True) as runtime:
        with site(runtime, TOKEN, workflows=known) as other:
            runtime.run(known["demo"], "x", workflow_id="done/1")
            runtime.run(WAITS, "x", workflow_id="waits")
            if body is None:
                other.app._streams.close()
                return ask(other, "GET", path)
            runtime.shutdown()
            return ask(other, "POST", path, body)


def stop_running(it: Site) -> requests.Response:
    handle = it.runtime.submit(Workflow("wait", [_until_stopped]), "x", workflow_id="running")
    try:
        return ask(it, "POST", "/workflows/running/stop", {})
    finally:
        with contextlib.suppress(Cancelled):
            handle.result(10)


def _until_stopped(value: Any, context: Any) -> None:
    context.cancel.wait(10)


PLAIN = {"Content-Type": "text/plain"}
START, STOP = "POST /workflows", "POST /workflows/ID/stop"
APPROVE = "POST /workflows/ID/approvals/CALL"
SIGNAL, RESUME = "POST /workflows/ID/signals/NAME", "POST /workflows/ID/resume"
YES = {"answer": "yes"}
ONE, ALL = "GET /workflows/ID/stream", "GET /events/stream"
#: How each status of each route comes about.
CASES: Dict[str, Dict[int, Callable[[Site], requests.Response]]] = {
    "GET /workflows": {
        200: lambda it: ask(it, "GET", "/workflows?limit=5"),
        400: lambda it: ask(it, "GET", "/workflows?limit=x"),
    },
    START: {
        201: lambda it: ask(it, "POST", "/workflows", {"workflow": "demo", "input": "x"}),
        400: lambda it: ask(it, "POST", "/workflows", [1]),
        404: lambda it: ask(it, "POST", "/workflows", {"workflow": "none"}),
        413: lambda it: ask(it, "POST", "/workflows", b" " * (2**20 + 1)),
        415: lambda it: ask(it, "POST", "/workflows", {}, headers=PLAIN),
        503: lambda it: stopping(it, "/workflows", {"workflow": "demo"}),
    },
    "GET /workflows/ID": {
        200: lambda it: ask(it, "GET", "/workflows/done%2F1"),
        404: lambda it: ask(it, "GET", "/workflows/none"),
    },
    STOP: {
        202: stop_running,
        400: lambda it: ask(it, "POST", "/workflows/done/1/stop", "no JSON"),
        404: lambda it: ask(it, "POST", "/workflows/none/stop", {}),
        409: lambda it: ask(it, "POST", "/workflows/done/1/stop", {}),
        415: lambda it: ask(it, "POST", "/workflows/done/1/stop", {}, headers=PLAIN),
    },
    APPROVE: {
        202: lambda it: ask(it, "POST", f"/workflows/asks/approvals/{call_of(it)}", YES),
        400: lambda it: ask(it, "POST", "/workflows/asks/approvals/x", {"answer": "perhaps"}),
        404: lambda it: ask(it, "POST", "/workflows/none/approvals/x", YES),
        409: lambda it: ask(it, "POST", "/workflows/done/1/approvals/x", YES),
        415: lambda it: ask(it, "POST", "/workflows/asks/approvals/x", {}, headers=PLAIN),
    },
    SIGNAL: {
        202: lambda it: ask(it, "POST", "/workflows/waits/signals/later", {"value": 1}),
        400: lambda it: ask(it, "POST", "/workflows/waits/signals/later", {}),
        404: lambda it: ask(it, "POST", "/workflows/none/signals/later", {"value": 1}),
        409: lambda it: ask(it, "POST", "/workflows/done/1/signals/later", {"value": 1}),
        415: lambda it: ask(it, "POST", "/workflows/waits/signals/later", {}, headers=PLAIN),
    },
    RESUME: {
        202: lambda it: ask(it, "POST", "/workflows/waits/resume", {}),
        400: lambda it: ask(it, "POST", "/workflows/waits/resume", [1]),
        404: lambda it: ask(it, "POST", "/workflows/none/resume", {}),
        409: lambda it: ask(it, "POST", "/workflows/done/1/resume", {}),
        415: lambda it: ask(it, "POST", "/workflows/waits/resume", {}, headers=PLAIN),
        503: lambda it: stopping(it, "/workflows/waits/resume", {}),
    },
    ONE: {
        200: lambda it: ask(it, "GET", "/workflows/done/1/stream"),
        204: lambda it: ask(it, "GET", f"/workflows/done/1/stream?after={last_of(it)}"),
        400: lambda it: ask(it, "GET", "/workflows/done/1/stream?after=999"),
        404: lambda it: ask(it, "GET", "/workflows/none/stream"),
        503: lambda it: stopping(it, "/workflows/done/1/stream"),
    },
    ALL: {
        200: lambda it: ask(it, "GET", "/events/stream?run=done/1"),
        400: lambda it: ask(it, "GET", "/events/stream", headers={"Last-Event-ID": "x"}),
        503: lambda it: stopping(it, "/events/stream"),
    },
    "GET /metrics": {200: lambda it: ask(it, "GET", "/metrics")},
    "GET /": {200: lambda it: ask(it, "GET", "/")},
    "POST /login": {
        204: lambda it: ask(it, "POST", "/login", {"token": TOKEN}),
        400: lambda it: ask(it, "POST", "/login", "{"),
        401: lambda it: ask(it, "POST", "/login", {"token": "another"}),
        415: lambda it: ask(it, "POST", "/login", {}, headers=PLAIN),
    },
    "GET /healthz": {200: lambda it: ask(it, "GET", "/healthz", headers={"Authorization": ""})},
}


def call_of(it: Site) -> str:
    (call,) = it.runtime.pending("asks")
    return str(call.id)


def last_of(it: Site) -> int:
    state = it.events.store.run("done/1")
    assert state is not None
    return state.last_offset


def test_its_routes_are_those_of_the_app() -> None:
    rules = create_app(MemoryStore())._routes.iter_rules()
    there = {
        f"{method} {NAMED.sub(lambda found: SHOWN[found[1]], rule.rule)}"
        for rule in rules
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert set(listed()) == there == set(CASES)


@pytest.mark.parametrize("route", CASES)
def test_each_status_comes_and_each_answer_has_its_form(served: Site, route: str) -> None:
    assert listed()[route] == set(CASES[route])
    (text,) = [text for name, text in RUN.findall(ROUTES) if name == route]
    for status, case in CASES[route].items():
        answer = case(served)
        assert answer.status_code == status, (route, status, answer.status_code)
        if status >= 400:
            assert answer.json()["error"]["code"] == status
            assert isinstance(answer.json()["error"]["message"], str)
            assert ("Retry-After" in answer.headers) == (status == 503)
        elif answer.headers.get("Content-Type") == "application/json":
            row = text[text.index(f"``{status}``  ") :].split("\n``")[0]
            keys = set(re.findall(r'"(\w+)": ', row)) or run_keys() | OF_ONE
            assert set(answer.json()) == keys, (route, status)


#: The keys that only a single run has.
OF_ONE = {"output", "error", "can_resume"}


def run_keys() -> Set[str]:
    """The keys of a RUN."""
    block = DOC[DOC.index('"workflow_id": "3f2a9c1d5e6b7a80",') :].split("\n    }")[0]
    return set(re.findall(r'^\s*"(\w+)": ', block, re.MULTILINE)) | {"workflow_id"}


def test_a_run_in_the_list_has_the_keys_of_the_example(served: Site) -> None:
    runs = ask(served, "GET", "/workflows").json()["workflows"]
    assert all(set(run) == run_keys() for run in runs)
    (done,) = [run for run in runs if run["workflow_id"] == "done/1"]
    assert (done["input"], done["status"]) == ("Hi", "completed")
    assert ask(served, "GET", "/workflows/done%2F1").json()["input"] == "Hi\nthere"


class _Broken(MemoryStore):
    def runs(self, *, limit: int = 100) -> Any:
        raise LogError("the disk is gone")


def test_what_may_answer_any_request(served: Site) -> None:
    with site(_Broken()) as broken:
        answers = {
            401: ask(served, "GET", "/workflows", headers={"Authorization": "Bearer no"}),
            403: ask(served, "GET", "/workflows", headers={"Host": "evil.example"}),
            404: ask(served, "GET", "/nothing"),
            405: ask(served, "POST", "/healthz", {}),
            503: ask(broken, "GET", "/workflows"),
        }
    assert statuses(ANY) == set(answers)
    assert {answer.status_code for answer in answers.values()} == set(answers)
    assert answers[401].headers["WWW-Authenticate"] == "Bearer"
    assert "GET" in answers[405].headers["Allow"]
