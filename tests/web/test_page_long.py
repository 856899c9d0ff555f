"""Long texts on the page: frames a second while they stream in, and the reader's place in them."""

from __future__ import annotations

import pytest

from agentstream import EventStream, EventType, Runtime
from stress.page_frames import measure
from tests.kit.browser import Browser, browser  # noqa: F401
from tests.web.test_page import page, serving  # noqa: F401

pytestmark = pytest.mark.browser


def test_what_streams_in_leaves_time_for_thirty_frames_a_second(page: Browser) -> None:  # noqa: F811
    found = measure(
        page, "mixed", 2**17, seconds=0.3, delta=256
    )  # a megabyte: stress/page_frames.py
    # Of the processor's time: others that have the machine's cores cost frames, too.
    assert found["a frame's work, ms"] < 1000 / 30, found
    assert found["at the end"], found


def test_who_reads_a_long_text_stays_where_he_is(page: Browser) -> None:  # noqa: F811
    events = EventStream()
    text = "".join(f"line {number} of *many*\n\n" for number in range(10_000))
    author = {"agent": "a", "step": "0"}

    def say(chunk: str) -> None:
        events.append(EventType.AGENT_LLM_STREAM_CHUNK, "long", {**author, "chunk": chunk})

    for at in range(0, len(text), 4096):
        say(text[at : at + 4096])
    with Runtime(event_stream=events) as runtime, serving(runtime) as url:
        page.open(url + "#long")
        page.wait("document.querySelectorAll('.md p').length === 10000")
        page.wait(
            "scrollY > 100000 && scrollY >= document.documentElement.scrollHeight - innerHeight - 1"
        )
        say("a last one\n\n" * 20)
        page.wait("document.querySelectorAll('.md p').length === 10020")
        page.wait("scrollY >= document.documentElement.scrollHeight - innerHeight - 1")
        at_hand = "return document.elementFromPoint(600, 500).textContent.slice(0, 20)"
        page.run("document.querySelectorAll('.md p')[8000].scrollIntoView()")
        page.wait("document.querySelector('#latest').checkVisibility()")
        page.wait("document.elementFromPoint(600, 500).tagName === 'P'")
        read = page.run(at_hand)
        assert read.startswith("line 80"), read
        say("and one more\n\n" * 50)
        page.wait("document.querySelectorAll('.md p').length === 10070")
        assert page.run(at_hand) == read
        page.click("#latest")
        page.wait("scrollY >= document.documentElement.scrollHeight - innerHeight - 1")
        page.press("r")
        page.wait(
            "document.querySelector('.card .text').textContent.startsWith(arguments[0])", text
        )
        page.press("r")
        page.wait("document.querySelectorAll('.md p').length === 10070")
