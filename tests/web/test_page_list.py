"""The page's list, keys and figures: runs are found, started and shared by hand or by keyboard."""

from __future__ import annotations

import urllib.parse
from typing import Any, Dict, Iterator, List

import pytest
import requests

from agentstream import Agent, EventStream, EventType, MemoryStore, Runtime, Workflow
from tests.kit.browser import Browser, browser  # noqa: F401
from tests.kit.support import saying
from tests.web.test_page import ENTER, TAB, page, serving, state  # noqa: F401

pytestmark = pytest.mark.browser

ESCAPE, CONTROL = "\ue00c", "\ue009"
NAMES = "return [...document.querySelectorAll('#runs .name')].map((e) => e.textContent)"
COPIES = "navigator.clipboard.writeText = async (text) => { window.copied = text; }"


def append(events: EventStream, run: str, kind: str, /, **data: Any) -> None:
    events.append(EventType(kind), run, data)


@pytest.fixture(scope="module")
def log() -> Iterator[EventStream]:
    """A log of 130 runs: 120 named "daily", some others, one with all that costs."""
    events = EventStream(MemoryStore())
    for number in range(120):
        append(events, f"day-{number}", "workflow_started", workflow="daily", steps=[])
        append(events, f"day-{number}", "workflow_completed", workflow="daily")
    for number in range(5):
        append(events, f"bad-{number}", "workflow_started", workflow="Über-Bericht", steps=[])
        append(events, f"bad-{number}", "workflow_failed", error="E", message="m")
    for number in range(4):
        append(events, f"open-{number}", "workflow_started", workflow="open", steps=[])
    dear(events)
    yield events
    events.close()


def dear(events: EventStream) -> None:
    """A run that was tried again, fell back, and cost something."""
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, "cost": 0.01234}
    author = {"agent": "a", "step": "0"}
    step = {"step": "0", "name": "a", "kind": "Agent"}
    append(
        events, "dear", "workflow_started", workflow="dear", steps=[{"name": "a", "kind": "Agent"}]
    )
    append(events, "dear", "workflow_step_started", **step)
    append(events, "dear", "workflow_step_failed", **step, error="E", will_retry=True, attempt=1)
    append(events, "dear", "workflow_step_started", **step, attempt=2)
    append(events, "dear", "agent_processing", **author)
    append(
        events, "dear", "agent_llm_request_started", **author, provider="x", model="big", round=1
    )
    again = {"attempt": 1, "delay_s": 1.0, "error": "ServerError", "message": "HTTP 503"}
    append(events, "dear", "agent_llm_request_retried", **author, **again)
    other = {"next_provider": "y", "next_model": "small", "provider": "x", "model": "big"}
    append(
        events, "dear", "agent_fallback", **author, **other, error="ServerError", message="HTTP 503"
    )
    append(events, "dear", "agent_llm_stream_chunk", **author, chunk="Hello")
    append(events, "dear", "agent_llm_request_completed", **author, model="small-1", usage=usage)
    append(events, "dear", "agent_completed", **author, usage=usage)
    append(events, "dear", "workflow_step_completed", **step, usage=usage)
    append(events, "dear", "workflow_completed", workflow="dear", usage=usage)


def test_the_list_is_filtered_at_the_server(log: EventStream) -> None:
    def listed(query: str) -> List[str]:
        answer = requests.get(f"{url}workflows?{query}", timeout=5)
        assert answer.status_code == 200
        return [run["workflow_id"] for run in answer.json()["workflows"]]

    with serving(log.store) as url:
        assert len(listed("")) == 100
        assert len(listed("q=DAILY&limit=1000")) == 120
        assert listed("q=daily+day-11&limit=3") == ["day-119", "day-118", "day-117"]
        assert listed("status=failed") == [f"bad-{n}" for n in (4, 3, 2, 1, 0)]
        assert listed("status=failed&status=running&q=open-1&q=x") == ["open-1"]
        assert listed("q=" + urllib.parse.quote("über -3")) == ["bad-3"]
        assert listed("status=failed&q=daily") == []
        assert len(listed("status=&q=+")) == 100
        refused = requests.get(f"{url}workflows?status=odd", timeout=5)
        assert refused.status_code == 400
        assert "interrupted" in refused.json()["error"]["message"]


def test_runs_are_found_and_shown_with_what_they_cost(
    page: Browser,  # noqa: F811
    log: EventStream,
) -> None:
    with serving(log.store) as url:
        page.open(url + "#dear")
        state(page, "completed")
        page.wait("document.querySelector('#finding').checkVisibility()")
        facts = page.text("#run-facts")
        assert "tokens12" in facts and "cost0.0123" in facts
        again, last = page.texts(".card .remark")
        assert again == "Trying again in 1.0 s: HTTP 503"
        assert last == "x big failed: HTTP 503; asking y small"
        card = page.text(".card .facts")
        for fact in ("modelsmall-1", "retries2", "cost0.0123"):
            assert fact in card
        assert page.texts("#steps li") == ["a attempt 2, completed"]
        assert "12 tokens · cost 0.0123" in page.text("#runs a[aria-current]")

        page.type("#find", "uber")
        page.wait("document.querySelector('#none').textContent === 'No run is like that.'")
        page.run("document.querySelector('#find').value = ''")
        page.type("#find", "über")
        page.wait("document.querySelectorAll('#runs li').length === 5")
        assert set(page.run(NAMES)) == {"Über-Bericht"}
        assert "5 runs" in page.text("#say")
        assert page.text("#run-name") == "dear", "the run that is shown stays"
        page.run("document.querySelector('#find').value = ''")
        page.run("document.querySelector('#status').value = 'queued running'")
        page.run("document.querySelector('#status').dispatchEvent(new Event('change'))")
        page.wait("document.querySelectorAll('#runs li').length === 4")
        assert set(page.run(NAMES)) == {"open"}


def test_by_the_keyboard_alone(page: Browser) -> None:  # noqa: F811
    flow = Workflow("echo", [Agent("echo", client=saying("# Good\n\n*evening*"))])
    with Runtime() as runtime, serving(runtime, workflows={"echo": flow}) as url:
        for number in range(3):
            runtime.run(flow, f"in {number}", workflow_id=f"run {number}/ü")
        page.open(url)
        page.wait("document.querySelectorAll('#runs li').length === 3")
        state(page, "completed")
        page.run(COPIES)
        focus = "return document.activeElement.id || document.activeElement.tagName"

        page.press("?")
        assert page.shown("#help") and page.run(focus) == "help-title"
        keys = page.texts("#help dt")
        page.press(ESCAPE)
        assert not page.shown("#help")
        assert {"?", "/", "n", "j", "k", "r", "c", "e", "m"} <= set(keys)

        page.press("j")
        page.wait("document.querySelector('#runs a[aria-current]').href.includes('run%201')")
        page.press("k")
        page.press("c")
        page.wait("window.copied")
        copied = page.run("return window.copied")
        assert copied == url + "#" + urllib.parse.quote("run 2/ü", safe="")
        page.wait("document.querySelector('.md h4')")
        page.press("r")
        page.wait("document.querySelector('.card .text').textContent === '# Good\\n\\n*evening*'")
        page.press("r")
        page.wait("document.querySelector('.card .text em')?.textContent === 'evening'")

        page.press("n")
        assert page.run(focus) == "input"
        for sign in "?jn":  # letters in a field are letters
            page.press(sign)
        assert page.run("return document.querySelector('#input').value") == "?jn"
        page.type("#input", CONTROL + ENTER)
        page.wait("document.querySelectorAll('#runs li').length === 4")
        page.wait("document.querySelector('#run-input-text').textContent === '?jn'")
        state(page, "completed")

        page.run("document.activeElement.blur()")
        page.press("/")
        assert page.run(focus) == "find"
        off(page, focus)
        page.go(copied)  # as another would open it
        page.wait("document.querySelector('#run-input-text').textContent === 'in 2'")


def off(page: Browser, focus: str) -> None:  # noqa: F811
    """The keys can be left alone, by somebody whose voice software types letters."""
    page.run("document.querySelector('#keys').focus()")
    page.press(ENTER)
    assert page.shown("#help")
    page.press(TAB)
    assert page.run(focus) == "keys-on"
    page.press(" ")
    page.press(ESCAPE)
    assert page.run(focus) == "keys", "where it was before"
    page.press("/")
    assert page.run(focus) == "keys"


WIDE = """
return [...document.querySelectorAll('main *, nav *')].filter((e) => e.checkVisibility()
  && !e.closest('.table, #runs') && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 99))
"""
SAMPLE = """# A long heading that has more words than a narrow window takes

A paragraph with **bold**, `code_that_is_long()`, https://example.org/a/very/long/path/to/a/page and
an_endless_word_{0}.

| one | two | three | four | five |
|-----|----:|:-----:|------|------|
| a long cell with words | 2 | 3 | {0} | another one |

```python
def a_long_name_of_a_function(argument_one, argument_two, argument_three): return "{0}"
```

- [a link](https://example.org/path?with=query&and=more)
  - > a quote within
""".format("x" * 90)


def test_it_fits_a_narrow_window_and_its_texts_are_copied(page: Browser) -> None:  # noqa: F811
    events = EventStream()
    author: Dict[str, Any] = {"agent": "writer", "step": "0"}
    append(events, "run", "workflow_started", workflow="report " + "y" * 60, steps=[])
    append(events, "run", "agent_llm_stream_chunk", **author, chunk=SAMPLE)
    with serving(events.store) as url:
        page.open(url + "#run")
        page.wait("document.querySelector('.md table')")
        for width in (360, 320):
            page.size(width, 740)
            assert page.run("return document.documentElement.scrollWidth") <= width
            assert page.run(WIDE) == []
        page.run(COPIES)
        code = SAMPLE.split("```")[1][7:-1]
        for button, copied in ((".code button", code), (".tools .raw + button", SAMPLE)):
            page.run("document.querySelector(arguments[0]).click()", button)
            page.wait("window.copied === arguments[0]", copied)
        page.press("?")
        assert (
            page.run("return document.querySelector('#help').getBoundingClientRect().right") <= 320
        )
        page.press(ESCAPE)
    events.close()


def test_y06_where_tabs_cannot_share_each_has_a_connection_of_its_own(page: Browser) -> None:  # noqa: F811
    # As of a page that is neither TLS nor loopback: there are no locks to choose a leader by.
    source = "Object.defineProperty(navigator, 'locks', { value: undefined })"
    events = EventStream()
    author: Dict[str, Any] = {"agent": "a", "step": "0"}
    append(events, "run", "agent_llm_stream_chunk", **author, chunk="begun ")
    with Runtime(event_stream=events) as runtime, serving(runtime) as url:
        added = page.cdp("Page.addScriptToEvaluateOnNewDocument", source=source)
        page.open(url + "#run")
        page.wait_text(".card .text", "begun ")
        append(events, "run", "agent_llm_stream_chunk", **author, chunk="and gone on with")
        page.wait_text(".card .text", "begun and gone on with")
        for cost in (0.25, 0.5):  # told while it runs
            usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": cost}
            append(events, "run", "agent_llm_request_completed", **author, usage=usage)
        page.wait("document.querySelector('#run-facts').textContent.includes('tokens6cost0.75')")
        page.cdp("Page.removeScriptToEvaluateOnNewDocument", identifier=added["identifier"])
