"""Runs that rest, over HTTP: what they wait for, answers to it, and who goes on with them."""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Dict, Iterator, List, Tuple

import pytest
import requests

from agentstream import (
    Agent,
    Approval,
    Cancelled,
    EventStream,
    MemoryStore,
    Runtime,
    SqliteStore,
    Step,
    Wait,
    Workflow,
    tool,
)
from agentstream.errors import LogError
from agentstream.results import ToolCall
from agentstream.testing import ScriptedClient
from agentstream.web import Registered, follow
from tests.kit.support import FunctionClient, wait_until
from tests.kit.web_support import SSE, TOKEN, Site, site

ARGUMENTS = '{"invoice": "17", "cents": 900}'


def clerk(paid: List[Any], *, calls: int = 1, expires: Any = None) -> Agent:
    """An agent that makes so many calls which somebody must approve, and says that it is done."""

    @tool
    def pay(invoice: str, cents: int) -> str:
        """Pay an invoice."""
        paid.append((invoice, cents))
        return f"paid {cents}"

    wanted = [
        ToolCall(f"call_{n}", "pay", ARGUMENTS.replace("17", str(17 + n))) for n in range(calls)
    ]

    def answer(request: Any, cancel: Any) -> Any:
        told = sum(message.role == "assistant" for message in request.messages)
        reply: Any = "All is done." if told else wanted
        return ScriptedClient(reply).stream_deltas(request, cancel=cancel)

    return Agent(
        "clerk",
        client=FunctionClient(answer),
        tools=[pay],
        approve=lambda call: Approval.later(expires),
    )


@contextlib.contextmanager
def serving(store: Any, *known: Any, **settings: Any) -> Iterator[Site]:
    """A server that goes on with runs of these workflows."""
    runtime = Runtime(event_stream=EventStream(store), checkpoints=True, grace=0.3)
    workflows = {f"the {one.name}": Registered(one, "in") for one in known}
    try:
        with site(runtime, workflows=workflows, heartbeat=0.2, **settings) as it:
            yield it
    finally:
        runtime.shutdown(cancel=True)


def post(it: Site, path: str, body: Any = None) -> Tuple[int, Dict[str, Any]]:
    answer = requests.post(f"{it.url}/workflows/{path}", json={} if body is None else body)
    return answer.status_code, answer.json()


def show(it: Site, run: str) -> Dict[str, Any]:
    answer: Dict[str, Any] = requests.get(f"{it.url}/workflows/{run}").json()
    return answer


def ended(it: Site, run: str, status: str = "completed") -> Dict[str, Any]:
    wait_until(lambda: show(it, run)["status"] == status)
    return show(it, run)


@pytest.fixture(params=["memory", "file"])
def store(request: Any, tmp_path: Any) -> Any:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "runs.db")


def test_an_approval_goes_on_with_the_run_and_its_streams_stay_open(store: Any) -> None:
    paid: List[Any] = []
    agent = clerk(paid, calls=2)
    with serving(store, agent) as it, SSE(it.url, "/events/stream") as every:
        run = it.runtime.run(agent, "in", workflow_id="team/42")
        state = show(it, "team/42")
        assert (state["status"], state["ended_at"], state["can_resume"]) == (
            "suspended",
            None,
            True,
        )
        one, other = state["pending"]
        assert one == {
            "id": run.pending[0].id,
            "kind": "approval",
            "name": "pay",
            "arguments": ARGUMENTS,
            "agent": "clerk",
            "step": "0",
            "tool_call_id": "",
            "expires_at": None,
            "answered": False,
        }
        (listed,) = requests.get(it.url + "/workflows").json()["workflows"]
        assert listed["status"] == "suspended"
        assert [each["id"] for each in listed["pending"]] == [one["id"], other["id"]]
        with SSE(it.url, "/workflows/team/42/stream") as stream:
            kinds = [stream.event().event for _ in range(state["last_offset"])]
            assert kinds[-1] == "workflow_suspended"
            assert [stream.block().comment for _ in range(2)] == ["", ""], "it is kept alive"
            answer = {"answer": "change", "arguments": {"invoice": "17", "cents": 5}, "by": "ann"}
            assert post(it, f"team/42/approvals/{one['id']}", answer) == (
                202,
                {"workflow_id": "team/42", "call": one["id"], "resumed": True},
            )
            sent = stream.event()
            assert sent.event == "workflow_resumed"
            (told,) = sent.data["data"]["answers"]
            assert (told["answer"], told["by"], told["id"]) == ("change", "ann", one["id"])
            while sent.event != "workflow_suspended":
                sent = stream.event()
            assert [each["id"] for each in show(it, "team/42")["pending"]] == [other["id"]]
            no = {"answer": "no", "reason": "not twice"}
            assert post(it, f"team/42/approvals/{other['id']}", no)[0] == 202
            rest = stream.events()
            assert rest[-1].event == "workflow_completed"
        assert paid == [("17", 5)]
        assert ended(it, "team/42")["pending"] == []
        ids = [every.event().id for _ in range(int(rest[-1].id or 0))]
        assert len(set(ids)) == len(ids)
        wait_until(lambda: it.app.open_streams == 1)


def test_a_value_is_sent_and_the_run_goes_on(store: Any) -> None:
    flow = Workflow("order", [Wait("paid/at"), Step(lambda value: [value, "shipped"], name="ship")])
    with serving(store, flow) as it:
        it.runtime.run(flow, "in", workflow_id="run")
        (asked,) = show(it, "run")["pending"]
        assert (asked["kind"], asked["name"], asked["id"]) == ("signal", "paid/at", "paid/at")
        value = {"card": ["\ud800", 2**70, None]}
        assert post(it, "run/signals/paid%2Fat", {"value": value}) == (
            202,
            {"workflow_id": "run", "signal": "paid/at", "resumed": True},
        )
        ended(it, "run")


def test_a_run_within_another_is_answered_and_resumed_by_either_id(store: Any) -> None:
    paid: List[Any] = []
    flow = Workflow("outer", [Workflow("inner", [clerk(paid)])])
    with serving(store, flow) as it:
        it.runtime.run(flow, "in", workflow_id="outer")
        (inner,) = [run.workflow_id for run in store.runs() if run.name == "inner"]
        state = show(it, inner)
        assert (state["status"], state["can_resume"]) == ("suspended", True)
        (asked,) = state["pending"]
        assert show(it, "outer")["pending"] == [asked]
        assert post(it, f"{inner}/resume") == (202, {"workflow_id": "outer", "resumed": True})
        rests = "workflow_suspended"  # again, as nobody has answered
        wait_until(lambda: [e.type for e in store.read(workflow_id="outer")].count(rests) == 2)
        wait_until(lambda: "outer" not in it.runtime._runs)
        status, said = post(it, f"{inner}/approvals/{asked['id']}", {"answer": "yes"})
        assert (status, said["resumed"]) == (202, True)
        ended(it, "outer")
        assert paid == [("17", 900)]


def test_without_the_workflow_it_is_answered_and_left_to_who_watches(store: Any) -> None:
    paid: List[Any] = []
    agent = clerk(paid)
    with serving(store) as it:
        (asked,) = it.runtime.run(agent, "in", workflow_id="run").pending
        assert show(it, "run")["can_resume"] is False
        assert post(it, "run/resume")[0] == 404
        status, said = post(it, f"run/approvals/{asked.id}", {"answer": "yes"})
        assert (status, said["resumed"]) == (202, False)
        state = show(it, "run")
        assert (state["status"], [each["answered"] for each in state["pending"]]) == (
            "suspended",
            [True],
        )
        with it.runtime.watch([agent], poll_s=0.05):
            ended(it, "run")
        assert paid == [("17", 900)]


def test_a_server_over_a_store_takes_answers_and_resumes_nothing(tmp_path: Any) -> None:
    paid: List[Any] = []
    path = tmp_path / "runs.db"
    agent = clerk(paid)
    with Runtime(event_stream=EventStream(SqliteStore(path)), checkpoints=True) as runtime:
        (asked,) = runtime.run(agent, "in", workflow_id="run").pending
        with site(SqliteStore(path)) as it:
            assert show(it, "run")["can_resume"] is False
            assert post(it, "run/resume")[0] == 404
            assert post(it, f"run/approvals/{asked.id}", {"answer": "yes"})[1]["resumed"] is False
            with SSE(it.url, "/workflows/run/stream") as stream:
                runtime.resume(agent, "run").result(5)
                kinds = [sent.event for sent in stream.events()]
        assert kinds.count("workflow_suspended") == kinds.count("workflow_resumed") == 1
        assert kinds[-1] == "workflow_completed"
    assert paid == [("17", 900)]


def test_what_is_no_answer_is_refused_and_changes_nothing(store: Any) -> None:
    paid: List[Any] = []
    agent, flow = clerk(paid), Workflow("order", [Wait("paid"), str])
    deep: Any = []
    for _ in range(300):
        deep = [deep]
    with serving(store, agent, flow) as it:
        (asked,) = it.runtime.run(agent, "in", workflow_id="run").pending
        it.runtime.run(flow, "in", workflow_id="order")
        it.runtime.run(Workflow("done", [str]), "in", workflow_id="done")
        call = f"run/approvals/{asked.id}"
        for body in (
            {},
            [],
            {"answer": True},
            {"answer": "maybe"},
            {"answer": "yes", "arguments": {"invoice": "17", "cents": 1}},
            {"answer": "yes", "reason": "not passed by"},
            {"answer": "no", "arguments": {}},
            {"answer": "change"},
            {"answer": "change", "arguments": ARGUMENTS},
            {"answer": "change", "arguments": {"invoice": deep}},
            {"answer": "yes", "by": 7},
        ):
            assert post(it, call, body)[0] == 400, body
        for body in ({}, {"valeu": 1}, {"value": deep}, {"value": 1, "by": []}):
            assert post(it, "order/signals/paid", body)[0] == 400, body
        assert post(it, f"order/signals/{'x' * 300}", {"value": 1})[0] == 400
        nan = requests.post(
            it.url + "/workflows/order/signals/paid",
            data='{"value": NaN}',
            headers={"Content-Type": "application/json"},
        )
        assert nan.status_code == 400
        yes, one = {"answer": "yes"}, {"value": 1}
        for path, body, status in (
            ("none/approvals/x", yes, 404),
            ("none/signals/x", one, 404),
            ("none/resume", {}, 404),
            ("run/approvals/other", yes, 404),
            ("order/approvals/paid", yes, 404),  # that is no call
            (f"done/approvals/{asked.id}", yes, 409),
            ("done/signals/paid", one, 409),
            ("done/resume", {}, 409),
        ):
            assert post(it, path, body)[0] == status, path
        assert [show(it, run)["status"] for run in ("run", "order")] == ["suspended"] * 2
        assert not any(each["answered"] for each in show(it, "run")["pending"])
        assert paid == []


def test_one_of_many_answers_counts(store: Any) -> None:
    paid: List[Any] = []
    agent = clerk(paid)
    with serving(store) as it:  # it cannot go on with it, so that the others come too late
        (asked,) = it.runtime.run(agent, "in", workflow_id="run").pending
        (late,) = it.runtime.run(clerk(paid, expires=0.01), "in", workflow_id="late").pending
        flow = Workflow("order", [Wait("paid"), str])
        it.runtime.run(flow, "in", workflow_id="order")
        got: List[int] = []

        def answer(number: int) -> None:
            said = {"answer": "yes" if number % 2 else "no"}
            got.append(post(it, f"run/approvals/{asked.id}", said)[0])
            got.append(post(it, "order/signals/paid", {"value": number})[0])

        threads = [threading.Thread(target=answer, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert sorted(got) == [202] * 2 + [409] * 10
        wait_until(lambda: post(it, f"late/approvals/{late.id}", {"answer": "yes"})[0] == 409)


def test_one_that_rests_can_be_stopped_and_its_streams_end(store: Any) -> None:
    agent = clerk([])
    with serving(store, agent) as it:
        (asked,) = it.runtime.run(agent, "in", workflow_id="run").pending
        with SSE(it.url, "/workflows/run/stream") as stream:
            assert post(it, "run/stop")[0] == 202
            assert stream.events()[-1].event == "workflow_cancelled"
        assert post(it, f"run/approvals/{asked.id}", {"answer": "yes"})[0] == 409
        assert show(it, "run")["pending"] == []


def test_streams_of_one_that_rests_end_with_the_server_and_followers_go_on(store: Any) -> None:
    paid: List[Any] = []
    agent = clerk(paid)
    got: List[str] = []
    with serving(store, agent) as it:
        (asked,) = it.runtime.run(agent, "in", workflow_id="run").pending

        def read() -> None:
            got.extend(event.type.value for event in follow(f"{it.url}/workflows/run"))

        reader = threading.Thread(target=read)
        reader.start()
        last = show(it, "run")["last_offset"]
        with SSE(it.url, "/workflows/run/stream", after=last) as stream:
            assert stream.status == 200
            wait_until(lambda: it.app.open_streams == 2)
            assert post(it, f"run/approvals/{asked.id}", {"answer": "yes"})[0] == 202
            assert stream.event().event == "workflow_resumed"
        reader.join(10)
        assert got[-1] == "workflow_completed" and "workflow_suspended" in got
        it.runtime.run(clerk(paid), "in", workflow_id="other")
        with SSE(it.url, "/workflows/other/stream") as stream:
            while stream.event().event != "workflow_suspended":
                pass
            assert it.app.close(wait=5.0)
            assert list(stream.blocks())[-1].retry == "1000"


def test_an_interrupted_run_is_resumed_by_the_next_server(tmp_path: Any) -> None:
    begun = threading.Event()

    def wait(text: str, context: Any) -> str:
        if not begun.is_set():
            begun.set()
            context.cancel.wait(10)
        return f"{text} on"

    flow = Workflow("flow", [wait])
    path = tmp_path / "runs.db"
    with serving(SqliteStore(path), flow) as it:
        handle = it.runtime.submit(flow, "goes", workflow_id="run")
        assert begun.wait(5)
        assert post(it, "run/resume")[0] == 409  # it does not rest
        it.runtime.shutdown(cancel=True)
        with pytest.raises(Cancelled):
            handle.result(5)
    other = Workflow("flow", [str, str])  # changed since
    with serving(SqliteStore(path), other) as it:
        state = show(it, "run")
        assert (state["status"], state["pending"], state["can_resume"]) == ("interrupted", [], True)
        status, said = post(it, "run/resume")
        assert (status, show(it, "run")["status"]) == (409, "interrupted")
        assert "changed" in said["error"]["message"]
    with serving(SqliteStore(path), flow) as it:
        assert post(it, "run/resume") == (202, {"workflow_id": "run", "resumed": True})
        assert ended(it, "run")["output"] == "goes on"


def test_a_log_that_fails_is_no_refusal(monkeypatch: Any) -> None:
    store = MemoryStore()
    agent = clerk([])
    with serving(store, agent) as it:
        (asked,) = it.runtime.run(agent, "in", workflow_id="run").pending

        def broken(*_: Any) -> bool:
            raise LogError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(store.checkpoints, "answer", broken)
            assert post(it, f"run/approvals/{asked.id}", {"answer": "yes"})[0] == 503
            assert post(it, "run/signals/x", {"value": 1})[0] == 503
        assert post(it, f"run/approvals/{asked.id}", {"answer": "yes"})[0] == 202
        ended(it, "run")


def test_events_that_programs_append_harm_no_list() -> None:
    class Old(MemoryStore):
        """A store that keeps no checkpoints, as one of somebody's may."""

        checkpoints = None

    entry = {"kind": "approval", "name": "pay", "arguments": "x" * 500, "agent": "", "step": ""}
    good = {**entry, "id": "1", "expires_at": None}
    for store in (Old(), MemoryStore()):
        with site(store) as it:
            for n, odd in enumerate(
                [5, "x", ["x", 5, None], [entry], [{**good, "expires_at": "x"}]]
            ):
                data = {"status": "suspended", "pending": odd}
                it.events.append("workflow_suspended", f"odd{n}", data)
                assert show(it, f"odd{n}")["pending"] == []
                assert post(it, f"odd{n}/approvals/1", {"answer": "yes"})[0] == 404
            it.events.append("workflow_suspended", "good", {"pending": [good]})
            assert show(it, "good")["pending"] == [{**good, "answered": False}]
            assert show(it, "good")["can_resume"] is False
            assert 400 <= post(it, "good/approvals/1", {"answer": "yes"})[0] < 500
            assert post(it, "good/resume")[0] == 409
            runs = requests.get(it.url + "/workflows").json()["workflows"]
            assert [len(run["pending"]) for run in runs] == [1, 0, 0, 0, 0, 0]
            assert runs[0]["pending"][0]["arguments"] == "x" * 200


def test_who_may_not_ask_may_not_answer() -> None:
    agent = clerk([])
    with serving(MemoryStore(), agent, token=TOKEN) as it:
        (asked,) = it.runtime.run(agent, "in", workflow_id="run").pending
        for path in (f"approvals/{asked.id}", "signals/x", "resume"):
            url = f"{it.url}/workflows/run/{path}"
            body = {"answer": "yes", "value": 1}
            assert requests.post(url, json=body).status_code == 401
            bearer = {"Authorization": f"Bearer {TOKEN}"}
            foreign = {**bearer, "Origin": "http://elsewhere.example"}
            assert requests.post(url, json=body, headers=foreign).status_code == 403
            rebound = {**bearer, "Host": "elsewhere.example"}
            assert requests.post(url, json=body, headers=rebound).status_code == 403
            form = {**bearer, "Content-Type": "text/plain"}  # what a plain form can send
            assert requests.post(url, data="{}", headers=form).status_code == 415
            assert requests.get(url, headers=bearer).status_code in (404, 405)
        assert show_with(it, bearer)["pending"][0]["answered"] is False


def show_with(it: Site, headers: Dict[str, str]) -> Dict[str, Any]:
    answer: Dict[str, Any] = requests.get(it.url + "/workflows/run", headers=headers).json()
    return answer
