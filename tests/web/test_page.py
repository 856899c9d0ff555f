"""The live page in a real Chromium: what it shows, what it survives, who can use it."""

from __future__ import annotations

import contextlib
import json
import re
import signal
from typing import Any, Dict, Iterator, List

import pytest
import requests

from agentstream import (
    Agent,
    Cancelled,
    EventType,
    Map,
    Parallel,
    Repeat,
    Runtime,
    Step,
    Workflow,
    tool,
)
from agentstream.events.sqlite import SqliteStore
from agentstream.events.store import MemoryStore
from agentstream.events.stream import EventStream
from agentstream.testing import Gate, Reply, ScriptedServer, text_chunks
from agentstream.testing.pieces import chat_chunk
from agentstream.web import create_app
from agentstream.web.server import Server, listen
from tests.kit.browser import Browser, browser  # noqa: F401
from tests.kit.programs import Program
from tests.kit.support import client_of, free_port, saying, wait_until

pytestmark = pytest.mark.browser

TAB, ENTER = "\ue004", "\ue007"
EVIL = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>&amp;<b>bold</b>"
TEXT = ".card .text"


@pytest.fixture
def page(browser: Browser) -> Iterator[Browser]:  # noqa: F811
    """The browser, at no page; what the page did must have been allowed, and no mistake."""
    browser.size(1200, 800)
    yield browser
    wrong = re.compile("Content Security Policy|Uncaught|Error:|Trusted")
    faults = [line for line in browser.log() if wrong.search(line)]
    browser.leave()  # or it would look for its server
    assert faults == []


@contextlib.contextmanager
def serving(source: Any, token: Any = None, **settings: Any) -> Iterator[str]:
    """The app under waitress; gives the page's address."""
    settings.setdefault("max_streams", 6)
    app = create_app(source, token, heartbeat=1.0, **settings)
    with Server(app, listen("127.0.0.1", 0)) as server:
        yield server.url + "/"


def words(count: int, mark: str = "w") -> List[str]:
    return [f"{mark}{n} " for n in range(count)]


def scripted(server: ScriptedServer, texts: List[str], *gates: Gate) -> None:
    """Queue an answer that stops at each gate, at even distances."""
    pieces: List[Any] = list(text_chunks(*texts))
    step = len(texts) // (len(gates) + 1)
    for number, gate in reversed(list(enumerate(gates, 1))):
        pieces.insert(number * step + 1, gate)
    server.reply(*pieces)


def state(page: Browser, status: str) -> None:
    page.wait("document.querySelector('#run-state').textContent === arguments[0]", status)


# --- what it shows --------------------------------------------------------------------------


def test_a_run_streams_in_and_a_reload_in_mid_run_loses_and_repeats_nothing(
    page: Browser, server: ScriptedServer
) -> None:
    said = words(600)
    first, second = Gate(), Gate()
    scripted(server, said, first, second)
    scripted(server, ["It ", "ends."])
    client = client_of(server)
    agents = [Agent(name, client=client) for name in ("greeter", "closer")]
    page.size(900, 320)
    with client, Runtime() as runtime, serving(runtime) as url:
        handle = runtime.submit(Workflow("tides", agents), "go")
        page.open(url)  # the newest run is chosen by itself
        page.wait_text(TEXT, "".join(said[:200]))
        assert page.text("#run-name") == "tides"
        assert page.text(".card .state") == "writing"
        assert page.run("return location.hash") == f"#{handle.workflow_id}"
        assert page.run("return scrollY") > 0, "it follows what is new"
        page.run("scrollTo(0, 40)")
        page.wait("document.querySelector('#latest').checkVisibility()")

        page.reload()
        page.wait_text(TEXT, "".join(said[:200]))
        page.wait("scrollY === 40")
        first.open()
        page.wait_text(TEXT, "".join(said[:400]))
        page.run("sessionStorage.setItem('mark', scrollY)")
        assert page.run("return scrollY") == 40, "it stays where its reader is"
        page.click("#latest")
        page.wait("scrollY > 200")

        second.open()
        state(page, "completed")
        page.wait_text(TEXT, "It ends.")
        assert page.texts(TEXT) == ["".join(said), "It ends."]
        assert page.texts(".card h3") == ["greeter", "closer"]
        assert page.texts("#steps li") == ["greeter, completed", "closer, completed"]
        facts = page.text(".card:first-child .facts")
        assert re.search(r"first token\S.*tokens/s[\d,.]+tokens600$", facts)
        assert not page.shown("#stop")
        assert "completed" in page.text("#say")
        page.wait(
            "document.querySelector('#runs a[aria-current=page]').textContent.includes('completed')"
        )
        assert handle.result(5).status == "completed"


def test_reasoning_and_tool_calls_can_be_opened(page: Browser, server: ScriptedServer) -> None:
    @tool
    def weather(city: str) -> Dict[str, str]:
        """The weather."""
        if city == "Atlantis":
            raise LookupError("it has sunk")
        return {"city": city, "sky": "clear"}

    server.reply(
        *[chat_chunk({"reasoning_content": text}) for text in ("I must ", "look it up.")],
        chat_chunk(
            {
                "tool_calls": [
                    {
                        "index": n,
                        "id": f"call_{n}",
                        "type": "function",
                        "function": {"name": "weather", "arguments": f'{{"city": "{city}"}}'},
                    }
                    for n, city in enumerate(("Rome", "Atlantis"))
                ]
            }
        ),
        *text_chunks(finish_reason="tool_calls")[1:],
    )
    server.reply_text("Clear ", "sky.")
    client = client_of(server)
    with client, Runtime() as runtime, serving(runtime) as url:
        runtime.run(Agent("scout", client=client, tools=[weather]), "go")
        page.open(url)
        state(page, "completed")
        assert page.texts(".reasoning .text") == ["I must look it up."]
        assert not page.shown(".reasoning .text")
        page.click(".reasoning summary")
        assert page.shown(".reasoning .text")
        good, bad = page.texts(".tool summary")
        assert good.startswith('weather {"city": "Rome"} done in ')
        assert bad.startswith('weather {"city": "Atlantis"} failed in ')
        assert '"sky": "clear"' in page.text(".tool.completed")
        assert "it has sunk" in page.text(".tool.failed")
        assert page.texts(".body > .text") == ["Clear sky."]


def test_steps_that_run_side_by_side_keep_their_text_apart(page: Browser) -> None:
    stream = EventStream()
    left, right = ({"agent": "twin", "step": "1.0"}, {"agent": "twin", "step": "1.1"})
    other = {"agent": "other", "step": "1.1"}
    for author in (left, right, other):
        stream.append(EventType.AGENT_PROCESSING, "side", author)
    for n in range(50):
        for author, mark in ((left, "l"), (right, "r"), (other, "o")):
            stream.append(
                EventType.AGENT_LLM_STREAM_CHUNK, "side", {**author, "chunk": f"{mark}{n} "}
            )
    with serving(stream.store) as url:
        page.open(url + "#side")
        page.wait_text(TEXT, "".join(words(50, "o")))
        assert page.texts(TEXT) == ["".join(words(50, mark)) for mark in "lro"]
        assert page.texts(".card h3") == ["twin", "twin", "other"]
    stream.close()


def test_branches_stream_at_once_each_under_its_name(page: Browser, server: ScriptedServer) -> None:
    gates: Dict[str, Gate] = {}

    def answer(request: Any) -> Reply:
        name = json.loads(request.body)["messages"][0]["content"]
        if name == "tone" and "tone" not in gates:
            gates["tone"] = Gate()
            half = text_chunks("half ", "of it", finish_reason=None, usage=False, done=False)
            return Reply(*half)
        gates[name] = gate = Gate()
        chunks: List[Any] = list(text_chunks(*words(20, name)))
        return Reply(*chunks[:11], gate, *chunks[11:])

    server.route("/v1/chat/completions", answer)
    with client_of(server) as client:
        agents = {
            name: Agent("critic", client=client, system_prompt=name)
            for name in ("facts", "tone", "names")
        }
        inner = Workflow("inner", [Agent("editor", client=saying("Good."))])
        branches = {**agents, "tone": Step(agents["tone"], retries=1)}
        again = Repeat([Agent("writer", client=saying("Dear"))], at_most=2)
        lines = Map(Agent("liner", client=saying("So.")), at_most=1, name="lines")
        steps = [Parallel(branches, name="study"), inner, again, str.split, lines]
        workflow = Workflow("letter", steps)
        with Runtime() as runtime, serving(runtime) as url:
            handle = runtime.submit(workflow, "go")
            page.open(url + "#" + handle.workflow_id)
            for name in agents:  # all of them write, and none has ended
                page.wait_text(TEXT, "".join(words(10, name)))
            assert page.texts(".card .state").count("writing") == 3
            before = page.texts(".card h3")
            assert sorted(before) == [
                "critic facts",
                "critic names",
                "critic tone",
                "critic tone attempt 2",
            ]
            assert before.index("critic tone attempt 2") == before.index("critic tone") + 1
            assert page.texts(".void .text") == ["half of it"]
            assert page.texts(".void .state") == ["attempt 1 failed, tried again"]
            for gate in gates.values():
                gate.open()
            state(page, "completed")
            handle.result(5)
            check_ended(page, before, agents)


def check_ended(page: Browser, before: List[str], names: Any) -> None:
    """Cards in their places, chips for the run's own steps, the ways to the inner run and back."""
    after = page.texts(".card h3")
    rounds = ["writer round 1", "writer round 2"]
    assert after == [*before, "inner", *rounds, "split", "liner item 1"]
    for name in names:
        page.wait_text(TEXT, "".join(words(20, name)))
    assert page.texts("#steps > li > button") == [
        "study, completed",
        "inner, completed",
        "repeat round 2, completed",
        "split, completed",
        "lines 1 of 1 items, completed",
    ]
    assert sorted(page.texts("#steps ul button")) == [
        "facts, completed",
        "names, completed",
        "tone attempt 2, completed",
    ]
    page.click(".card h3 a")
    page.wait_text(TEXT, "Good.")
    assert page.text("#run-name") == "inner"
    page.wait("document.querySelector('#run-facts a').textContent === 'letter'")
    page.click("#run-facts a")
    page.wait("document.querySelector('#run-name').textContent === 'letter'")
    page.wait_text(TEXT, "".join(words(20, "facts")))
    assert page.texts(".card h3") == after, "and so after the events are read again"


def test_what_is_gone_from_the_log_is_told(page: Browser) -> None:
    stream = EventStream(MemoryStore(capacity=10))
    for text in words(30):
        data = {"agent": "a", "step": "0", "chunk": text}
        stream.append(EventType.AGENT_LLM_STREAM_CHUNK, "long", data)
    with serving(stream.store) as url:
        page.open(url + "#long")
        page.wait_text(TEXT, "".join(words(30)[20:]))
        assert page.text("#cards > .remark") == "20 earlier events are gone from the log."
        page.open(url + "#nowhere")
        page.wait_text("#note", "This server knows no such run.")
    stream.close()


def test_a_cut_answer_is_told_of_in_its_card_and_at_the_head(
    page: Browser, server: ScriptedServer
) -> None:
    server.reply(*text_chunks("half an", finish_reason="length"))
    with client_of(server) as client, Runtime() as runtime, serving(runtime) as url:
        runtime.run(Agent("poet", client=client), "x", workflow_id="cut")
        page.open(url + "#cut")
        state(page, "completed")
        remark = "the answer was cut: finish_reason length"
        page.wait_text("#run-problem.mild", f"poet: {remark}")
        assert page.texts(".card .remark") == [remark]


def test_model_text_is_shown_as_text(page: Browser) -> None:
    stream = EventStream()
    author = {"agent": EVIL, "step": "0"}
    call = {"id": "1", "name": EVIL, "arguments": EVIL}
    for kind, data in (
        ("workflow_started", {"workflow": EVIL, "steps": [{"name": EVIL, "kind": "Agent"}]}),
        ("agent_processing", author),
        ("agent_llm_reasoning_chunk", {**author, "chunk": EVIL}),
        ("agent_llm_stream_chunk", {**author, "chunk": EVIL[:20]}),
        ("agent_llm_stream_chunk", {**author, "chunk": EVIL[20:]}),
        ("tool_call_started", {**author, **call}),
        ("tool_call_completed", {**author, **call, "result": EVIL, "duration_ms": 1}),
        ("system_warning", {**author, "message": EVIL}),
        ("agent_failed", {**author, "error": "ToolError", "message": EVIL}),
        ("workflow_failed", {"workflow": EVIL, "error": "ToolError", "message": EVIL}),
    ):
        stream.append(EventType(kind), "evil", data)
    with serving(stream.store) as url:
        page.open(url + "#evil")
        state(page, "failed")
        page.wait_text(TEXT, EVIL)
        assert page.text("main").count(EVIL) >= 8
        page.wait("document.querySelector('#runs .name').textContent === arguments[0]", EVIL)
        count = "return document.querySelectorAll(arguments[0]).length"
        assert page.run(count, "main img, nav img, b b") == 0
        assert page.run(count, "script") == 1
        assert page.run("return window.hacked") is None
    stream.close()


# --- what the reader does -------------------------------------------------------------------


def test_the_button_stops_the_run(page: Browser, server: ScriptedServer) -> None:
    gate = Gate()
    scripted(server, words(40), gate)
    client = client_of(server)
    with client, Runtime() as runtime, serving(runtime) as url:
        handle = runtime.submit(Agent("talker", client=client), "go")
        page.open(url + "#" + handle.workflow_id)
        page.wait_text(TEXT, "".join(words(20)))
        page.click("#stop")
        with pytest.raises(Cancelled) as stopped:
            handle.result(5)
        assert stopped.value.run.output == "".join(words(20))
        state(page, "cancelled")
        assert page.texts(TEXT) == ["".join(words(20))]
        assert page.text(".card .state") == "cancelled"
        assert "cancelled" in page.text("#say")
        assert server.wait_client_gone()
    gate.open()


def test_with_a_token_it_asks_for_it_and_then_starts_a_run(page: Browser) -> None:
    workflow = Workflow("echo", [Agent("echo", client=saying("Good ", "evening."))])
    known = {"echo": workflow}
    with Runtime() as runtime, serving(runtime, "a-good-token", workflows=known) as url:
        page.open(url)
        page.wait("document.querySelector('#login').checkVisibility()")
        assert page.run("return document.activeElement.id") == "token"
        page.type("#token", "a-bad-token")
        page.press(ENTER)
        page.wait_text("#login-problem", "That is not the token.")
        page.run("document.querySelector('#token').value = ''")
        page.type("#token", "a-good-token")
        page.press(ENTER)
        page.wait("document.querySelector('#starting').checkVisibility()")
        assert not page.shown("#login")
        assert page.run("return document.cookie + localStorage.length") == "0"  # HttpOnly
        page.type("#input", "Hello")
        page.click("#start button")
        state(page, "completed")
        assert page.texts(TEXT) == ["Good evening."]
        page.reload()
        page.wait_text(TEXT, "Good evening.")


# --- what it survives -----------------------------------------------------------------------

SERVING = """
from agentstream.events.stream import EventStream
from agentstream.events.sqlite import SqliteStore
from agentstream.web import create_app
from agentstream.web.server import Server, listen

path, port = arguments[0], int(arguments[1])
store = SqliteStore(path)
source = store
if len(arguments) > 2:
    runtime = source = Runtime(event_stream=EventStream(store))
    client = LlamaClient(arguments[2])
    runtime.submit(Agent("talker", client=client), "go", workflow_id="mortal")
with Server(create_app(source, max_streams=6), listen("127.0.0.1", port)):
    say("serving")
    threading.Event().wait(60)
"""


def serve_apart(*arguments: Any) -> Program:
    program = Program(SERVING, *map(str, arguments))
    program.expect("serving")
    return program


def test_the_server_killed_and_started_again_and_the_page_goes_on(
    page: Browser, server: ScriptedServer, tmp_path: Any
) -> None:
    said, port = words(60), free_port()
    first, second = Gate(), Gate()
    scripted(server, said, first, second)
    client = client_of(server, stall=30.0)  # while a server starts on a busy machine
    store = SqliteStore(tmp_path / "runs.db")
    with client, Runtime(event_stream=EventStream(store)) as runtime:
        handle = runtime.submit(Agent("talker", client=client), "go")
        with serve_apart(tmp_path / "runs.db", port) as program:
            page.open(f"http://127.0.0.1:{port}/#{handle.workflow_id}")
            page.wait_text(TEXT, "".join(said[:20]))
            program.send(signal.SIGKILL)
            program.finish()
        page.wait("document.querySelector('#link').className === 'lost'")
        first.open()  # the run goes on meanwhile
        with serve_apart(tmp_path / "runs.db", port):
            page.wait_text(TEXT, "".join(said[:40]))
            page.wait("document.querySelector('#link').className === ''")
            page.click("#stop")  # asked of another process than the one that runs it
            state(page, "cancelled")
            assert page.texts(TEXT) == ["".join(said[:40])]
            wait_until(handle.done)
            page.leave()
    second.open()
    store.close()


def test_a_run_that_died_with_its_server_is_shown_as_failed(
    page: Browser, server: ScriptedServer, tmp_path: Any
) -> None:
    gate, port = Gate(), free_port()
    scripted(server, words(40), gate)
    with serve_apart(tmp_path / "runs.db", port, server.url) as program:
        page.open(f"http://127.0.0.1:{port}/#mortal")
        page.wait_text(TEXT, "".join(words(20)))
        program.send(signal.SIGKILL)
        program.finish()
    gate.open()
    with serve_apart(tmp_path / "runs.db", port):
        state(page, "failed")
        assert page.texts(TEXT) == ["".join(words(20))]
        assert page.text(".card .state") == "failed"
        assert "died" in page.text("#run-problem") or "interrupted" in page.text("#run-problem")
        page.leave()


def test_an_http_error_on_the_stream_is_tried_again(page: Browser) -> None:
    stream = EventStream()
    for text in words(3):
        data = {"agent": "a", "step": "0", "chunk": text}
        stream.append(EventType.AGENT_LLM_STREAM_CHUNK, "busy", data)
    with serving(stream.store, max_streams=1) as url:
        with requests.get(url + "events/stream", stream=True) as only:
            assert only.status_code == 200
            page.open(url + "#busy")
            page.wait("document.querySelector('#link').textContent.includes('refused')")
            assert page.texts(TEXT) == []
        page.wait_text(TEXT, "".join(words(3)))
    stream.close()


def test_y06_the_ninth_tab_loads_too(page: Browser) -> None:
    # A browser opens six connections to a server, all tabs together.
    events = EventStream()
    for run in range(4):
        chunk(events, f"run-{run}", "begun ")
    with serving(events.store, max_streams=12) as url:
        page.open(url + "#run-0")
        first = page.tabs()[0]
        for number in range(1, 9):
            page.new_tab()
            page.go(f"{url}#run-{number % 4}")
        for tab in page.tabs():
            page.switch(tab)
            page.wait_text(TEXT, "begun ")
        for run in range(4):
            for word in ("and ", "on ", "it ", "goes"):
                chunk(events, f"run-{run}", word)
        for tab in page.tabs():
            page.switch(tab)
            page.wait_text(TEXT, "begun and on it goes")
        # The leader goes: another tab takes its place, and nothing is lost.
        page.switch(first)
        page.close_tab()
        for run in range(4):
            chunk(events, f"run-{run}", "!")
        for tab in page.tabs():
            page.switch(tab)
            page.wait_text(TEXT, "begun and on it goes!")
        for tab in page.tabs()[1:]:
            page.switch(tab)
            page.close_tab()
        page.switch(page.tabs()[0])
        for run in range(4):
            chunk(events, f"run-{run}", "?")
        page.wait_text(TEXT, "begun and on it goes!?")
    events.close()


def chunk(events: EventStream, run: str, text: str) -> None:
    data = {"agent": "a", "step": "0", "chunk": text}
    events.append(EventType.AGENT_LLM_STREAM_CHUNK, run, data)


# --- who can use it -------------------------------------------------------------------------


@pytest.fixture
def shown(page: Browser) -> Iterator[Browser]:
    """The page with a run, a form, and an endless word."""
    workflow = Workflow("demo", [Agent("talker", client=saying("Hello ", "x" * 2000))])
    with Runtime() as runtime, serving(runtime, workflows={"demo": workflow}) as url:
        runtime.run(workflow, "go")
        page.open(url)
        state(page, "completed")
        page.wait("document.querySelector('#starting').checkVisibility()")
        yield page
        page.leave()


def test_everything_has_a_name_and_a_place(shown: Browser) -> None:
    nameless = """
    return [...document.querySelectorAll('input:not([hidden]), select, textarea, button, a, nav,'
      + ' section, form, ul, ol')].filter((e) => {
        const by = e.getAttribute('aria-labelledby');
        const label = e.labels?.[0] || (by && document.getElementById(by));
        const name = label ? label.textContent : e.getAttribute('aria-label')
          || (/^(BUTTON|A)$/.test(e.tagName) ? e.textContent : '');
        return !name.trim() && !['FORM'].includes(e.tagName) && e.id !== 'steps';
      }).map((e) => e.outerHTML.slice(0, 120))
    """
    assert shown.run(nameless) == []
    assert shown.run("return document.documentElement.lang") == "en"
    count = "return document.querySelectorAll(arguments[0]).length"
    for landmark in ("main", "nav[aria-label]", "body > header", "h1"):
        assert shown.run(count, landmark) == 1, landmark
    ids = shown.run("return [...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    levels = shown.run(
        "return [...document.querySelectorAll('h1, h2, h3, h4')]"
        ".filter((e) => e.checkVisibility()).map((e) => +e.tagName[1])"
    )
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:])), levels
    # States are read aloud; the text that streams is not, token by token.
    assert shown.run("return document.querySelector('#say').ariaLive") == "polite"
    assert shown.run(count, "[aria-live] .text, [role=status] .text, [role=log] .text") == 0


def test_the_keyboard_reaches_everything(shown: Browser) -> None:
    shown.run("document.activeElement.blur()")
    reached = []
    for _ in range(12):
        shown.press(TAB)
        reached.append(
            shown.run(
                "const e = document.activeElement; const s = getComputedStyle(e);"
                "return [e.id || e.tagName, s.outlineStyle !== 'none' && s.outlineWidth !== '0px']"
            )
        )
    names = [name for name, _ in reached]
    assert names[0] == "skip"
    assert {"workflow", "input", "A"} <= set(names)
    assert all(ring for name, ring in reached if name not in ("BODY", "HTML")), reached
    shown.run("document.querySelector('#skip').focus()")
    shown.press(ENTER)
    assert shown.run("return document.activeElement.id") == "main"
    assert shown.run("return location.hash") != "#"


def test_narrow_screens_and_both_schemes(shown: Browser) -> None:
    shown.size(320, 640)
    assert shown.run("return document.documentElement.scrollWidth") <= 320
    assert shown.shown("#stop, #run-name") and shown.shown("#runs a")
    seen = set()
    for scheme in ("light", "dark"):
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        shown.cdp("Emulation.setEmulatedMedia", features=media)
        colours = shown.run(
            "const s = getComputedStyle(document.documentElement);"
            "return Object.fromEntries(arguments[0].map((n) => [n, s.getPropertyValue('--' + n)]))",
            [
                "ground",
                "card",
                "inset",
                "ink",
                "soft",
                "accent",
                "on-accent",
                "good",
                "bad",
                "stopped",
            ],
        )
        seen.add(colours["ground"])
        for ink in ("ink", "soft", "accent", "good", "bad", "stopped"):
            for ground in ("ground", "card", "inset"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (scheme, ink, ground)
        assert contrast(colours["on-accent"], colours["accent"]) >= 4.5
    shown.cdp("Emulation.setEmulatedMedia", features=[])
    assert len(seen) == 2


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2, 1 to 21, of two "#rgb" colours."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    digits = colour.strip().lstrip("#")
    if len(digits) == 3:
        digits = "".join(digit * 2 for digit in digits)
    parts = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


# --- what it is made of ---------------------------------------------------------------------


def test_it_is_one_file_that_its_policy_allows_and_knows_every_event() -> None:
    with Runtime() as runtime, serving(runtime) as url:
        answer = requests.get(url)
    policy = answer.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == 2
    assert "default-src 'none'" in policy
    text = answer.content.decode()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\bstyle=", text)
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", text)
    (listed,) = re.findall(r"const TYPES = \[(.*?)\]", text, re.DOTALL)
    assert re.findall(r"'(\w+)'", listed) == [kind.value for kind in EventType]
    assert len(answer.content) < 150_000
