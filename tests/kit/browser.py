"""A real browser for the page's tests: headless Chromium, driven by chromedriver.

Speaks as much of WebDriver (JSON over HTTP, https://www.w3.org/TR/webdriver2/) as
the tests need.  One browser serves the whole session.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from typing import Any, Iterator, List, Optional

import pytest

#: The first as the machine needs it (root, no screen); the rest keep Chromium from calling home.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--lang=en-US",
    "--window-size=1200,800",
]
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the standard's own key
_PATIENCE = 30.0  # seconds
_STARTS = 3  # it chooses a port, and ends if another process takes that meanwhile


class BrowserError(Exception):
    """The driver refused a command."""


class Browser:
    """One window at a time.  `run` evaluates JavaScript in it, `wait` until that is true."""

    def __init__(self, driver: str, chromium: str, profile: str) -> None:
        for _ in range(_STARTS):
            self._driver = subprocess.Popen(
                [driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            port = self._read_port()
            if port is not None:
                break
        assert port is not None, "chromedriver did not start"
        self._url = f"http://127.0.0.1:{port}/session"
        options = {"binary": chromium, "args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        answer = self._send("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self._url += "/" + answer["sessionId"]

    def _read_port(self) -> Optional[str]:
        """The port that the driver listens on; None if it ended, and has been waited for."""
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            found = re.search(rb"successfully on port (\d+)", line)
            if found:
                return found[1].decode()
        self._driver.wait(10)
        self._driver.stdout.close()
        return None

    def close(self) -> None:
        with contextlib.suppress(BrowserError, OSError):
            self._send("DELETE", "")
        self._driver.terminate()
        self._driver.wait(10)
        assert self._driver.stdout is not None
        self._driver.stdout.close()

    def _send(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                said = json.load(error)["value"]
            raise BrowserError(f"{said['error']}: {said['message']}") from None

    # --- what a reader does -----------------------------------------------------------------

    def open(self, url: str) -> None:
        """Go there, with no cookie and no memory of earlier visits."""
        self.clear(url)
        self.go(url)

    def clear(self, url: str) -> None:
        """Forget all visits of that origin."""
        self.cdp("Storage.clearDataForOrigin", origin=url.partition("#")[0], storageTypes="all")

    def go(self, url: str) -> None:
        """Go there."""
        self.leave()  # so that a new #fragment loads the page too
        self.log()
        self._send("POST", "/url", {"url": url})
        self.run("sessionStorage.clear()")

    def leave(self) -> None:
        """Go to no page."""
        self._send("POST", "/url", {"url": "about:blank"})

    def reload(self) -> None:
        self._send("POST", "/refresh", {})

    def size(self, width: int, height: int) -> None:
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def find(self, css: str) -> str:
        found = self._send("POST", "/element", {"using": "css selector", "value": css})
        return str(found[_ELEMENT])

    def click(self, css: str) -> None:
        """A real click: what is hidden, covered or disabled cannot have it."""
        self._send("POST", f"/element/{self.find(css)}/click", {})

    def type(self, css: str, text: str) -> None:
        self._send("POST", f"/element/{self.find(css)}/value", {"text": text})

    def press(self, *keys: str, held: str = "") -> None:
        """Keys, one after the other, to whatever has the focus; "\ue004" is Tab, "\ue007" Enter.

        The keys of `held` ("\ue009" is Control) are down meanwhile.
        """
        presses = [{"type": "keyDown", "value": key} for key in held]
        presses += [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        presses += [{"type": "keyUp", "value": key} for key in held]
        source = {"type": "key", "id": "keyboard", "actions": presses}
        self._send("POST", "/actions", {"actions": [source]})

    # --- tabs -------------------------------------------------------------------------------

    def tabs(self) -> List[str]:
        """The open tabs' handles."""
        return list(self._send("GET", "/window/handles"))

    def new_tab(self) -> None:
        """Open a tab, and be in it."""
        self.switch(self._send("POST", "/window/new", {"type": "tab"})["handle"])

    def switch(self, tab: str) -> None:
        self._send("POST", "/window", {"handle": tab})

    def close_tab(self) -> None:
        """Close the tab one is in; `switch` to another one then."""
        self._send("DELETE", "/window")

    # --- what can be seen -------------------------------------------------------------------

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a JavaScript function's body, `return` and all."""
        return self._send("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def texts(self, css: str) -> List[str]:
        """The text of each element that is there, shown or not."""
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
        return list(self.run(script, css))

    def text(self, css: str) -> str:
        """The text of the one element there is."""
        (text,) = self.texts(css)
        return text

    def shown(self, css: str) -> bool:
        script = "const e = document.querySelector(arguments[0]); return !!e && e.checkVisibility()"
        return bool(self.run(script, css))

    def wait(self, script: str, *arguments: Any) -> Any:
        """The first true value of an expression; fails the test if there is none in time."""
        end = time.monotonic() + _PATIENCE
        while True:
            value = self.run(f"return {script}", *arguments)
            if value:
                return value
            assert time.monotonic() < end, f"not so in time: {script} {arguments}\n{self.dump()}"
            threading.Event().wait(0.02)

    def wait_text(self, css: str, text: str) -> None:
        """Wait until an element says exactly this."""
        self.wait(
            "[...document.querySelectorAll(arguments[0])]"
            ".some((e) => e.textContent === arguments[1])",
            css,
            text,
        )

    def dump(self) -> str:
        return f"{self.run('return document.body.innerText')[:2000]}\n{self.log()}"

    def log(self) -> List[str]:
        """The console's lines since the last call: errors, violations of the CSP."""
        entries = self._send("POST", "/se/log", {"type": "browser"})
        return [f"{entry['level']} {entry['message']}" for entry in entries]

    def screenshot(self) -> bytes:
        """A PNG of the window."""
        return base64.b64decode(self._send("GET", "/screenshot"))

    def cdp(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol, for what WebDriver lacks."""
        return self._send("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})


def without_browser(reason: str) -> None:
    """Skip this test, or fail it on CI: a part that CI does not see nobody tests."""
    if os.environ.get("CI"):
        pytest.fail(f"no browser on CI: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, started once a session."""
    driver = shutil.which("chromedriver")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if driver is None or chromium is None:
        without_browser("chromium and chromedriver are not installed (Debian: chromium-driver)")
    assert driver is not None and chromium is not None
    profile = tempfile.mkdtemp(prefix="agentstream-browser-")
    browser = Browser(driver, chromium, profile)
    try:
        yield browser
    finally:
        browser.close()
        shutil.rmtree(profile, ignore_errors=True)  # Chromium may still be writing
