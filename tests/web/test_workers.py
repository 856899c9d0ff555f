"""Web workers behind one name, over one log in Redis: each shows, starts, answers, goes on."""

from __future__ import annotations

import contextlib
import pathlib
import threading
from typing import Any, Dict, Iterator, List

import pytest
import requests

from agentstream.testing import Reply, ScriptedServer
from agentstream.web import follow, runs
from stress.web_clients import trial
from tests.kit.balancer import Balancer
from tests.kit.browser import Browser, browser  # noqa: F401
from tests.kit.cli_runs import halted, steps
from tests.kit.redis_server import RedisServer, log_name
from tests.kit.serve import Serve
from tests.kit.support import wait_until
from tests.kit.web_support import SSE, TOKEN
from tests.web.test_page import TEXT, page, state  # noqa: F401

BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def test_k24_each_client_of_two_workers_has_each_offset_once_though_one_is_killed(
    redis: RedisServer,
) -> None:
    told = trial(redis, "serve", 2, 30, seconds=2.0)
    assert told["finished"], told
    assert (told["missing"], told["twice"], told["disorder"]) == (0, 0, 0), told
    assert told["returned"] == 15
    assert told["deliveries"] == 30 * told["events"]
    assert told["redis_connections"] <= 40  # of three processes; there are 30 clients


class Site:
    """Two `agentstream serve` of one workflow, and a balancer before them."""

    def __init__(self, folder: pathlib.Path, model: ScriptedServer, redis: RedisServer) -> None:
        text = steps('agent = "one"', 'wait = "goods"', 'agent = "two"')
        flow = folder / "flow.toml"
        flow.write_text(f'name = "flow"\ninput = "tea"\ncheckpoints = true\n{text}')
        words = [str(flow), "--log", f"{redis.url}?log={log_name()}&lease=1", "--port", "0"]
        env = {"AGENTSTREAM_BASE_URL": model.url, "AGENTSTREAM_TOKEN": TOKEN}
        self._stack = contextlib.ExitStack()
        self.workers = [self._stack.enter_context(Serve(*words, **env)) for _ in range(2)]
        ports = [int(worker.url.rpartition(":")[2]) for worker in self.workers]
        self.balancer = self._stack.enter_context(Balancer(ports))
        self.url = self.balancer.url

    def post(self, worker: int, path: str, body: Any) -> Dict[str, Any]:
        """What a worker answers to a POST that it takes."""
        url = f"{self.workers[worker].url}/workflows{path}"
        answer = requests.post(url, json=body, headers=BEARER, timeout=20)
        assert answer.status_code in (201, 202), answer.text
        return dict(answer.json())

    def status(self, worker: int, run: str) -> str:
        """How a run is, as a worker has it."""
        (found,) = [one for one in runs(self.workers[worker].url, TOKEN) if one.workflow_id == run]
        return found.status

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def site(tmp_path: pathlib.Path, server: ScriptedServer, redis: RedisServer) -> Iterator[Site]:
    """The workers; the second agent stops in its first answer."""
    answers: List[Reply] = [halted("Sec"), Reply.text("Second.")]

    def answer(request: Any) -> Reply:
        first = request.json["messages"][0]["content"] == "one"
        return Reply.text("First.") if first else answers.pop(0)

    server.route("/v1/chat/completions", answer)
    found = Site(tmp_path, server, redis)
    try:
        yield found
    finally:
        found.close()


@pytest.mark.browser
def test_who_follows_a_run_goes_on_with_another_worker_when_its_own_dies(
    site: Site,
    page: Browser,  # noqa: F811
) -> None:
    run = site.post(0, "", {"workflow": "flow"})["workflow_id"]
    wait_until(lambda: site.status(1, run) == "suspended")
    offsets: List[int] = []
    reader = threading.Thread(
        target=lambda: offsets.extend(
            event.offset for event in follow(f"{site.url}/workflows/{run}", TOKEN)
        )
    )
    reader.start()
    page.open(f"{site.url}/#{run}")
    page.type("#token", TOKEN + "\ue007")  # the cookie is as good at the other worker
    state(page, "suspended")
    # Answered at the worker that all of them are at, which goes on with the run, and is killed.
    assert site.post(0, f"/{run}/signals/goods", {"value": "7"})["resumed"]
    page.wait(f"[...document.querySelectorAll('{TEXT}')].some((e) => e.textContent === 'Sec')")
    site.workers[0].process.kill()
    state(page, "completed")
    page.wait(f"[...document.querySelectorAll('{TEXT}')].at(-1).textContent === 'Second.'")
    assert page.texts(TEXT).count("First.") == 1
    reader.join(20)
    assert not reader.is_alive()
    assert offsets == list(range(1, len(offsets) + 1))
    assert site.status(1, run) == "completed"
    with SSE(site.workers[1].url, f"/workflows/{run}/stream", token=TOKEN) as stream:
        assert stream.ids() == offsets


def test_a_run_is_stopped_at_a_worker_that_does_not_run_it(site: Site) -> None:
    run = site.post(0, "", {"workflow": "flow"})["workflow_id"]
    wait_until(lambda: site.status(1, run) == "suspended")
    site.post(0, f"/{run}/signals/goods", {"value": "7"})
    with SSE(site.workers[1].url, f"/workflows/{run}/stream", token=TOKEN) as stream:
        wait_until(lambda: stream.event().data["data"].get("chunk") == "Sec")
        site.post(1, f"/{run}/stop", {})
        assert stream.events()[-1].event == "workflow_cancelled"
    assert [site.status(worker, run) for worker in (0, 1)] == ["cancelled"] * 2
