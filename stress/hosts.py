"""Three hosts on a bad network: a run begun on one, executed on another, watched from a third.

    python -m stress.hosts [--delay 10] [--loss 1] [--cut 20]        as root; about three minutes

The hosts are network namespaces (stress/wire.py): `web` serves `create_app(jobs)`, `work` executes
what is queued, `redis` has the log; packets take 10 ms each way, one of a hundred gets lost.  A
run is begun by a POST to `web` and executed on `work`; Chromium on `redis` watches it through
`web`, and so does `agentstream follow`.  In the middle of its first step `work` is cut off for
20 s; in the second its process is killed, and another one goes on.  Prints what happened when, and
exits with 1 if an event was lost or came twice, a step that was done was done again, or the
browser did not show all of the text.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Callable, Dict, List, Tuple

import requests

from agentstream.testing import Pause, Reply, ScriptedServer, text_chunks
from stress.wire import Host, Network, kill, lacking

LEASE = 30.0
TOKEN = "a-token-of-the-stress-test"
#: Words of each agent's answer, and seconds between them.
WORDS, PACE = {"one": 300, "two": 100}, 0.1
#: What the web server and the workers import.
SHOP = """
import os
from agentstream import Agent, EventStream, LlamaClient, RedisStore, Runtime, Workflow
from agentstream.jobs import Jobs

client = LlamaClient(os.environ.get("MODEL", "http://127.0.0.1:1"))
agents = [Agent(name, client=client, system=name) for name in ("one", "two")]
store = RedisStore(os.environ["REDIS"], log="letters", lease=float(os.environ["LEASE"]))
jobs = Jobs(Runtime(event_stream=EventStream(store)), [Workflow("letters", agents)], recover=3)
"""
WEB = """
import os, threading
from agentstream.web import create_app
from agentstream.web.server import Server, listen
from shop import jobs

host = os.environ["HOST"]
app = create_app(jobs, os.environ["AGENTSTREAM_TOKEN"], hosts=[host])
with Server(app, listen(host, 8000)) as server:
    print("ready", flush=True)
    threading.Event().wait()
"""
WORK = "from shop import jobs; print('ready', flush=True); jobs.work(max=4)"
_PATIENCE = 120.0
_HOSTS, _CLI = ("-m", "stress.hosts"), ("-m", "agentstream")


def said(agent: str) -> List[str]:
    """What an agent's model says, word by word."""
    return [f"{agent}{number} " for number in range(WORDS[agent])]


# --- programs that run on a host --------------------------------------------------------------


def model() -> None:
    """A model server: it says its address, then each agent that it was asked by."""

    def answer(request: Any) -> Reply:
        agent = request.json["messages"][0]["content"]
        print(agent, flush=True)
        paced: List[Any] = []
        for chunk in text_chunks(*said(agent)):
            paced += [chunk, Pause(PACE)]
        return Reply(*paced)

    with ScriptedServer() as server:
        server.route("/v1/chat/completions", answer)
        print(server.url, flush=True)
        threading.Event().wait()


def start(url: str) -> None:
    """Start a run, as any client of the web server would; it says its id."""
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    body = {"workflow": "letters", "input": "tea"}
    answer = requests.post(f"{url}/workflows", json=body, headers=bearer, timeout=20)
    print(answer.json()["workflow_id"], flush=True)


def watch(url: str) -> None:
    """A browser at a run's page: it says each state that is shown, and at the end all texts."""
    from tests.kit.browser import Browser

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    assert driver and chromium, "chromium and chromedriver are not installed"
    profile = tempfile.mkdtemp(prefix="agentstream-browser-")
    browser = Browser(driver, chromium, profile)
    try:
        browser.open(url)
        browser.type("#token", TOKEN + "\ue007")
        before = ""
        while before != "completed":
            shown, link = browser.text("#run-state"), browser.text("#link")
            for state in (shown, link):
                if state not in (before, "connected", ""):
                    print(json.dumps({"shows": state}), flush=True)
            before = shown
            threading.Event().wait(0.2)
        browser.wait("[...document.querySelectorAll('.card .text')].length > 1")
        print(json.dumps({"texts": browser.texts(".card .text")}), flush=True)
    finally:
        browser.close()
        shutil.rmtree(profile, ignore_errors=True)


# --- what is seen of them ---------------------------------------------------------------------


class Lines:
    """A program's lines, with the time at which each came."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.had: List[Tuple[float, str]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.had.append((time.monotonic(), line.rstrip("\n")))

    def until(self, is_it: Callable[[str], Any], since: int = 0) -> Tuple[float, str]:
        """The first line that is it, from the one of that number on."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            for found in self.had[since:]:
                if is_it(found[1]):
                    return found
            assert self._thread.is_alive() or not self.process.poll(), self.had[-5:]
            threading.Event().wait(0.02)
        raise AssertionError(f"it did not come: {self.had[-5:]}")

    def all(self) -> List[str]:
        """All lines, to the program's end."""
        self._thread.join(_PATIENCE)
        assert not self._thread.is_alive(), self.had[-5:]
        return [line for _, line in self.had]


class Trial:
    """The programs, each on its host."""

    def __init__(self, network: Network, folder: pathlib.Path) -> None:
        self.network = network
        self.web, self.work, self.redis = (network.hosts[x] for x in ("web", "work", "redis"))
        self.folder = folder
        self._began = time.monotonic()
        for name, text in (("shop.py", SHOP), ("web.py", WEB), ("work.py", WORK)):
            (folder / name).write_text(text)
        self._redis = f"redis://{self.redis.address}:6379/0"
        self.url = f"http://{self.web.address}:8000"

    def note(self, what: str, **more: Any) -> None:
        """Print what has happened."""
        at = round(time.monotonic() - self._began, 1)
        print(json.dumps({"at_s": at, "what": what, **more}), flush=True)

    def start(self, host: Host, *words: str, **environment: str) -> Lines:
        """Start a program of Python on a host."""
        errors = (self.folder / "errors").open("a")
        paths = os.pathsep.join([os.getcwd(), *filter(None, sys.path)])
        kept = {"PYTHONPATH": paths, "REDIS": self._redis, "LEASE": str(LEASE)}
        kept.update(AGENTSTREAM_LOG=f"{self._redis}?log=letters", AGENTSTREAM_TOKEN=TOKEN)
        with errors:
            return Lines(
                host.start(
                    sys.executable,
                    *words,
                    cwd=self.folder,
                    env={**os.environ, **kept, **environment},
                    stdout=subprocess.PIPE,
                    stderr=errors,
                )
            )

    def begin(self) -> Tuple[Lines, str]:
        """Start Redis, the model and the web server; the model's lines, and its address."""
        words = ["redis-server", "--bind", self.redis.address, "--protected-mode", "no"]
        words += ["--dir", str(self.folder), "--save", "", "--appendonly", "yes"]
        server = Lines(self.redis.start(*words, stdout=subprocess.PIPE))
        server.until(lambda line: "Ready to accept" in line)
        model = self.start(self.work, *_HOSTS, "--model")
        _, at = model.until(lambda line: line.startswith("http"))
        self.start(self.web, "web.py", HOST=self.web.address).until(lambda line: line == "ready")
        return model, at

    def worker(self, model: str) -> Lines:
        """Start what executes runs that are queued, or left by another."""
        worker = self.start(self.work, "work.py", MODEL=model)
        worker.until(lambda line: line == "ready")
        return worker


# --- the trial --------------------------------------------------------------------------------


def run(trial: Trial, cut: float) -> Dict[str, Any]:
    """All of it; returns what the follower, the browser and the log had at the end."""
    model, at = trial.begin()
    (workflow_id,) = trial.start(trial.web, *_HOSTS, "--start", trial.url).all()
    trial.note("a run was begun on web, and is queued")
    follow = [*_CLI, "follow", "--url", trial.url, workflow_id, "--jsonl"]
    follower = trial.start(trial.redis, *follow)
    browser = trial.start(trial.redis, *_HOSTS, "--watch", f"{trial.url}/#{workflow_id}")
    browser.until(lambda line: "queued" in line)
    worker = trial.worker(at)
    follower.until(_says("one20 "))
    trial.note("it is executed on work; the follower on redis has its words")

    trial.network.cut("work")
    trial.note("work is cut off")
    threading.Event().wait(cut)
    had = len(follower.had)
    trial.network.heal("work")
    healed = time.monotonic()
    again, _ = follower.until(lambda line: True, since=had)
    trial.note("work is back", next_event_after_s=round(again - healed, 2))

    trial.worker(at)  # it waits for what is queued, or left
    follower.until(_says("two20 "))
    kill(worker.process)
    killed = time.monotonic()
    trial.note("the second step is under way, and its process is killed")
    resumed, _ = follower.until(_is("workflow_resumed"), since=len(follower.had))
    trial.note("another one goes on", after_s=round(resumed - killed, 1))
    follower.until(_is("workflow_completed"))
    trial.note("the run has ended")
    whole = trial.start(trial.web, *_CLI, "follow", workflow_id, "--jsonl").all()
    return {
        "follower": [json.loads(line) for line in follower.all()],
        "log": [json.loads(line) for line in whole],
        "browser": [json.loads(line) for line in browser.all()],
        "asked": [line for _, line in model.had[1:]],
    }


def _says(chunk: str) -> Callable[[str], bool]:
    return lambda line: json.loads(line)["data"].get("chunk") == chunk


def _is(type: str) -> Callable[[str], bool]:
    return lambda line: json.loads(line)["type"] == type


def judge(had: Dict[str, Any], cut: float) -> List[str]:
    """What is wrong; nothing, if all is well."""
    wrong = []
    taken = int(cut > LEASE)  # the first step was taken for left, and begun again
    for who in ("follower", "log"):
        offsets = [event["offset"] for event in had[who]]
        if offsets != list(range(1, len(offsets) + 1)):
            twice = [place for place, count in collections.Counter(offsets).items() if count > 1]
            gone = sorted(set(range(1, max(offsets) + 1)) - set(offsets))
            wrong.append(f"{who}: twice {twice[:5]}, missing {gone[:5]}")
    if had["follower"] != had["log"]:
        wrong.append("the follower had other events than the log")
    types = collections.Counter(event["type"] for event in had["log"])
    if (types["workflow_completed"], types["workflow_resumed"]) != (1, 1 + taken):
        wrong.append(f"ends and resumptions: {types}")
    if had["asked"] != ["one"] * (1 + taken) + ["two", "two"]:
        wrong.append(f"the model was asked by {had['asked']}")
    shown = [text.strip() for text in had["browser"][-1]["texts"]]
    for agent in WORDS:
        times = shown.count("".join(said(agent)).strip())
        if times != 1:
            begun = [text[:20] for text in shown]
            wrong.append(f"the browser shows {agent}'s answer {times} times: {begun}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=10.0, help="milliseconds, each way")
    parser.add_argument("--loss", type=float, default=1.0, help="packets of a hundred")
    parser.add_argument("--cut", type=float, default=20.0, help="seconds; the lease is 30")
    parser.add_argument("--model", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--start", help=argparse.SUPPRESS)
    parser.add_argument("--watch", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.model or given.start or given.watch:
        model() if given.model else start(given.start) if given.start else watch(given.watch)
        return 0
    if lacking():
        print(f"no network of namespaces here: there is no {lacking()}")
        return 2
    line = {"delay": given.delay / 1000, "loss": given.loss / 100}
    with tempfile.TemporaryDirectory(prefix="agentstream-hosts-") as name:
        folder = pathlib.Path(name)
        with Network("web", "work", "redis", **line) as network:
            trial = Trial(network, folder)
            try:
                had = run(trial, given.cut)
            except BaseException:
                print((folder / "errors").read_text()[-5000:])
                raise
            trial.note("packets", carried=network.carried, lost=network.lost)
    shown = collections.Counter(line["shows"] for line in had["browser"][:-1])
    wrong = judge(had, given.cut)
    print(json.dumps({"events": len(had["log"]), "browser": shown, "wrong": wrong}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
