"""Hostile texts in every place of the page: nothing of them runs, and nothing loads."""

from __future__ import annotations

import json
import urllib.parse
from typing import Any, Callable, Iterable, List

import pytest

from agentstream import EventType, Runtime, Wait, Workflow
from agentstream.web import create_app
from agentstream.web.app import App
from agentstream.web.server import Server, listen
from tests.kit.browser import Browser, browser  # noqa: F401
from tests.kit.hostile import hostile
from tests.web.test_page import page  # noqa: F401

pytestmark = pytest.mark.browser

#: Before the page's own script: what notes that something ran, or that the policy had to stop it.
WATCH = """
window.seen = [];
for (const name of ['hit', 'alert', 'open']) window[name] = () => window.seen.push(name);
document.addEventListener('securitypolicyviolation', (event) =>
  window.seen.push(`${event.effectiveDirective} ${event.blockedURI}`));
"""
#: Ids that no text of a model may have given to an element, and elements that the page never makes.
STRANGE = (
    "script:not(body > script:last-of-type), img, image, picture, video, audio, source, iframe, object,"
    " embed, applet, frame, svg, math, base, meta[http-equiv], link:not([rel=icon]), style:not(head style),"
    " form:not(#start, #login, #finding), main [style], a[href^=javascript], a[ping], main [name], template, slot"
)
HANDLERS = """
return [...document.querySelectorAll('*')].flatMap((e) => e.getAttributeNames())
  .filter((name) => name.startsWith('on') || name === 'srcdoc' || name === 'formaction')
"""
LINKS = """
return [...document.querySelectorAll('a[target]')].map((a) =>
  [a.href, a.rel, a.textContent, a.querySelector('.target')?.title || ''])
"""


class Noting:
    """An app that notes the paths it is asked for."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.max_streams = app.max_streams
        self.paths: List[str] = []

    def __call__(self, environ: Any, start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.paths.append(environ["PATH_INFO"])
        return self.app(environ, start_response)

    def close(self, wait: float = 0.0) -> bool:
        return self.app.close(wait)


def say_everywhere(events: Any, run: str, texts: List[str]) -> None:
    """Events of a run that have the texts in each of their places."""
    steps = [{"name": text, "kind": text} for text in texts[:20]]
    for kind, data in [("workflow_started", {"workflow": "\n".join(texts), "steps": steps})]:
        events.append(EventType(kind), run, data)
    for number, text in enumerate(texts):
        author = {"agent": text, "step": str(number)}
        call = {"id": text, "name": text, "arguments": json.dumps({text: text})}
        raw = {**call, "id": "2", "arguments": text}
        fall = {"provider": text, "model": text, "next_provider": text, "next_model": text}
        for kind, data in (
            ("agent_processing", author),
            ("agent_llm_reasoning_chunk", {**author, "chunk": text}),
            ("agent_llm_stream_chunk", {**author, "chunk": text[: number % 9]}),
            ("agent_llm_stream_chunk", {**author, "chunk": text[number % 9 :]}),
            ("agent_llm_request_retried", {**author, "attempt": 1, "error": text, "message": text}),
            ("agent_fallback", {**author, **fall, "error": text, "message": text}),
            ("tool_call_started", {**author, **call}),
            ("tool_call_completed", {**author, **call, "result": text, "duration_ms": 1}),
            ("tool_call_started", {**author, **raw}),
            ("tool_call_failed", {**author, **raw, "error": text, "message": text}),
            ("system_warning", {**author, "message": text}),
            ("agent_failed", {**author, "error": text, "message": text}),
        ):
            events.append(EventType(kind), run, data)
    everything = "\n\n".join(texts)
    end = {"workflow": everything, "error": everything, "message": everything}
    events.append(EventType.WORKFLOW_FAILED, run, end)


def test_nothing_runs_and_nothing_loads(page: Browser) -> None:  # noqa: F811
    with Runtime(checkpoints=True) as runtime:
        app = Noting(
            create_app(
                runtime, max_streams=6, workflows={"<b onclick=hit()>": Workflow("w", [str])}
            )
        )
        with Server(app, listen("127.0.0.1", 0)) as server:  # type: ignore[arg-type]
            texts = hostile(server.url)
            assert len(texts) >= 200
            for number, text in enumerate(texts):
                data = {"workflow": text, "steps": []}
                runtime.event_stream.append(
                    EventType.WORKFLOW_STARTED, f"{number} {text}"[:200], data
                )
            say_everywhere(runtime.event_stream, "all", texts)
            asks = Workflow("asks", [str, Wait("<img src=x onerror=hit()>")])
            runtime.run(asks, "\n\n".join(texts), workflow_id="asks")
            watch = page.cdp("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
            try:
                look(page, server.url, texts)
            finally:
                page.cdp("Page.removeScriptToEvaluateOnNewDocument", identifier=watch["identifier"])
            asked = {path for path in app.paths if path not in ("/", "/favicon.ico")}
            assert {path.split("/")[1] for path in asked} <= {"workflows", "events"}, asked


def look(page: Browser, url: str, texts: List[str]) -> None:  # noqa: F811
    """Visit the runs, open and toggle all there is, and see what came of it."""
    page.open(f"{url}/#all")
    page.wait("document.querySelectorAll('.card').length >= arguments[0]", len(texts))
    page.wait("document.querySelector('#run-state').textContent === 'failed'")
    page.wait("document.querySelectorAll('#runs li').length === 100")
    page.click("#more")
    page.wait("document.querySelectorAll('#runs li').length > arguments[0]", len(texts))
    page.run("for (const e of document.querySelectorAll('details')) e.open = true")
    inspect(page)
    links = page.run(LINKS)
    assert len(links) > 50
    for href, rel, text, _ in links:
        assert urllib.parse.urlsplit(href).scheme in ("http", "https", "mailto"), href
        assert rel == "noopener noreferrer nofollow"
        assert href in text or href.rstrip("/") in text or "…" in text, (href, text)
    page.run("for (const e of document.querySelectorAll('button.raw')) e.click()")
    shown = "[...document.querySelectorAll('.body > .text')].map((e) => e.textContent)"
    page.wait(f"{shown}.join('') === arguments[0]", "".join(texts))
    inspect(page)
    page.run("location.hash = arguments[0]", urllib.parse.quote("<img src=x onerror=hit()>"))
    page.wait("document.querySelector('#note').textContent.includes('no such run')")
    page.run("location.hash = 'asks'")
    page.wait("document.querySelector('.ask')?.checkVisibility()")
    inspect(page)
    # It would have been seen: an image that the policy forbids is.
    page.run("document.body.append(Object.assign(new Image(), { src: '/loaded' }))")
    page.wait("window.seen.some((each) => each.startsWith('img-src'))")
    page.log()


def inspect(page: Browser) -> None:  # noqa: F811
    assert page.run("return window.seen") == []
    assert (
        page.run(f"return [...document.querySelectorAll({STRANGE!r})].map((e) => e.outerHTML)")
        == []
    )
    assert page.run(HANDLERS) == []
    loaded = page.run("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert [name for name in loaded if "/loaded" in name] == []
