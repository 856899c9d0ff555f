"""GET /metrics: what Prometheus's own parser reads of it, its bounds, its price, who may ask."""

from __future__ import annotations

import pathlib
import re
from typing import Any, Dict, List, Tuple

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from agentstream import Agent, EventStream, EventType, MemoryStore, Runtime, Workflow
from agentstream.errors import WorkflowFailed
from agentstream.testing import ScriptedServer
from agentstream.tools import tool
from agentstream.web.metrics import BOUNDS, CONTENT_TYPE, FAMILIES, Metrics
from tests.kit.support import client_of, saying, wait_until
from tests.kit.web_support import TOKEN, site

DOC = pathlib.Path(__file__).parents[2] / "docs" / "observability.rst"

Key = Tuple[str, ...]


def samples(text: str) -> Dict[str, Dict[Key, float]]:
    """{name of a sample: {its labels' values: value}}; the text's families are as they are told."""
    found: Dict[str, Dict[Key, float]] = {}
    families = list(text_string_to_metric_families(text))
    for family in families:
        kind, what = FAMILIES.get(family.name) or FAMILIES[f"{family.name}_total"]
        assert (family.type, family.documentation) == (kind, what)
        for sample in family.samples:
            of = found.setdefault(sample.name, {})
            key = tuple(sample.labels.values())
            assert key not in of
            of[key] = sample.value
    assert len(families) == len(FAMILIES)
    return found


@tool
def look(at: str) -> str:
    """Look."""
    return at


def test_what_happened_is_counted_from_the_first_request_on(server: ScriptedServer):
    get = {"headers": {"Authorization": f"Bearer {TOKEN}"}, "timeout": 5}
    with client_of(server, model="m-1") as client, Runtime() as runtime:
        with site(runtime, TOKEN) as it:
            server.reply_text("before")
            agent = Agent("writer", client=client, tools=[look])
            runtime.run(agent, "x")
            subscriptions = runtime.event_stream.subscribers
            url = f"{it.url}/metrics"
            assert requests.get(url, timeout=5).status_code == 401
            assert runtime.event_stream.subscribers == subscriptions  # nobody has asked yet
            answer = requests.get(url, **get)
            assert answer.headers["Content-Type"] == CONTENT_TYPE
            first = samples(answer.text)
            assert first["agentstream_runs"][("completed",)] == 1
            assert "agentstream_runs_ended_total" not in first
            work(server, runtime, agent)
            wait_until(lambda: ("writer", "failed") in ended(requests.get(url, **get).text))
            found = samples(requests.get(url, **get).text)
    assert found["agentstream_runs_ended_total"] == {
        ("writer", "completed"): 1,
        ("writer", "failed"): 1,
    }
    assert found["agentstream_requests_total"] == {
        ("scripted", "completed"): 2,
        ("m-1", "failed"): 1,
    }
    assert found["agentstream_request_errors_total"] == {("m-1", "BadRequest"): 1}
    tokens = {("scripted", "input"): 20, ("scripted", "output"): 4}
    assert found["agentstream_tokens_total"] == tokens
    assert found["agentstream_tool_calls_total"] == {
        ("look", "completed"): 1,
        ("none", "failed"): 1,
    }
    assert found["agentstream_first_token_seconds_count"] == {("scripted",): 2}
    buckets = found["agentstream_run_duration_seconds_bucket"]
    assert len(buckets) == 2 * (len(BOUNDS) + 1)
    assert buckets[("writer", "completed", "+Inf")] == 1
    assert found["agentstream_runs"][("completed",)] == 2
    assert found["agentstream_subscribers"] == {(): subscriptions + 1}
    assert found["agentstream_streams"] == {(): 0}
    assert found["agentstream_missed_events_total"] == {(): 0}


def ended(text: str) -> Any:
    return samples(text).get("agentstream_runs_ended_total", {})


def work(server: ScriptedServer, runtime: Runtime, agent: Agent) -> None:
    server.reply_tool_calls(("look", {"at": "a"}), ("none", {}))
    server.reply_text("two", "words")
    server.reply_json({"error": {"message": "no"}}, status=400)
    runtime.run(agent, "x")
    with pytest.raises(WorkflowFailed):
        runtime.run(agent, "x")


def test_labels_are_escaped_and_bounded():
    odd = 'a "b"\\\n{c="d"} # é \U0001f600'
    with EventStream(MemoryStore()) as stream:
        metrics = Metrics(stream, lambda: 0)
        metrics.page()
        for number in range(150):
            data = {"workflow": odd if not number else f"w{number}", "duration_s": number}
            stream.append(EventType.WORKFLOW_COMPLETED, f"run{number}", data)
        # An event of somebody's own holds anything.
        for data in ({}, {"usage": 1, "model": None, "first_token_s": "x", "duration_s": None}):
            stream.append(EventType.AGENT_LLM_REQUEST_COMPLETED, "own", data)
        wait_until(
            lambda: (
                ("", "completed") in samples(metrics.page()).get("agentstream_requests_total", {})
            )
        )
        found = samples(metrics.page())
        metrics.close()
    counts = found["agentstream_runs_ended_total"]
    assert counts[(odd, "completed")] == 1
    assert counts[("_other", "completed")] == 50
    assert len(counts) == 101
    buckets = found["agentstream_run_duration_seconds_bucket"]
    others = [value for (name, _, _), value in buckets.items() if name == "_other"]
    assert others == sorted(others)
    assert found["agentstream_run_duration_seconds_sum"][("_other", "completed")] == sum(
        range(100, 150)
    )


def test_a_log_of_other_processes_and_one_that_is_closed(tmp_path: pathlib.Path):
    from agentstream import SqliteStore

    path = str(tmp_path / "runs.db")
    with site(SqliteStore(path)) as it:
        requests.get(f"{it.url}/metrics", timeout=5)
        with Runtime(event_stream=EventStream(SqliteStore(path))) as runtime:
            runtime.run(Workflow("w", [Agent("a", client=saying("x"))]), "go")
        wait_until(lambda: ended(requests.get(f"{it.url}/metrics", timeout=5).text))
    stream = EventStream(MemoryStore())
    stream.close()
    assert samples(Metrics(stream, lambda: 0).page())["agentstream_subscribers"] == {(): 0}


def test_the_documentation_lists_them_with_their_types_and_labels():
    rows = re.findall(r"^``(agentstream_\w+)`` +(\w+) +(.*)$", DOC.read_text("utf-8"), re.M)
    assert {name: kind for name, kind, _ in rows} == {n: kind for n, (kind, _) in FAMILIES.items()}
    told: Dict[str, List[str]] = {name: re.findall(r"``(\w+)``", rest) for name, _, rest in rows}
    assert told["agentstream_runs_ended_total"] == ["workflow", "state"]
    assert told["agentstream_tokens_total"] == ["model", "direction"]


def test_an_app_that_is_closed_begins_to_count_nothing():
    with site(max_streams=2) as it:
        it.app.close()
        assert requests.get(it.url + "/metrics").status_code == 200
        assert it.events.subscribers == 0
