"""Clients, agents and tools as a file describes them."""

from __future__ import annotations

from typing import Any

from agentstream import Runtime
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
