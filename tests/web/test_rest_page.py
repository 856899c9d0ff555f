"""The page and runs that rest: what is asked is shown and answered, and the run is seen to go on."""

from __future__ import annotations

import json
import signal
import threading
from typing import Any, Dict, List

import pytest

from agentstream import (
    Agent,
    Cancelled,
    EventStream,
    EventType,
    Map,
    MemoryStore,
    Parallel,
    Runtime,
    Step,
    Wait,
    Workflow,
    tool,
)
from agentstream.testing import Gate, Reply, ScriptedServer, text_chunks, tool_call_chunks
from tests.kit.browser import Browser, browser  # noqa: F401
from tests.kit.programs import Program
from tests.kit.support import free_port, wait_until
from tests.web.test_page import (  # noqa: F401
    ENTER,
    EVIL,
    TAB,
    TEXT,
    page,
    serve_apart,
    serving,
    state,
)
from tests.web.test_resting import clerk

pytestmark = pytest.mark.browser

ASKS = "#asks"


def shown(page: Browser, title: str) -> None:  # noqa: F811
    """Wait until the section with the answers says so."""
    page.wait(
        "document.querySelector('#asks').checkVisibility()"
        " && document.querySelector('#asks-title').textContent === arguments[0]",
        title,
    )


def press(page: Browser, text: str, at: str = "") -> None:  # noqa: F811
    """Click the one button of that text."""
    script = """
    const found = [...document.querySelectorAll(`#asks ${arguments[1]} button`)].filter(
        (e) => e.textContent === arguments[0] && e.checkVisibility() && !e.disabled);
    found.forEach((e) => e.scrollIntoView({ block: 'center' }));
    if (found.length === 1) found[0].setAttribute('data-pressed', '');
    return found.length
    """
    page.wait(f"(() => {{ {script} }})() === 1", text, at)
    page.click("[data-pressed]")
    page.run("document.querySelector('[data-pressed]')?.removeAttribute('data-pressed')")


# --- what is asked, and the answers ---------------------------------------------------------


def dying_clerk(hangs: threading.Event) -> Agent:
    """An agent whose tool does not come back from its first call."""

    @tool
    def pay(invoice: str, cents: int) -> str:
        """Pay an invoice."""
        if not hangs.is_set():
            hangs.set()
            threading.Event().wait(1.5)
        return f"paid {cents}"

    agent = clerk([])
    return Agent("clerk", client=agent.client, tools=[pay])


def test_values_unknown_calls_and_steps_that_are_done(page: Browser) -> None:  # noqa: F811
    hangs, store = threading.Event(), MemoryStore()
    done = Parallel({"pays": dying_clerk(hangs), "told": str.title}, name="both")
    flow = Workflow(
        "flow", [str.split, Map(Step(str.upper), name="words"), " ".join, done, Wait("go <b>"), str]
    )
    first = Runtime(event_stream=EventStream(store), checkpoints=True, grace=0.1)
    handle = first.submit(flow, "a b c", workflow_id="run")
    assert hangs.wait(5)
    wait_until(
        lambda: any(
            event.type is EventType.WORKFLOW_STEP_COMPLETED and event.data["step"] == "3.told"
            for event in store.read(workflow_id="run")
        )
    )
    first.shutdown(cancel=True)
    with pytest.raises(Cancelled):
        handle.result(5)
    with Runtime(event_stream=EventStream(store), checkpoints=True) as runtime:
        with serving(runtime, workflows={"flow": flow}) as url:
            page.open(url + "#run")
            state(page, "interrupted")
            shown(page, "The run is interrupted")
            chips = "#steps > li > button"
            assert page.texts(chips)[:4] == [
                "split, completed",
                "words 3 of 3 items, completed",
                "join, completed",
                "both, interrupted",
            ]
            assert page.texts("#steps ul button") == ["pays, interrupted", "told, completed"]
            press(page, "Go on")
            state(page, "suspended")
            shown(page, "It waits for an answer")
            page.wait("document.querySelector('#asks-next').textContent === ''")
            assert page.texts(".ask h4") == ["Was pay done?"]
            assert "nobody knows whether it was done" in page.text(".ask .remark")
            press(page, "Make it again")
            shown(page, "It waits for an answer")
            page.wait("document.querySelector('.ask h4').textContent === 'A value for go <b>'")
            assert page.texts("#steps ul button") == ["pays, completed", "told, completed"]
            page.type(".ask textarea", '{"n": 12345678901234567890, "t": "\u00fc"}')
            press(page, "Send")
            state(page, "completed")
            assert "12345678901234567890, 't': '\u00fc'" in page.texts(TEXT)[-1]
            assert page.texts("#cards > .remark") == [
                "It was interrupted. The run goes on.",
                "pay: made again. The run goes on.",
                "go <b>: a value was sent. The run goes on.",
            ]
            assert page.texts(chips)[-2:] == ["go <b>, completed", "str, completed"]
            assert page.texts(".tool .about")[0].startswith("done in ")
            assert page.texts(".card h3").count("clerk pays") == 1


def test_by_keyboard_with_names_and_nothing_of_it_is_html(page: Browser) -> None:  # noqa: F811
    paid: List[Any] = []
    agent = clerk(paid, calls=2)
    with Runtime(checkpoints=True) as runtime, serving(runtime, workflows={"a": agent}) as url:
        runtime.run(agent, "in", workflow_id="run")
        events = runtime.event_stream
        asked: Dict[str, Any] = {"kind": "approval", "agent": EVIL, "step": EVIL, "name": EVIL}
        asked.update(id=EVIL, arguments=json.dumps({EVIL: "\u202egnp.", "\u00fc": []}))
        asked.update(tool_call_id="", expires_at=1.5)
        data = {"workflow": "w", "status": "suspended", "reason": EVIL, "pending": [asked]}
        events.append("workflow_started", "evil", {"workflow": "w", "steps": []})
        events.append("workflow_suspended", "evil", data)
        page.open(url + "#run")
        shown(page, "It waits for an answer")
        page.wait("document.querySelectorAll('.ask').length === 2")
        page.wait("document.querySelector('#runs').textContent.includes('waits for pay')")
        assert not nameless(page)
        levels = page.run(
            "return [...document.querySelectorAll('h1, h2, h3, h4')]"
            ".filter((e) => e.checkVisibility()).map((e) => +e.tagName[1])"
        )
        assert all(after <= before + 1 for before, after in zip(levels, levels[1:])), levels
        page.run("document.querySelector('.ask input').focus()")
        page.press(*"no!", TAB, TAB)
        focused = "return document.activeElement.textContent"
        assert page.run(focused) == "Refuse"
        described = (
            "return document.getElementById("
            "document.activeElement.getAttribute('aria-describedby')).textContent"
        )
        assert page.run(described) == "May clerk call pay?"
        page.press(ENTER)
        page.wait("document.querySelectorAll('.ask').length === 1")
        assert page.run("return document.activeElement.id") in ("main", "asks-title")
        page.wait("document.querySelector('#say').textContent.includes('waits for pay')")
        page.wait("!document.querySelector('.ask button.main').disabled")  # no double click's
        page.run("document.querySelector('.ask button.main').focus()")
        page.press(ENTER)
        state(page, "completed")
        assert paid == [("18", 900)]
        assert "(no!)" in page.texts("#cards > .remark")[0]
        page.open(url + "#evil")
        shown(page, "It waits for an answer")
        page.wait("document.querySelector('.ask').textContent.includes('Too late to answer.')")
        assert page.text("main").count(EVIL) >= 4
        assert "\\u202egnp." in page.text(".ask pre") and "\u00fc" in page.text(".ask pre")
        assert page.run("return document.querySelectorAll('main img, nav img, b b').length") == 0
        assert page.run("return window.hacked") is None


def test_a_call_that_is_said_to_start_again_has_one_place(page: Browser) -> None:  # noqa: F811
    author, calls = {"agent": "a", "step": "0"}, [{"id": n, "name": "pay"} for n in "01"]
    first, other = ({**author, **call, "arguments": "{}"} for call in calls)
    steps = [{"name": "a", "kind": "Agent"}]
    rest = {"workflow": "w", "status": "interrupted", "reason": "a deploy", "pending": []}
    resumed = {"workflow": "w", "reason": "interrupted", "completed": [], "answers": []}
    with Runtime() as runtime:
        events = runtime.event_stream
        for kind, data in (
            ("workflow_started", {"workflow": "w", "steps": steps}),
            ("agent_processing", author),
            ("tool_call_started", first),
            ("tool_call_started", other),
            ("tool_call_completed", {**first, "result": "x", "duration_ms": 1}),
            ("workflow_suspended", rest),
        ):
            events.append(EventType(kind), "run", data)
            if kind == "workflow_started":
                events.store.need_checkpoints().begin("run")
        with serving(runtime) as url:
            page.open(url + "#run")
            state(page, "interrupted")
            assert "Why it rests: a deploy" in page.text("#asks-about")
            assert page.texts(".tool .about") == ["done in 1 ms", "interrupted"]
            log, _ = events.reopen_log("run")
            for kind, data in (
                ("workflow_resumed", resumed),
                ("agent_processing", author),
                ("tool_call_started", other),
                ("tool_call_completed", {**other, "result": "y", "duration_ms": 1}),
            ):
                log.append(EventType(kind), data)
            page.wait("document.querySelectorAll('.tool.completed').length === 2")
            assert page.texts(".tool .about") == ["done in 1 ms", "done in 1 ms"]
            assert page.text("#run-state") == "running"


def nameless(page: Browser) -> Any:  # noqa: F811
    """What a screen reader would have no name for."""
    return page.run(
        "return [...document.querySelectorAll('#asks input, #asks textarea, #asks button, #asks ul,"
        " #asks [role=group]')].filter((e) => {"
        " const by = document.getElementById(e.getAttribute('aria-labelledby'));"
        " const text = (e.labels?.[0] || by || (e.tagName === 'BUTTON' ? e : null))?.textContent;"
        " return !(text || e.getAttribute('aria-label') || '').trim();"
        "}).map((e) => e.outerHTML)"
    )


# --- in processes of their own --------------------------------------------------------------

ASKING = """
path, url, paid = arguments[:3]

@tool
def pay(invoice: str, cents: int) -> str:
    '''Pay an invoice.'''
    with open(paid, "a") as file:
        file.write(f"{invoice} {cents}" + chr(10))
    return f"paid {cents}"

agent = Agent("clerk", client=LlamaClient(url), tools=[pay], approve=lambda call: Approval.later())
order = Workflow("order", [Step(str.upper, name="read"), agent])

def runtime():
    return Runtime(event_stream=EventStream(SqliteStore(path)), checkpoints=True)
"""

FIRST = """
with runtime() as mine:
    run = mine.run(order, "Pay invoice 17", workflow_id="order/17")
    say(run.status, run.pending[0].tool)
agent.client.close()
threads = {thread.name for thread in threading.enumerate()} - {"agentstream-clock"}  # the library's
say("threads", *threads)
"""

THIRD = """
with runtime() as mine:
    say("ready")
    with mine.watch([order], poll_s=0.1):
        while (state := mine.event_stream.store.run("order/17")).status != "completed":
            threading.Event().wait(0.05)
    say(state.output)
"""


def clerical(request: Any) -> Reply:
    """The model of that agent: it pays, and says so."""
    told = [each for each in json.loads(request.body)["messages"] if each["role"] == "tool"]
    if told:
        return Reply(*text_chunks("It is ", told[0]["content"], "."))
    arguments = '{"invoice": "17", "cents": 12345678901234567890}'
    return Reply(*tool_call_chunks(("pay", arguments)))


def test_suspended_in_one_process_answered_on_the_page_of_another_resumed_in_a_third(
    page: Browser,  # noqa: F811
    server: ScriptedServer,
    tmp_path: Any,
) -> None:
    server.route("/v1/chat/completions", clerical)
    log, paid, port = tmp_path / "runs.db", tmp_path / "paid", free_port()
    where = [str(log), server.url, str(paid)]
    with Program(ASKING + FIRST, *where) as first:
        assert first.finish() == 0, first.errors
        assert first.lines == ["suspended pay", "threads MainThread"]
    url = f"http://127.0.0.1:{port}/#order%2F17"
    with serve_apart(log, port) as second:
        page.open(url)
        state(page, "suspended")
        shown(page, "It waits for an answer")
        assert page.texts("#steps > li > button") == ["read, completed", "clerk, suspended"]
        second.send(signal.SIGKILL)
        second.finish()
    page.wait("document.querySelector('#link').className === 'lost'")
    with serve_apart(log, port):
        page.wait("document.querySelector('#link').className === ''")
        assert page.text(".ask h4") == "May clerk call pay?"
        assert page.text(".ask pre") == '{\n  "invoice": "17",\n  "cents": 12345678901234567890\n}'
        assert page.texts(".tool .about") == ["waits for an answer"]
        page.type("#by", "Ann")
        press(page, "Allow")
        page.wait("document.querySelector('#asks-next').textContent.includes('agentstream resume')")
        assert page.texts(".ask button") == []
        assert not page.shown("#resume")
        assert not paid.exists()
        page.reload()  # nobody goes on with it yet, and it is known to be answered
        page.wait("document.querySelector('.ask')?.textContent.includes('Answered.')")
        with Program(ASKING + THIRD, *where) as third:
            third.expect("ready")
            state(page, "completed")
            assert third.finish() == 0, third.errors
            assert third.lines[-1] == "It is paid 12345678901234567890."
        page.wait_text(TEXT, "It is paid 12345678901234567890.")
        assert page.texts("#cards > .remark") == ["pay: allowed by Ann. The run goes on."]
        assert page.texts(".card h3") == ["read", "clerk"]
        assert page.texts(".tool .about")[0].startswith("done in ")
        assert not page.shown(ASKS)
        page.leave()
    assert paid.read_text() == "17 12345678901234567890\n"


DYING = (
    ASKING
    + """
from agentstream.web import create_app
from agentstream.web.server import Server, listen

mine = runtime()
talker = Workflow("talk", [Step(str.upper, name="read"), Agent("talker", client=LlamaClient(url))])
if len(arguments) > 4:
    mine.submit(talker, "go", workflow_id="mortal")
app = create_app(mine, workflows={"talk": talker}, max_streams=6)
with Server(app, listen("127.0.0.1", int(arguments[3]))):
    say("serving")
    threading.Event().wait(60)
"""
)


def test_a_run_whose_process_died_goes_on_and_says_nothing_twice(
    page: Browser,  # noqa: F811
    server: ScriptedServer,
    tmp_path: Any,
) -> None:
    gate, port = Gate(), free_port()
    half = text_chunks("One ", "two ", finish_reason=None, usage=False, done=False)
    server.reply(*half, gate, *text_chunks("three"))
    where = [str(tmp_path / "runs.db"), server.url, "", str(port)]
    with Program(DYING, *where, "begin") as program:
        program.expect("serving")
        page.open(f"http://127.0.0.1:{port}/#mortal")
        page.wait_text(TEXT, "One two ")
        program.send(signal.SIGKILL)
        program.finish()
    gate.open()
    server.reply(*text_chunks("One ", "two ", "three."))
    with Program(DYING, *where) as program:
        program.expect("serving")
        state(page, "interrupted")
        shown(page, "The run is interrupted")
        assert page.texts("#steps > li > button") == ["read, completed", "talker, interrupted"]
        assert page.texts(".card .state")[1] == "interrupted"
        press(page, "Go on")
        state(page, "completed")
        page.wait_text(TEXT, "One two three.")
        assert page.texts(TEXT) == ["GO", "One two three."]
        assert page.texts(".card .remark") == [
            "The run was interrupted in this answer: it is asked for again."
        ]
        page.leave()
