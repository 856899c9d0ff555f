"""Clients, agents and tools as a file describes them."""

from __future__ import annotations

from typing import Any

import pytest

from agentstream import ConfigError, Runtime
from agentstream.testing import ScriptedServer, text_chunks
from agentstream.workflow_files import load_workflow
from tests.kit.files_support import BASE


def test_defaults_of_the_name_and_the_client(write: Any) -> None:
    file = load_workflow(write(BASE, "my file.toml"))
    assert (file.name, file.input, file.context) == ("my file", None, {})
    assert file.agents["a"].client == "local"


def test_what_nobody_uses_is_a_warning(write: Any) -> None:
    path = write("""
        [clients.one]
        [clients.two]
        [agents.a]
        client = "one"
        [agents.b]
        client = "one"
        [tools.t]
        import = "m:f"
        [[steps]]
        agent = "a"
    """)
    warnings = [text.replace(path, "demo.toml") for text in load_workflow(path).warnings]
    assert warnings == [
        "demo.toml: [agents.b]: no step uses it",
        "demo.toml: [clients.two]: no agent uses it",
        "demo.toml: [tools.t]: no agent has it",
    ]


def test_a_literal_secret_in_a_header_is_a_warning_that_does_not_show_it(write: Any) -> None:
    head = "[clients.c]\nheaders = {Api-Key = 'MARKEDKEY'}\nbase_url = 'http://u:MARKEDKEY@h'\n"
    file = load_workflow(write(head + "[agents.a]\n[[steps]]\nagent = 'a'\n"))
    assert len(file.warnings) == 2
    assert "headers.Api-Key: a secret does not belong into a file" in file.warnings[1]
    for text in (*file.warnings, file.describe(), file.to_mermaid(), repr(file)):
        assert "MARKEDKEY" not in text


def test_a_clients_settings_arrive(write: Any, server: ScriptedServer) -> None:
    server.default(*text_chunks("x"))
    file = load_workflow(
        write(f"""
        [clients.c]
        base_url = "{server.url}"
        model = "big"
        api_key_env = "MY_KEY"
        headers = {{X-Team = "red", X-Pass = {{env = "PASS"}}}}
        body = {{user = "me"}}
        timeouts = {{connect = 3, first_token = false}}
        limits = {{answer = false, pool_size = 7}}
        [agents.a]
        temperature = 0.5
        stop = "#"
        extra = {{penalty = 1}}
        repeat_limit = false
        tool_timeout = false
        [[steps]]
        agent = "a"
    """)
    )
    with file.build(environ={"MY_KEY": "k-1", "PASS": "p-1"}) as workflow, Runtime() as runtime:
        runtime.run(workflow, "x")
        agent = workflow.steps[0].what
    clocks = vars(agent.client.timeouts)
    assert clocks == {"connect": 3, "first_token": None, "stall": 120.0, "total": None}
    assert (agent.client.limits.answer, agent.client.limits.pool_size) == (None, 7)
    assert (agent.repeat_limit, agent.tool_timeout) == (None, None)
    request = server.requests[0]
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert headers["authorization"] == "Bearer k-1"
    assert (headers["x-team"], headers["x-pass"]) == ("red", "p-1")
    body = request.json
    assert (body["model"], body["user"], body["temperature"]) == ("big", "me", 0.5)
    assert (body["stop"], body["penalty"]) == ("#", 1)


def test_times_may_have_a_unit_wherever_one_is_read(write: Any) -> None:
    file = load_workflow(
        write("""
        [clients.c]
        timeouts = {connect = "90s", total = "10m", stall = false}
        retries = {backoff = ".5", max_retry_after = "2m"}
        [agents.a]
        tools = ["t"]
        tool_timeout = "2h"
        on_cut = "fail"
        [tools.t]
        import = "m:f"
        timeout = "3m"
        [[steps]]
        agent = "a"
        timeout = "1.5h"
        on_cut = "warn"
    """)
    )
    settings = file.clients["c"].settings
    timeouts, retries = settings["timeouts"], settings["retries"]
    assert (timeouts.connect, timeouts.total, timeouts.stall) == (90, 600, None)
    assert (retries.backoff, retries.max_retry_after) == (0.5, 120)
    assert file.agents["a"].settings == {"tool_timeout": 7200, "on_cut": "fail"}
    assert file.tools["t"].settings == {"timeout": 180}
    assert file.steps[0].settings == {"timeout": 5400, "on_cut": "warn"}


def test_what_is_no_time_and_no_word_for_a_cut_answer_is_told(write: Any) -> None:
    text = BASE.replace('agent = "a"', 'agent = "a"\ntimeout = "10 min"\non_cut = "stop"')
    with pytest.raises(ConfigError) as caught:
        load_workflow(write(text))
    told = str(caught.value)
    assert 'timeout: must be a number of seconds, or "90s", "10m", "2h", or false, not' in told
    assert "on_cut: must be one of warn, fail, not 'stop'" in told


def test_an_agents_instructions_have_two_names(write: Any) -> None:
    for name in ("system", "system_prompt"):
        file = load_workflow(write(BASE.replace("[agents.a]", f'[agents.a]\n{name} = "Be brief."')))
        assert file.agents["a"].settings["system_prompt"] == "Be brief."
    both = BASE.replace("[agents.a]", '[agents.a]\nsystem = "x"\nsystem_prompt = "y"')
    with pytest.raises(ConfigError, match="system_prompt: is another name for system"):
        load_workflow(write(both))
