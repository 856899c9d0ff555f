"""Frames a second of the page while a megabyte of markdown streams in, in headless Chromium.

    python -m stress.page_frames [--bytes 1048576] [--seconds 10] [--kinds mixed,code]

For each kind of text: prints frames a second (requestAnimationFrame), the longest time between two
frames, the share of frames that came later than 50 ms, the processor's time that a frame took the
page's thread, and how long it took until all of the text was shown. Fails below 30 frames a second,
or if the page does not show the whole text.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import threading
import time
from typing import Any, Callable, Dict, List

from agentstream import EventStream, EventType, MemoryStore, Runtime
from agentstream.web import create_app
from agentstream.web.server import Server, listen
from tests.kit.browser import Browser

_LEAST = 30.0  # frames a second
_DELTA = 24  # characters
_PATIENCE = 120.0
_WORDS = "the tide comes in and *goes* out, as **it** must; see `tide(x)` and so on "


def _mixed(n: int) -> str:
    item = f"- item {n}: {_WORDS}\n  - within it\n  - [more](https://example.org/{n})\n"
    table = "\n| a | b |\n|---|--:|\n" + f"| {n} | {_WORDS} |\n" * 4
    code = f"\n```python\ndef f{n}(x):\n    return x + {n}\n```\n"
    return f"\n## Part {n}\n\n{_WORDS * 3}\n\n{item * 3}{table}{code}\n> {_WORDS}\n"


#: By the kind of text: its beginning, and what comes again and again.
KINDS: Dict[str, Callable[[int], str]] = {
    "mixed": _mixed,
    "paragraphs": lambda n: f"{_WORDS * 5}\n\n",
    "lines": lambda n: f"line {n} of one paragraph\n",
    "code": lambda n: f"    x{n} = {n}  # a line of one block\n" if n else "```python\n",
    "list": lambda n: f"- item {n}: {_WORDS}\n",
    "nested list": lambda n: f"  - item {n}: {_WORDS}\n" if n else "- all\n",
    "table": lambda n: f"| {n} | {_WORDS} | z |\n" if n else "| a | b | c |\n|---|---|---|\n",
    "quote": lambda n: f"> {_WORDS}\n" + "> \n" * (n % 7 == 0),
    "one line": lambda n: _WORDS,
    "no space": lambda n: "xyz",
}

_COUNT = """
window.frames_ = []; let last = performance.now();
requestAnimationFrame(function tick(at) {
  window.frames_.push(at - last); last = at; requestAnimationFrame(tick);
});
"""
#: The last element alone: to read all of a megabyte costs frames.
_END = """(() => {
  let last = document.querySelector('.card .text');
  while (last?.lastElementChild) last = last.lastElementChild;
  return last?.textContent.endsWith('THE END');
})()"""
_SHOWN = "document.querySelector('.card .text')?.textContent.length || 0"


def _busy(browser: Browser) -> float:
    """Seconds that the page's thread has had of a processor."""
    metrics = browser.cdp("Performance.getMetrics")["metrics"]
    return float({metric["name"]: metric["value"] for metric in metrics}["ThreadTime"])


def text_of(kind: str, size: int) -> str:
    pieces: List[str] = []
    length = 0
    while length < size:
        pieces.append(KINDS[kind](len(pieces)))
        length += len(pieces[-1])
    return "".join(pieces)[:size]


def measure(
    browser: Browser, kind: str, size: int, seconds: float, delta: int = _DELTA
) -> Dict[str, Any]:
    """Stream a text within so many seconds; returns the figures of the frames meanwhile."""
    text = text_of(kind, size) + "\n\nTHE END"
    events = EventStream(MemoryStore(capacity=10**6))
    author = {"agent": "writer", "step": "0"}
    events.append(EventType.AGENT_PROCESSING, "run", author)
    app = create_app(Runtime(event_stream=events), max_streams=4)
    with Server(app, listen("127.0.0.1", 0)) as server:
        browser.open(f"{server.url}/#run")
        browser.wait("document.querySelector('.card')")
        browser.cdp("Performance.enable", timeDomain="threadTicks")
        busy = _busy(browser)
        browser.run(_COUNT)
        began = time.monotonic()
        deltas = [text[at : at + delta] for at in range(0, len(text), delta)]
        pause = threading.Event()
        for number, piece in enumerate(deltas):
            data = {**author, "chunk": piece}
            events.append(EventType.AGENT_LLM_STREAM_CHUNK, "run", data)
            early = began + seconds * number / len(deltas) - time.monotonic()
            if early > 0.005:
                pause.wait(early)
        sent = time.monotonic() - began
        browser.wait(_END)
        shown = time.monotonic() - began
        gaps = browser.run("return window.frames_")
        busy = _busy(browser) - busy
        browser.cdp("Performance.disable")
        length = browser.run(f"return {_SHOWN}")
        at_end = browser.run(
            "return scrollY >= document.documentElement.scrollHeight - innerHeight - 60"
        )
        browser.leave()
    events.close()
    return {
        "kind": kind,
        "frames a second": round(1000 * len(gaps) / sum(gaps), 1),
        "longest, ms": round(max(gaps)),
        "a frame's work, ms": round(1000 * busy / len(gaps), 1),
        "late, %": round(100 * sum(gap > 50 for gap in gaps) / len(gaps), 1),
        "sent, s": round(sent, 1),
        "shown, s": round(shown, 1),
        "characters": length,
        "at the end": at_end,
    }


def main(arguments: List[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, default=2**20)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    given = parser.parse_args(arguments)
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or chromium is None:
        print("chromium and chromedriver are not installed", file=sys.stderr)
        return 2
    profile = tempfile.mkdtemp(prefix="page-frames-")
    browser = Browser(driver, chromium, profile)
    slow = 0
    try:
        for kind in given.kinds.split(","):
            found = measure(browser, kind, given.bytes, given.seconds)
            print(", ".join(f"{name} {value}" for name, value in found.items()), flush=True)
            slow += found["frames a second"] < _LEAST
    finally:
        browser.close()
        shutil.rmtree(profile, ignore_errors=True)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
